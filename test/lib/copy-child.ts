// A process that copies, to be killed: it keeps its journal as ferryd does and says on stdout how far it is. Its argument
// is JSON (`ChildTask`), each line that it prints is JSON (`ChildNews`).

import { readFileSync } from 'node:fs';
import type { CopyRequest, Tuning } from '../../src/image/copying.js';
import { copyFrozen } from '../../src/image/copy.js';
import { Pace } from '../../src/image/pace.js';
import { newKey } from '../../src/image/pieces.js';
import { copyTool } from '../../src/image/qemu-img.js';
import { HostCopyFiles } from '../../src/image/copy-host.js';
import { openJournal } from '../../src/journal/sqlite.js';
import type { Plan } from '../../src/plan/step.js';
import { messageOf } from '../../src/std/errors.js';

export interface ChildTask {
  readonly from: string;
  readonly to: string;
  readonly stateDir: string;
  readonly tuning: Tuning;
  readonly limitBytesPerSecond: number | null;
}

export type ChildNews =
  | { readonly savedBytes: number }
  | { readonly doneBytes: number }
  /** `writtenBytes`: of all its writes, those to the journal too (proc(5), wchar). */
  | {
      readonly key: string;
      readonly root: string | null;
      readonly writtenBytes: number;
      /** What the verification read past the page cache. */
      readonly storageBytes: number;
    }
  | { readonly error: string };

const task = JSON.parse(process.argv[2] ?? '') as ChildTask; // what the test gave
const { from, to } = task;
const say = (news: ChildNews): void => void process.stdout.write(`${JSON.stringify(news)}\n`);

const plan: Plan = {
  operation: 'move',
  domain: 'c0ffee00-0000-4000-8000-000000000001',
  domainName: 'vm1',
  steps: [{ kind: 'copy-image', from, to, format: 'raw', backing: null }],
  commitAt: 1,
};

await using journal = openJournal({ stateDir: task.stateDir });
const operation = (await journal.openOperations())[0]?.id ?? (await journal.begin(plan));
const saved = await journal.copy(operation, 0);
const request: CopyRequest = {
  doing: `copy ${from} to ${to}`,
  backing: null,
  saved,
  async save(note) {
    await journal.saveCopy(operation, 0, note);
    const savedBytes = (await journal.operation(operation))?.copies[0]?.savedBytes ?? 0;
    if (note.note === 'pieces') say({ savedBytes });
  },
  onProgress: ({ doneBytes }) => say({ doneBytes: Number(doneBytes) }),
  signal: new AbortController().signal,
  pace: new Pace(() => task.limitBytesPerSecond),
};
const key = saved?.key ?? newKey();
await using files = new HostCopyFiles({ from, to, key }, copyTool('qemu-img'), null);
try {
  const { root, verified } = await copyFrozen(files, request, task.tuning);
  const writtenBytes = Number(/wchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]);
  say({ root, key, writtenBytes, storageBytes: verified?.storageBytes ?? 0 });
} catch (error) {
  say({ error: messageOf(error) });
}
