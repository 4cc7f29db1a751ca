// The one fold over a journal: runner, recovery, `ferry ops show` and the console all see an operation through it.

import { assert } from '../std/assert.js';
import type { Direction, Entry, Mark } from './entry.js';

/** How far an operation is. */
export interface Progress {
  /** One a step of the plan. */
  readonly marks: readonly Mark[];
  /** `back` from the entry `rollback` on, and only then: an `undone` mark alone does not turn an operation round. */
  readonly direction: Direction;
  /** Why it turned round, or why it ended. */
  readonly reason: string | null;
  /** Why it waits for a person; null when it does not. */
  readonly attention: string | null;
  readonly ended: 'committed' | 'rolled-back' | null;
}

/** Progress after `entries` of a plan of `stepCount` steps. No entries: nothing was begun, direction forward. */
export function fold(entries: readonly Entry[], stepCount: number): Progress {
  const start: Progress = {
    marks: Array.from({ length: stepCount }, () => 'none'),
    direction: 'forward',
    reason: null,
    attention: null,
    ended: null,
  };
  return entries.reduce(advance, start);
}

function advance(at: Progress, entry: Entry): Progress {
  assert(at.ended === null, `a journal entry '${entry.type}' after the end`);
  const on = { ...at, attention: null };
  switch (entry.type) {
    case 'doing':
    case 'done':
    case 'undone':
      assert(
        entry.step in at.marks,
        `a journal entry '${entry.type}' of step ${entry.step}, which the plan does not have`,
      );
      return { ...on, marks: at.marks.with(entry.step, entry.type) };
    case 'rollback':
      return { ...on, direction: 'back', reason: at.reason ?? entry.reason };
    case 'attention':
      return { ...on, attention: entry.reason };
    case 'end':
      return { ...on, ended: entry.outcome, reason: entry.reason ?? at.reason };
  }
}
