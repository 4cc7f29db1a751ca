// From when on the time counts for which the source of a move is kept.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { OperationRecord } from '../journal/journal.js';
import { keptUntilMs } from './fates.js';

/** Switched at 10 s; only what is looked at. */
const moved = (keepSeconds: number | null, undoSeconds?: number): OperationRecord =>
  ({
    plan: {
      ...(keepSeconds === null ? {} : { source: { keepSeconds, shared: false } }),
      move: { ways: [], rotateBytes: null, ...(undoSeconds === undefined ? {} : { undoSeconds }) },
    },
    entries: [{ atMs: 10_000, changes: [{ change: 'role', role: { role: 'stale' } }] }],
  }) as unknown as OperationRecord;

for (const [name, move, said, want] of [
  ['from the switch', moved(60), null, 70_000],
  ['from the end of its undo window', moved(60, 100), null, 170_000],
  ['from when it was said', moved(60, 100), { keepSeconds: 5, fromMs: 20_000 }, 25_000],
  ['for ever', moved(null, 100), null, null],
  ['no more once it was deleted', moved(60), 'over', null],
] as const) {
  test(`a source is kept ${name}`, () => assert.equal(keptUntilMs(move, said), want));
}
