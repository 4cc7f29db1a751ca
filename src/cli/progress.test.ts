// What a running move looks like: on a wide terminal, on a narrow one, and as it is redrawn.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { OperationProgress } from '../host/ferry-host.js';
import { MiB, move } from '../http/testing/samples.js';
import { latencyLine, limitText, progressFacts, readyText } from './progress-text.js';
import { drawLine, drawLines, jsonReporter, lineReporter, redrawReporter } from './progress.js';

const progress = move.progress!; // The sample is of a running move.
const vda = progress.disks[0]!; // Of one disk.
const unseen = {
  copyBytesPerSecond: null,
  mirrorBytesPerSecond: null,
  guestBytesPerSecond: null,
  lagBytes: null,
  latency: { before: null, now: null },
  readySeconds: null,
};

for (const [name, change, columns, want] of [
  [
    'with speed and time left',
    {},
    120,
    'vda  copying  █████████···········  45 %  4.5 GiB of 10 GiB  100 MiB/s  ready in 51s to 1m02s',
  ],
  [
    'before anything was seen',
    unseen,
    120,
    'vda  copying  █████████···········  45 %  4.5 GiB of 10 GiB',
  ],
  [
    'all copied, not ready',
    { ...unseen, percent: 100, doneBytes: progress.totalBytes, mirrorBytesPerSecond: 1024n },
    120,
    'vda  copying  ███████████████████▊  99 %  10 GiB of 10 GiB  1 KiB/s',
  ],
  [
    'ready',
    { phase: 'mirroring', percent: 100, doneBytes: progress.totalBytes, ready: true },
    120,
    'vda  mirroring  ████████████████████ 100 %  10 GiB of 10 GiB  READY, in step',
  ],
  ['on a narrow window', {}, 20, 'vda  copying  █████'],
] as const) {
  test(`one line ${name}`, () => assert.equal(drawLine({ ...progress, ...change }, columns), want));
}

const two: OperationProgress = {
  ...progress,
  auto: { latencyMs: 20 },
  limitBytesPerSecond: 48n * MiB,
  disks: [
    { ...vda, phase: 'copied', percent: 100 },
    { ...vda, ...unseen, target: 'vdb' },
  ],
};

test('a disk a line and all together, none at 100 % before READY', () => {
  assert.deepEqual(drawLines(two, 7, 140), [
    'vda   copied   ███████████████████▊  99 %  100 MiB/s  guest 3 MiB/s  behind 512 KiB  writes p99 2.1 → 4.5 ms',
    'vdb   copying  █████████···········  45 %',
    'all   copying  █████████···········  45 %  4.5 GiB of 10 GiB  ready in 51s to 1m02s  auto, now at most 48 MiB/s, for a p99 of 20 ms',
  ]);
});

const ladder = [{ type: 'ferry limit 7 none', why: 'let the copies go' }];
const diverging: OperationProgress = {
  ...progress,
  readySeconds: null,
  convergence: { state: 'diverges', why: 'vda: its mirror falls behind', ladder },
};

test('what will not converge says so, and where the commands are', () => {
  assert.equal(
    drawLines(diverging, 7, 100).at(-1),
    '! vda: its mirror falls behind; ferry ops show 7 says what can be done',
  );
  assert.deepEqual(progressFacts(diverging).at(-1), [
    'will not converge',
    'vda: its mirror falls behind',
  ]);
});

function drawn(size: { columns: number; rows: number }) {
  let out = '';
  const reporter = redrawReporter(
    (text) => (out += text),
    () => size,
  );
  return { reporter, out: () => out };
}

test('on a terminal its lines are drawn over and over, and left at the end', () => {
  const size = { columns: 200, rows: 24 };
  const { reporter, out } = drawn(size);
  reporter.show({ ...move, progress: two });
  reporter.show({ ...move, progress: null });
  reporter.show({ ...move, progress: two });
  // The second time from two lines above, and what is below goes.
  assert.match(
    out(),
    /^\r\u001b\[Jvda .*\nvdb .*\nall [^\n]*\r\u001b\[2A\u001b\[Jvda .*\nvdb .*\nall [^\n]*$/,
  );
  size.columns = 60;
  reporter.show({ ...move, progress: two });
  assert.match(out(), /\r\u001b\[2A\u001b\[Jvda, vdb {2}copying[^\n]*$/);
  reporter.close();
  reporter.close();
  assert.ok(out().endsWith('\n') && !out().endsWith('\n\n'));
});

test('where the window is too low for all disks there is one line', () => {
  const { reporter, out } = drawn({ columns: 200, rows: 4 });
  reporter.show({ ...move, progress: two });
  assert.equal(out().split('\n').length, 1);
});

test('a log gets a line when the outlook changes, not when only a rate does', () => {
  let out = '';
  const { show } = lineReporter((text) => (out += text));
  show(move);
  show({ ...move, progress: { ...progress, copyBytesPerSecond: 1n } });
  show({ ...move, progress: diverging });
  assert.deepEqual(out.trimEnd().split('\n'), [
    'move 7: vda copying 45 % (4.5 GiB of 10 GiB), not ready, ready in 51s to 1m02s',
    'move 7: vda copying 45 % (4.5 GiB of 10 GiB), not ready, will not converge: vda: its mirror falls behind',
  ]);
});

test('a program gets every number of each disk, and no 100 % before READY', () => {
  let out = '';
  jsonReporter((text) => (out += text)).show({ ...move, progress: two });
  const line = JSON.parse(out) as { disks: { percent: number }[] } & Record<string, unknown>;
  assert.deepEqual(Object.keys(line).toSorted(), [
    'auto',
    'convergence',
    'copyBytesPerSecond',
    'dirtyBytesPerSecond',
    'disks',
    'doneBytes',
    'guestBytesPerSecond',
    'lagBytes',
    'latency',
    'limitBytesPerSecond',
    'mirrorBytesPerSecond',
    'operation',
    'percent',
    'phase',
    'pivot',
    'ready',
    'readySeconds',
    'totalBytes',
    'type',
  ]);
  assert.deepEqual(
    line.disks.map(({ percent }) => percent),
    [99, 45],
  );
});

for (const [band, want] of [
  [null, null],
  [{ least: 40, most: 70.2 }, '40s to 1m10s'],
  [{ least: 4.1, most: 4.3 }, 'about 4s'],
  [{ least: 100, most: null }, '1m40s or more'],
] as const) {
  test(`a band of ${JSON.stringify(band)} is ${want}`, () => assert.equal(readyText(band), want));
}

test('latency is told with both quantiles, and what was not seen is not made up', () => {
  assert.equal(
    latencyLine({ ...progress, latency: { ...progress.latency, before: null } }),
    'before: not seen; now: p50 0.4 ms, p99 4.5 ms (1480 writes)',
  );
  assert.equal(latencyLine({ ...progress, latency: { before: null, now: null } }), null);
});

test('an automatic limit that is still looking for its bound says that it holds the copies', () => {
  assert.match(
    limitText({ ...progress, auto: { latencyMs: null }, limitBytesPerSecond: 0n }).join(''),
    /^auto, standing still/,
  );
});
