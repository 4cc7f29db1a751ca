// Who names a file: every domain as it is known, with its snapshots and whatever is owed, and every operation that has
// not ended. Found by text, so that a member that is added to a record tomorrow is looked at tomorrow.

import { stat } from 'node:fs/promises';
import type { DomainRecord } from '../../domain/record.js';
import { encode } from '../../journal/codec.js';
import type { OperationRecord } from '../../journal/journal.js';

interface User {
  readonly who: string;
  readonly text: string;
}

export class Users {
  private readonly users: readonly User[];
  /** Device and inode of every path that somebody names: the same file may have several names. */
  private readonly keys: ReadonlyMap<string, readonly string[]>;

  private constructor(users: readonly User[], keys: ReadonlyMap<string, readonly string[]>) {
    this.users = users;
    this.keys = keys;
  }

  static async of(
    records: readonly DomainRecord[],
    open: readonly OperationRecord[],
  ): Promise<Users> {
    const users = [
      ...records.map((record) => ({
        who: `domain '${record.name}' or a snapshot of it names it`,
        text: encode(record),
      })),
      ...open.map(({ id, kind, plan }) => ({
        who: `operation ${id} (${kind}), which has not ended, names it`,
        text: encode(plan),
      })),
    ];
    const keys = new Map<string, string[]>();
    for (const { who, text } of users)
      for (const path of pathsIn(text)) {
        const key = await keyOf(path);
        if (key !== null) keys.set(key, [...(keys.get(key) ?? []), who]);
      }
    return new Users(users, keys);
  }

  /** `key`: device and inode, `dev:ino`. */
  of(path: string, key: string): readonly string[] {
    const byName = this.users.filter(({ text }) => names(text, path)).map(({ who }) => who);
    return [...new Set([...byName, ...(this.keys.get(key) ?? [])])];
  }
}

const pathsIn = (text: string): ReadonlySet<string> =>
  new Set([...text.matchAll(/"(\/(?:[^"\\]|\\.)+)"/g)].map((match) => unquoted(match[1] ?? '')));

const unquoted = (text: string): string => String(JSON.parse(`"${text}"`));

async function keyOf(path: string): Promise<string | null> {
  try {
    const { dev, ino } = await stat(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}

/** Whether `path` stands in JSON text, whole: `/a/vda` does not stand in `/a/vda.snap`. */
function names(text: string, path: string): boolean {
  const wanted = JSON.stringify(path).slice(1, -1);
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + 1)) {
    const after = text[at + wanted.length] ?? '';
    if (!/[\w./-]/.test(after)) return true;
  }
  return false;
}
