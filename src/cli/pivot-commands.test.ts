// What `--pivot` takes, and what it makes of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { joinPivot, pivotWhen } from './pivot-commands.js';

/** Half past two in the afternoon, wherever the test runs. */
const now = new Date(2026, 0, 30, 14, 30);
const local = (day: number, hour: number): number => new Date(2026, 0, day, hour).getTime();

for (const [text, want] of [
  ['auto', { how: 'auto' }],
  ['manual', { how: 'manual' }],
  ['at 15:00', { how: 'at', atMs: local(30, 15) }],
  ['at 03:00', { how: 'at', atMs: local(31, 3) }],
  ['at 2026-01-31T03:00', { how: 'at', atMs: local(31, 3) }],
  ['at 2026-01-31 03:00:00', { how: 'at', atMs: local(31, 3) }],
  ['at 2026-02-01T03:00Z', { how: 'at', atMs: Date.UTC(2026, 1, 1, 3) }],
  ['at 2026-02-01T03:00:00+01:00', { how: 'at', atMs: Date.UTC(2026, 1, 1, 2) }],
  ['when lag<4M for 30s', { how: 'when', lagBytes: 4n << 20n, forMs: 30_000 }],
  ['when lag < 512K', { how: 'when', lagBytes: 512n << 10n, forMs: 0 }],
  ['when lag<1000 for 2m', { how: 'when', lagBytes: 1000n, forMs: 120_000 }],
] as const) {
  test(`--pivot ${text}`, () => assert.deepEqual(pivotWhen(text, now), want));
}

for (const [text, want] of [
  ['', /has to be auto, manual/],
  ['never', /has to be auto, manual/],
  ['at', /has to be auto, manual/],
  ['at noon', /has to be HH:MM/],
  ['at 24:00', /has to be HH:MM/],
  ['at 2026-13-01T00:00', /has to be HH:MM/],
  ['at 2026-01-30T14:30', /is over/],
  ['when lag<0', /lag<SIZE/],
  ['when lag>4M', /lag<SIZE/],
  ['when lag<4M for 30', /lag<SIZE/],
  ['when lag<4M for a while', /lag<SIZE/],
] as const satisfies readonly (readonly [string, RegExp])[]) {
  test(`--pivot '${text}' is refused`, () => assert.throws(() => pivotWhen(text, now), want));
}

test('a time and a condition may be words of their own', () => {
  const line = (...words: readonly string[]): readonly string[] => joinPivot(words);
  assert.deepEqual(line('move', '--pivot', 'at', '03:00', 'vda'), [
    'move',
    '--pivot',
    'at 03:00',
    'vda',
  ]);
  assert.deepEqual(line('--pivot', 'when', 'lag<4M'), ['--pivot', 'when lag<4M']);
  assert.deepEqual(line('--pivot', 'manual', 'at'), ['--pivot', 'manual', 'at']);
  assert.deepEqual(line('move', 'at', 'when', '--pivot', 'at'), [
    'move',
    'at',
    'when',
    '--pivot',
    'at',
  ]);
});
