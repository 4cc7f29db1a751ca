// Sizes, times, trees and progress lines as text.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { move } from '../http/testing/samples.js';
import { chainText } from './chain-text.js';
import { drawLine, redrawReporter } from './progress.js';
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

const progress = move.progress!; // The sample is of a running move.

for (const [name, change, bytesPerSecond, columns, want] of [
  [
    'with speed and time left',
    {},
    100 * 1024 ** 2,
    120,
    'vda  copying  █████████···········  45 %  4.5 GiB of 10 GiB  100 MiB/s  ready in ~56s',
  ],
  [
    'before there is a speed',
    {},
    0,
    120,
    'vda  copying  █████████···········  45 %  4.5 GiB of 10 GiB',
  ],
  [
    'all copied, not ready',
    { percent: 100, doneBytes: progress.totalBytes },
    1024,
    120,
    'vda  copying  ███████████████████▊  99 %  10 GiB of 10 GiB  1 KiB/s',
  ],
  [
    'ready',
    { phase: 'mirroring', percent: 100, doneBytes: progress.totalBytes, ready: true },
    1024,
    120,
    'vda  mirroring  ████████████████████ 100 %  10 GiB of 10 GiB  READY, in step',
  ],
  ['on a narrow window', {}, 0, 20, 'vda  copying  █████'],
] as const) {
  test(`the progress line ${name}`, () =>
    assert.equal(drawLine({ ...progress, ...change }, bytesPerSecond, columns), want));
}

test('on a terminal one line is drawn over and over, and left at the end', () => {
  let nowMs = 0;
  let out = '';
  const reporter = redrawReporter(
    (text) => (out += text),
    () => 200,
    () => nowMs,
  );
  reporter.show(move);
  nowMs = 1000;
  reporter.show({
    ...move,
    progress: { ...progress, doneBytes: progress.doneBytes + 1024n ** 2n },
  });
  reporter.show({ ...move, progress: null });
  reporter.close();
  assert.equal(out.split('\n').length, 2);
  assert.equal(out.split('\r').length, 3);
  assert.ok(out.endsWith(' 1 MiB/s  ready in ~1h33m\u001b[K\n'));
});

test('chain says that a mirror stands still, why, and that the guest does not', () => {
  const problem = 'no space left on the destination; make room there, it goes on by itself';
  const stalled = { ...vda, mirror: { ...vda.mirror!, copiedBytes: 4n * 1024n ** 3n, problem } };
  assert.match(
    chainText(vm1, [stalled]),
    /├── mirror: STANDS STILL after 4 GiB of 10 GiB, the guest runs on: no space left .* by itself; made by/,
  );
});
