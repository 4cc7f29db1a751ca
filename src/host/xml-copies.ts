// The definition of every domain as a file, for the day on which the journal cannot be read: `ferry doctor --xml` and
// `virsh define` take it. Nothing here reads it again, so that it can never be believed instead of the journal.
//
// A copy of the journal itself would be worse than none: put back after a move it would name images that are stale, and
// nothing would refuse to start a guest from them (docs/decisions/0008).

import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { messageOf } from '../std/errors.js';
import type { HostConfig, Known } from './context.js';
import { domainXml } from './xml.js';

/** Behind what happens: a commit may stand in the pause of a guest. */
const BEHIND_MS = 2000;

export class XmlCopies {
  private readonly directory: string;
  private readonly known: Known;
  private readonly log: HostConfig['log'];
  /** Name by uuid, of domains that changed. */
  private readonly changed = new Map<string, string>();
  private timer: NodeJS.Timeout | null = null;
  private writing: Promise<void> = Promise.resolve();

  constructor({ stateDir, log }: HostConfig, known: Known) {
    this.directory = join(stateDir, 'xml');
    this.known = known;
    this.log = log;
    known.onTold(({ domain, before, after }) => this.note(domain, (after ?? before)?.name));
    for (const { uuid, name } of known.all()) this.note(uuid, name);
  }

  /** Resolves when all that is known now is written, or could not be. */
  async close(): Promise<void> {
    if (this.timer !== null) this.write();
    await this.writing;
  }

  private note(uuid: string, name: string | undefined): void {
    if (name === undefined) return;
    this.changed.set(uuid, name);
    this.timer ??= setTimeout(() => this.write(), BEHIND_MS);
  }

  private write(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    const changed = [...this.changed];
    this.changed.clear();
    this.writing = this.writing.then(async () => {
      for (const [uuid, name] of changed) await this.copy(uuid, name);
    });
  }

  private async copy(uuid: string, name: string): Promise<void> {
    const path = join(this.directory, `${name}.xml`);
    try {
      const record = this.known.find(uuid);
      if (record === null) await rm(path, { force: true });
      else await keep(path, domainXml(record, true));
    } catch (error) {
      this.log.warn({ domain: name, error: messageOf(error) }, `${path} could not be written`);
    }
  }
}

/** Whole or as before, also after a power cut. */
async function keep(path: string, text: string): Promise<void> {
  const before = await readFile(path, 'utf8').catch(() => null);
  if (before === text) return;
  await mkdir(join(path, '..'), { recursive: true, mode: 0o700 });
  const file = await open(`${path}.new`, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}
