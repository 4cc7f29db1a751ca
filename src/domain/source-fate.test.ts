// How much older a source is, and how long it is kept, in words.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { keptText, olderText, spanText } from './source-fate.js';

for (const [seconds, writtenBytes, isAtLeast, want] of [
  [19, 4_404_020n, false, 'older by 19s and 4.2 MiB'],
  [19, 4_404_020n, true, 'older by 19s and at least 4.2 MiB'],
  [3700, 0n, false, 'older by 1h01m and 0 B'],
  [200_000, null, false, 'older by 2d07h'],
] as const) {
  test(want, () => assert.equal(olderText({ seconds, writtenBytes, isAtLeast }), want));
}

for (const [seconds, want] of [
  [45, '45s'],
  [90, '90s'],
  [1800, '30m'],
  [86_400, '24h'],
] as const) {
  test(`${seconds} seconds are ${want}`, () => assert.equal(spanText(seconds), want));
}

test('what is kept is kept for ever, until the end of its move, or for a time', () => {
  const text = (keepSeconds: number | null): string => keptText({ keepSeconds, shared: false });
  assert.deepEqual([null, 0, 7200].map(text), [
    'until somebody removes them',
    'until the move has ended, and then deleted',
    'for 2h from the switch on, and then deleted',
  ]);
});
