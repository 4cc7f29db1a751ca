// Copy of a frozen image by the copier (hashed, journaled, durable) against `cp --sparse=always` and fsync of the same
// image, turn about in the same run; and by the copier with its verification. One line a case; the ratio of the speeds is
// what counts.

import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { VerifyMode } from '../src/block/copy.js';
import { hostImages } from '../src/image/qemu-img.js';
import { openJournal } from '../src/journal/sqlite.js';
import type { Plan } from '../src/plan/step.js';
import { must } from '../test/lib/process.js';

const ROUNDS = Number(process.env['ROUNDS'] ?? 9);
const DATA_MIB = Number(process.env['DATA_MIB'] ?? 384);
const clusterBytes = 64 << 10;

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

const plan: Plan = {
  operation: 'move',
  domain: 'c0ffee00-0000-4000-8000-000000000001',
  domainName: 'bench',
  steps: [{ kind: 'copy-image', from: '', to: '', format: 'raw', backing: null }],
  commitAt: 1,
};

/** Data that no storage can make smaller, in clusters with holes of `holeBytes` between them. */
async function fill(path: string, sizeBytes: number, holeBytes: number): Promise<void> {
  const random = await open('/dev/urandom');
  const file = await open(path, 'w');
  const bytes = Buffer.alloc(clusterBytes);
  await file.truncate(sizeBytes);
  for (let n = 0; n < DATA_MIB * 16; n++) {
    await random.read(bytes);
    await file.write(bytes, 0, clusterBytes, n * (clusterBytes + holeBytes));
  }
  await file.sync();
  await file.close();
  await random.close();
}

async function byCp(from: string, to: string): Promise<void> {
  await must('cp', ['--sparse=always', '--reflink=never', '--', from, to]);
  await must('sync', ['--', to]);
}

async function byCopier(
  folder: string,
  { from, to, verify }: { readonly from: string; readonly to: string; readonly verify: VerifyMode },
): Promise<void> {
  await using journal = openJournal({ stateDir: join(folder, 'state') });
  const operation = await journal.begin(plan);
  await hostImages().copy({
    from,
    to,
    backing: null,
    saved: null,
    save: async (note) => await journal.saveCopy(operation, 0, note),
    onProgress: () => undefined,
    signal: new AbortController().signal,
    verify,
  });
}

/** Seconds that `copy` took, on a storage that has nothing else to do. */
async function timed(to: string, copy: () => Promise<void>): Promise<number> {
  await rm(to, { force: true });
  await must('sync', []);
  const start = performance.now();
  await copy();
  return (performance.now() - start) / 1000;
}

async function compare(folder: string, name: string, image: string): Promise<void> {
  const to = join(folder, 'copy');
  const ours: number[] = [];
  const verified: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    theirs.push(await timed(to, async () => await byCp(image, to)));
    const blocks = (await stat(to)).blocks;
    for (const [verify, times] of [
      ['none', ours],
      ['full', verified],
    ] as const)
      times.push(await timed(to, async () => await byCopier(folder, { from: image, to, verify })));
    await must('cmp', ['--', image, to]);
    const ratio = (await stat(to)).blocks / blocks;
    if (ratio > 1.02) throw new Error(`the copy takes ${ratio} times the room of cp's`);
  }
  const [a, c, b] = [median(ours), median(verified), median(theirs)];
  const list = (all: readonly number[]): string => all.map((one) => one.toFixed(2)).join(' ');
  process.stdout.write(
    `copy of ${DATA_MIB} MiB (${name}), ${ROUNDS} rounds, median: copier ${a.toFixed(2)} s, with verification ${c.toFixed(2)} s, cp + fsync ${b.toFixed(2)} s, speed ratio ${(b / a).toFixed(2)}\n  copier:   ${list(ours)}\n  verified: ${list(verified)}\n  cp:       ${list(theirs)}\n`,
  );
}

const folder = await mkdtemp(join(tmpdir(), 'ferry-bench-copy-'));
try {
  const raw = join(folder, 'raw');
  const qcow2 = join(folder, 'qcow2');
  await fill(raw, 1 << 30, 0);
  await must('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2]);
  await must('sync', []);
  await compare(folder, 'qcow2 of 1 GiB', qcow2);
  await fill(raw, 1 << 30, clusterBytes);
  await compare(folder, 'raw of 1 GiB, a hole behind every 64 KiB', raw);
} finally {
  await rm(folder, { recursive: true });
}
