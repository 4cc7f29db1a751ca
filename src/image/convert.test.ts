// Conversions and comparisons by the real qemu-img, and how it is followed, slowed down and ended.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import type { CopyNote } from '../block/copy.js';
import type { ConvertImage, Going } from './convert.js';
import { Pacer, shareOf } from './paced-tool.js';
import { hostImages } from './qemu-img.js';
import { runTool } from './tool.js';

const images = hostImages();
const tool = async (...args: readonly string[]): Promise<string> =>
  await runTool('qemu-img', args, 60_000);
const write = async (path: string, what: string): Promise<string> =>
  await runTool('qemu-io', ['-f', 'qcow2', '-c', what, path], 60_000);

const going = (more: Partial<Going> = {}): Going => ({
  signal: new AbortController().signal,
  limitBytesPerSecond: () => null,
  onProgress: () => undefined,
  ...more,
});

/** A base with data, and a layer over it that has some of its own and zeroes. */
async function chainIn(t: TestContext) {
  const folder = await mkdtemp(join(process.env['FERRY_LAB_PARENT'] ?? '/tmp', 'bf-convert-'));
  t.after(async () => await rm(folder, { recursive: true }));
  const at = (name: string): string => join(folder, name);
  const [base, top, part] = [at('base.qcow2'), at('top.qcow2'), at('out.part')];
  await tool('create', '-q', '-f', 'qcow2', base, '64M');
  await write(base, 'write -P 5 0 16M');
  await tool('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top);
  await write(top, 'write -P 7 1M 3M');
  await write(top, 'write -z 8M 1M');
  const chain = [
    { path: top, format: 'qcow2' },
    { path: base, format: 'qcow2' },
  ] as const;
  const notes: CopyNote[] = [];
  const request: ConvertImage = {
    ...going(),
    chain,
    to: part,
    format: 'raw',
    clusterSizeBytes: null,
    below: [],
    verify: 'full',
    save: async (note) => void notes.push(note),
  };
  return { folder, base, top, part, chain, request, notes };
}

test('a chain becomes one raw image with its holes, read back and with a root that is found again', async (t) => {
  const { request, part, notes } = await chainIn(t);
  const shares: bigint[] = [];
  const whole = await images.convert({
    ...request,
    onProgress: ({ doneBytes, totalBytes }) => shares.push((doneBytes * 100n) / totalBytes),
  });
  assert.equal(whole.how, 'convert');
  assert.equal(whole.verified?.how, 'full');
  const info = await images.info(part, 'raw');
  assert.equal(info?.virtualSizeBytes, 64n << 20n);
  assert.ok(info.actualSizeBytes < 17n << 20n, `${info.actualSizeBytes} bytes`);
  assert.ok(shares.length > 4 && shares.every((share) => share >= 0n && share <= 100n));
  assert.deepEqual(
    notes.map(({ note }) => note),
    ['begun'],
  );
  const begun = notes.find((note) => note.note === 'begun');
  assert.ok(begun !== undefined);
  assert.equal(await images.rootOf(part, begun, request.signal), whole.root);
  assert.deepEqual(await images.identity(part), whole.file);
});

test('a layer with other clusters holds only what is its own, and names the base that is meant', async (t) => {
  const { request, part, base, folder } = await chainIn(t);
  const copy = join(folder, 'copy.qcow2');
  await tool('convert', '-O', 'qcow2', base, copy);
  const below = [{ path: copy, format: 'qcow2' }] as const;
  const { verified } = await images.convert({
    ...request,
    format: 'qcow2',
    clusterSizeBytes: 1 << 20,
    below,
    verify: 'sample',
  });
  assert.equal(verified?.how, 'full', 'a sample is all of it');
  const info = await images.info(part, 'qcow2');
  assert.equal(info?.clusterSizeBytes, 1 << 20);
  assert.deepEqual(info.backing, { filename: copy, format: 'qcow2' });
  assert.ok(info.actualSizeBytes < 8n << 20n, `${info.actualSizeBytes} bytes`);
});

test('two chains that differ do so at a byte of the disk, whatever their headers name', async (t) => {
  const { base, chain, folder } = await chainIn(t);
  const copy = join(folder, 'copy.qcow2');
  await tool('convert', '-O', 'qcow2', base, copy);
  const other = [chain[0], { path: copy, format: 'qcow2' }] as const;
  const compare = async () => await images.compare({ ...going(), source: chain, target: other });
  assert.deepEqual(await compare(), { differsAt: null });
  // Where the layer above hides it, and where it does not.
  await write(copy, 'write -P 6 2M 64k');
  assert.deepEqual(await compare(), { differsAt: null });
  await write(copy, 'write -P 6 5M 64k');
  assert.deepEqual(await compare(), { differsAt: 5n << 20n });
});

test('a conversion that is cancelled ends at once; one that stands still goes on; what was left is replaced', async (t) => {
  const { request, part } = await chainIn(t);
  const abort = new AbortController();
  const began = performance.now();
  await assert.rejects(
    images.convert({
      ...request,
      signal: abort.signal,
      limitBytesPerSecond: () => 0,
      save: async () => void setImmediate(() => abort.abort()),
    }),
    /canceled/,
  );
  assert.ok(performance.now() - began < 20_000);
  let looks = 0;
  const early: bigint[] = [];
  await images.convert({
    ...request,
    verify: 'none',
    limitBytesPerSecond: () => (++looks > 10 ? null : 0),
    onProgress: ({ doneBytes }) => void (looks <= 10 && early.push(doneBytes)),
  });
  assert.deepEqual(early, [], 'nothing moves before it may');
  assert.equal((await images.info(part, 'raw'))?.virtualSizeBytes, 64n << 20n);
});

test('a source that somebody writes to, and one that is gone, are told of', async (t) => {
  const { request, top, folder } = await chainIn(t);
  let isWritten = false;
  await assert.rejects(
    images.convert({
      ...request,
      onProgress: ({ phase }) => {
        if (phase !== 'verifying' || isWritten) return;
        isWritten = true;
        void import('node:fs').then(({ utimesSync }) => utimesSync(top, 1, 1));
      },
    }),
    /the source was written to meanwhile/,
  );
  await rm(top);
  await assert.rejects(images.convert(request), /top\.qcow2 is not there/);
  assert.deepEqual((await readdir(folder)).toSorted(), ['base.qcow2', 'out.part']);
});

for (const [said, share] of [
  ['', null],
  ['    (0.00/100%)\r', 0],
  ['    (0.00/100%)\r    (12.34/100%)\r', 0.1234],
  ['    (12.34/100%)\r    (56.', 0.1234],
  ['    (100.00/100%)\n', 1],
] as const)
  test(`progress of ${JSON.stringify(said)}`, () => assert.equal(shareOf(said), share));

test('a process goes on as long as it has not read more than its rate, and makes up for nothing', () => {
  let [read, rate] = [0, 100 as number | null];
  const said: string[] = [];
  const pacer = new Pacer(
    () => rate,
    () => read,
    { stop: () => said.push('stop'), goOn: () => said.push('go on') },
  );
  const look = (atMs: number, readBytes: number): string => {
    read = readBytes;
    said.length = 0;
    pacer.look(atMs);
    return said.join();
  };
  assert.equal(look(0, 0), '');
  assert.equal(look(1000, 90), '', 'in time');
  assert.equal(look(2000, 300), 'stop', 'ahead of its time');
  assert.equal(look(2500, 300), '', 'still');
  assert.equal(look(4000, 300), 'go on');
  // It stood still for long: that is no credit.
  assert.equal(look(60_000, 310), '');
  assert.equal(look(60_500, 9000), 'stop');
  rate = null;
  assert.equal(look(61_000, 9000), 'go on');
  assert.equal(look(62_000, 90_000), '', 'no limit');
  rate = 0;
  assert.equal(look(63_000, 90_000), 'stop', 'paused');
});
