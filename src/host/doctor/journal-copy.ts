// Reads a journal that no daemon answers for, without touching it: what is opened is a copy, because opening the
// database itself would recover its log, which is writing, and would take the lock that a starting daemon needs.

import { copyFile, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Journal } from '../../journal/journal.js';
import { openJournal } from '../../journal/sqlite.js';
import { messageOf } from '../../std/errors.js';
import type { JournalFacts } from './facts.js';

export interface JournalCopy extends AsyncDisposable {
  readonly facts: JournalFacts;
  /** Null unless it was read. */
  readonly journal: Journal | null;
}

/** The database, and the log that holds what is newest. */
const files = ['ferry.db', 'ferry.db-wal'] as const;
/** A daemon may be writing; a copy counts only if nothing changed meanwhile. */
const TRIES = 5;

export async function readJournalCopy(stateDir: string): Promise<JournalCopy> {
  const path = join(stateDir, files[0]);
  const nothing = (state: 'missing' | 'unreadable', problem: string): JournalCopy => ({
    facts: { state, path, problem },
    journal: null,
    [Symbol.asyncDispose]: async () => undefined,
  });
  const folder = await mkdtemp(join(tmpdir(), 'ferry-doctor-'));
  const dispose = async (): Promise<void> => await rm(folder, { recursive: true, force: true });
  try {
    if (!(await copied(stateDir, folder))) {
      await dispose();
      return nothing('unreadable', 'it is being written to: a ferryd is at work with it');
    }
    const journal = openJournal({ stateDir: folder });
    return {
      facts: { state: 'read', path },
      journal,
      [Symbol.asyncDispose]: async () => {
        await journal[Symbol.asyncDispose]();
        await dispose();
      },
    };
  } catch (error) {
    await dispose();
    if (isMissing(error)) return nothing('missing', 'there is no such file');
    const problem = messageOf(error).replaceAll(join(folder, files[0]), 'the copy');
    return nothing('unreadable', problem.replace(/^(journal|start): /, ''));
  }
}

async function copied(from: string, to: string): Promise<boolean> {
  for (let i = 0; i < TRIES; i++) {
    const before = await stamps(from);
    await rm(join(to, files[1]), { force: true });
    await copyFile(join(from, files[0]), join(to, files[0]));
    await copyFile(join(from, files[1]), join(to, files[1])).catch(unlessMissing);
    if ((await stamps(from)) === before) return true;
  }
  return false;
}

/** Size and time of both files, as one text. */
async function stamps(folder: string): Promise<string> {
  const found = await Promise.all(
    files.map(async (name) => await stat(join(folder, name), { bigint: true }).catch(() => null)),
  );
  return found.map((file) => `${file?.size}@${file?.mtimeNs}`).join(' ');
}

function unlessMissing(error: unknown): void {
  if (!isMissing(error)) throw error;
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'ENOENT';
