// When a move that is in step switches, as a table; and how it is said.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { PivotWhen } from '../domain/pivot-when.js';
import { explainPivot, isTimeToPivot, showPivot, smallSince } from './pivot-when.js';

const MiB = 1n << 20n;
const small: PivotWhen = { how: 'when', lagBytes: 4n * MiB, forMs: 30_000 };
const at: PivotWhen = { how: 'at', atMs: 1_000_000 };

/** The looks of one wait, [ms, MiB behind] each; at which of them it switches, null: at none. */
function switchesAt(
  when: PivotWhen,
  looks: readonly (readonly [ms: number, lag: bigint])[],
): number | null {
  let since: number | null = null;
  for (const [ms, lag] of looks) {
    const seen = { lagBytes: lag * MiB, nowMs: ms, steadyMs: ms };
    since = smallSince(when, since, seen);
    if (isTimeToPivot(when, since, seen)) return ms;
  }
  return null;
}

for (const [name, when, looks, want] of [
  ['auto does not wait', { how: 'auto' }, [[7, 9n]], 7],
  [
    'manual waits for ever',
    { how: 'manual' },
    [
      [7, 0n],
      [9e9, 0n],
    ],
    null,
  ],
  [
    'a time is waited for, whatever the lag',
    at,
    [
      [999_999, 0n],
      [1_000_000, 9n],
    ],
    1_000_000,
  ],
  [
    'a small lag has to last',
    small,
    [
      [0, 3n],
      [29_999, 3n],
      [30_000, 3n],
    ],
    30_000,
  ],
  [
    'a lag that is as large as said is not small',
    small,
    [
      [0, 4n],
      [30_000, 4n],
    ],
    null,
  ],
  [
    'a lag that grows begins anew',
    small,
    [
      [0, 3n],
      [29_000, 5n],
      [30_000, 3n],
      [59_999, 3n],
      [60_000, 3n],
    ],
    60_000,
  ],
  [
    'a lag that need not last is seen once',
    { ...small, forMs: 0 },
    [
      [5, 5n],
      [6, 3n],
    ],
    6,
  ],
] as const satisfies readonly (readonly [
  string,
  PivotWhen,
  readonly (readonly [number, bigint])[],
  number | null,
])[]) {
  test(name, () => assert.equal(switchesAt(when, looks), want));
}

for (const [when, want] of [
  [{ how: 'auto' }, 'auto'],
  [{ how: 'manual' }, 'manual'],
  [{ how: 'at', atMs: Date.UTC(2026, 0, 31, 3) }, 'at 2026-01-31T03:00:00Z'],
  [small, 'when lag<4M for 30s'],
  [{ how: 'when', lagBytes: 1025n, forMs: 0 }, 'when lag<1025'],
  [{ how: 'when', lagBytes: 1n << 31n, forMs: 120_000 }, 'when lag<2G for 2m'],
  [{ how: 'when', lagBytes: 1n << 42n, forMs: 1500 }, 'when lag<4T for 1500ms'],
] as const) {
  test(`it is shown as ${want}`, () => assert.equal(showPivot(when), want));
}

test('who waits says what for, and what to type', () => {
  assert.equal(explainPivot({ how: 'manual' }, 'ferry pivot 7'), "'ferry pivot 7'");
  assert.equal(explainPivot(small, 'ferry pivot 7'), "lag<4M for 30s, or 'ferry pivot 7'");
});
