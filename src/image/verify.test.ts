// The verification pass over real files, wherever they lie: its pace, its end, and what it does without what it wants.
// What it finds on a device is in test/qemu/verify.test.ts, what it does at every fault in test/sim/copy.test.ts.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import type { ChildNews, ChildTask } from '../../test/lib/copy-child.js';
import { must } from '../../test/lib/process.js';
import type { CopyWhole, VerifyMode } from '../block/copy.js';
import { within } from '../std/deadline.js';
import { StateError } from '../std/errors.js';
import { HostCopyFiles } from './copy-host.js';
import { copyFrozen } from './copy.js';
import type { CopyReport, Tuning } from './copying.js';
import { Pace } from './pace.js';
import { newKey } from './pieces.js';
import { copyTool } from './qemu-img.js';
import { readBackOf } from './verify.js';

const MiB = 1 << 20;
const tuning: Tuning = { pieceBytes: MiB / 4, checkpointBytes: MiB, checkpointMs: 60_000 };

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'ferry-verify-'));
  try {
    await body(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

interface Asked {
  readonly verify?: VerifyMode;
  readonly signal?: AbortSignal;
  /** What holds once it verifies. */
  readonly limit?: number;
  readonly onReport?: (report: CopyReport) => void;
}

async function copy(folder: string, asked: Asked): Promise<CopyWhole> {
  const [from, to] = [join(folder, 'from'), join(folder, 'to')];
  const bytes = randomBytes(2 * MiB + 1);
  // A block of zeroes, even of one, is a hole.
  bytes[2 * MiB] = 1;
  await writeFile(from, bytes);
  await using files = new HostCopyFiles({ from, to, key: newKey() }, copyTool('qemu-img'), null);
  let isVerifying = false;
  const whole = await copyFrozen(
    files,
    {
      doing: `copy ${from} to ${to}`,
      backing: null,
      saved: null,
      save: async ({ note }) => void (isVerifying ||= note === 'pieces'),
      onProgress: (report) => asked.onReport?.(report),
      signal: asked.signal ?? new AbortController().signal,
      verify: asked.verify ?? 'full',
      pace: new Pace(() => (isVerifying ? (asked.limit ?? null) : null)),
    },
    { ...tuning, checkpointBytes: 64 * MiB },
  );
  await must('cmp', [from, to]);
  return whole;
}

test('all is read back, and told of as the second phase', async () => {
  await inFolder(async (folder) => {
    const reports: CopyReport[] = [];
    const { verified, how } = await copy(folder, { onReport: (report) => reports.push(report) });
    if (how === 'reflink') assert.equal(verified, null);
    if (how === 'reflink') return;
    assert.equal(verified?.bytes, 2 * MiB + 1);
    assert.equal(verified.repairedBytes, 0);
    const phases = reports.map(({ phase }) => phase);
    assert.deepEqual(phases.toSorted(), phases, 'copying comes before verifying');
    const last = reports.at(-1);
    assert.deepEqual(last, { phase: 'verifying', doneBytes: 2097153n, totalBytes: 2097153n });
  });
});

test('a limit holds for what is read back, and a cancel does not wait for it', async () => {
  await inFolder(async (folder) => {
    const { verified } = await copy(folder, { limit: 4 * MiB });
    // The lanes' first pieces go ahead of their time.
    if (verified !== undefined && verified !== null)
      assert.ok(verified.seconds >= 0.4, `2 MiB at 4 MiB/s took ${verified.seconds} s`);
    const cancel = new AbortController();
    const slow = copy(folder, {
      limit: 1024,
      signal: cancel.signal,
      onReport: ({ phase }) => void (phase === 'verifying' && cancel.abort()),
    });
    await assert.rejects(
      within(slow, 20_000, 'cancel of a verification that would take half an hour'),
      (error) => error instanceof StateError && error.code === 'OPERATION_ABORTED',
    );
  });
});

const childPath = new URL('../../test/lib/copy-child.js', import.meta.url).pathname;

test('where there is no room for memory that begins at a page, all goes through the page cache, and is said so', async () => {
  await inFolder(async (folder) => {
    const [from, to, stateDir] = ['from', 'to', 'state'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    await mkdir(stateDir);
    await writeFile(from, randomBytes(2 * MiB));
    const task: ChildTask = { from, to, stateDir, tuning, limitBytesPerSecond: null };
    // V8 sets aside 8 GiB of addresses for such memory.
    const limited = ['--as=4294967296', process.execPath, childPath, JSON.stringify(task)];
    const lines = (await must('prlimit', limited)).trim().split('\n');
    const last = JSON.parse(lines.at(-1) ?? '') as ChildNews; // our own child
    assert.ok('root' in last, lines.at(-1));
    assert.equal(last.storageBytes, 0);
    await must('cmp', [from, to]);
  });
});

for (const [dataBytes, how, expected] of [
  [10n << 30n, 'full', 10n << 30n],
  [10n << 30n, 'none', 0n],
  [10n << 30n, 'sample', (10n << 30n) / 20n],
  [1n << 30n, 'sample', 128n << 20n],
  [64n << 20n, 'sample', 64n << 20n],
] as const)
  test(`of ${dataBytes >> 20n} MiB, verified ${how}, ${expected >> 20n} MiB are read back`, () =>
    assert.equal(readBackOf(dataBytes, how), expected));
