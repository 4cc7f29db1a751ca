// The one fold over a journal: runner, recovery, `ferry ops show` and the console all see an operation through it.

import { assert } from '../std/assert.js';
import type { Answer, Direction, Entry, Mark } from './entry.js';

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
  /** Why it waits for the next start of its domain; null when it does not. */
  readonly waiting: string | null;
  /** A person's word that nobody has acted on yet. */
  readonly answer: Answer | null;
  readonly ended: 'committed' | 'rolled-back' | null;
}

/** Progress after `entries` of a plan of `stepCount` steps. No entries: nothing was begun, direction forward. */
export function fold(entries: readonly Entry[], stepCount: number): Progress {
  const marks: Mark[] = Array.from({ length: stepCount }, () => 'none');
  let at: Omit<Progress, 'marks'> = {
    direction: 'forward',
    reason: null,
    attention: null,
    waiting: null,
    answer: null,
    ended: null,
  };
  for (const entry of entries) {
    assert(at.ended === null, `a journal entry '${entry.type}' after the end`);
    // Of the steps that it replaced none was begun.
    if (entry.type === 'replan') marks.fill('done', entry.from, entry.from + entry.done);
    if ('step' in entry) {
      assert(
        entry.step in marks,
        `a journal entry of step ${entry.step}, which the plan does not have`,
      );
      marks[entry.step] = entry.type;
    }
    at = advance(at, entry);
  }
  return { marks, ...at };
}

function advance(before: Omit<Progress, 'marks'>, entry: Entry): Omit<Progress, 'marks'> {
  // Whatever it waited for, it goes on now.
  const at = { ...before, attention: null, waiting: null };
  switch (entry.type) {
    case 'doing':
    case 'done':
    case 'undone':
      return { ...at, answer: at.answer?.of === entry.step ? null : at.answer };
    case 'replan':
      return at;
    case 'rollback':
      return { ...at, direction: 'back', reason: at.reason ?? entry.reason };
    case 'waiting':
      return { ...at, waiting: entry.reason };
    case 'attention':
      return { ...at, attention: entry.reason, answer: null };
    case 'resolved':
      return resolved({ ...at, attention: null, answer: entry.answer }, entry);
    case 'end':
      return { ...at, ended: entry.outcome, reason: entry.reason ?? at.reason };
  }
}

function resolved(
  at: Omit<Progress, 'marks'>,
  { direction, by }: Extract<Entry, { readonly type: 'resolved' }>,
): Omit<Progress, 'marks'> {
  // Turned round once, for good: nobody's word makes what is undone be done again.
  if (direction === 'forward') return at;
  return { ...at, direction, reason: at.reason ?? `rolled back by ${by}` };
}
