// Sizes, times and trees as text.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { chainText } from './chain-text.js';
import { coloured, drawTree, duration, humanBytes, shownPercent, table } from './text.js';
import { vda, vm1 } from '../http/testing/samples.js';

for (const [bytes, want] of [
  [0n, '0 B'],
  [1023n, '1023 B'],
  [1024n, '1 KiB'],
  [1_258_291n, '1.1 MiB'],
  [10n * 1024n ** 3n, '10 GiB'],
  [2n ** 63n - 1n, '7.9 EiB'],
  [-2048n, '-2 KiB'],
] as const) {
  test(`${bytes} bytes are ${want}`, () => assert.equal(humanBytes(bytes), want));
}

for (const [percent, ready, want] of [
  [99.999, false, 99],
  [100, false, 99],
  [140, false, 99],
  [100, true, 100],
  [99.5, true, 99],
  [-1, false, 0],
] as const) {
  test(`${percent} % ${ready ? 'ready' : 'not ready'} is shown as ${want}`, () =>
    assert.equal(shownPercent(percent, ready), want));
}

for (const [seconds, want] of [
  [0.4, '0s'],
  [59, '59s'],
  [110, '1m50s'],
  [3661, '1h01m'],
] as const) {
  test(`${seconds} seconds are ${want}`, () => assert.equal(duration(seconds), want));
}

test('a table without rows is its header', () => {
  assert.equal(table(['Id', 'Name'], []), ' Id   Name\n-----------');
});

test('a tree is drawn with its branches', () => {
  const leaf = (value: string) => ({ value, children: [] });
  const tree = [{ value: 'a', children: [leaf('b'), leaf('c')] }, leaf('d')];
  const lines = drawTree(tree).map(({ lead, value }) => lead + value);
  assert.deepEqual(lines, ['├── a', '│   ├── b', '│   └── c', '└── d']);
});

test('with colour the live image is green and the stale one red', () => {
  const lines = chainText(vm1, [vda], coloured).split('\n');
  const codeOf = (part: string): string | undefined =>
    lines.find((line) => line.includes(part))?.slice(1, 6);
  assert.equal(codeOf('LIVE ▶'), '[1;32');
  assert.equal(codeOf('STALE'), '[1;31');
});

test('chain says that a mirror stands still, why, and that the guest does not', () => {
  const problem = 'no space left on the destination; make room there, it goes on by itself';
  const stalled = { ...vda, mirror: { ...vda.mirror!, copiedBytes: 4n * 1024n ** 3n, problem } };
  assert.match(
    chainText(vm1, [stalled]),
    /├── mirror: STANDS STILL after 4 GiB of 10 GiB, the guest runs on: no space left .* by itself; made by/,
  );
});
