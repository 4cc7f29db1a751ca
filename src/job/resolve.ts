// A person settles an operation that waits for one. What he says goes where the world's answer would have gone in the
// table of recover.ts: `done` and `absent` are rows of it. He may choose the way as well, but never back over a commit
// step that is done: what the guest wrote since then stands on the new side only.

import type { Answer, Direction, Entry } from '../journal/entry.js';
import type { Progress } from '../journal/fold.js';
import type { Plan, Refusal } from '../plan/step.js';
import { StateError } from '../std/errors.js';

export interface Resolution {
  readonly direction: Direction;
  /** What became of the step that the world cannot tell; null: the world is asked once more. */
  readonly was: Answer['was'] | null;
  /** Who says so. */
  readonly by: string;
}

export type Resolved = Extract<Entry, { readonly type: 'resolved' }>;

/** The step of which the journal knows only that it was begun; null: there is none. */
export function undecidedStep({
  marks,
  direction,
}: Pick<Progress, 'marks' | 'direction'>): number | null {
  // Of several that were begun together the way back begins with the last one.
  const found = direction === 'back' ? marks.lastIndexOf('doing') : marks.indexOf('doing');
  return found < 0 ? null : found;
}

/** Why an operation cannot be rolled back any more; null: it can. */
export function noWayBack(
  plan: Pick<Plan, 'commitAt' | 'steps'>,
  { marks, direction }: Pick<Progress, 'marks' | 'direction'>,
): string | null {
  if (direction === 'back') return null;
  if (plan.commitAt === 0)
    return 'none of its steps can be taken back: it is begun, so it is finished';
  const isCommitted = marks.slice(0, plan.commitAt).every((mark) => mark === 'done');
  if (!isCommitted) return null;
  const kind = plan.steps[plan.commitAt - 1]?.kind;
  return `its commit step ${plan.commitAt} (${kind}) is done, and what was written since then would be lost on the way back`;
}

/** What is written down of a person's word; a refusal when it does not fit what is known. */
export function resolutionEntry(
  operation: number,
  plan: Plan,
  progress: Progress,
  { direction, was, by }: Resolution,
): Resolved | Refusal {
  const refuse = (wrong: string, type: string): Refusal => ({
    refusal: new StateError(
      'OPERATION_INVALID',
      `resolve operation ${operation} (${plan.operation} of ${plan.domainName}): ${wrong}`,
      { operation, next: [type] },
    ),
  });
  const show = `ferry ops show ${operation}`;
  if (progress.ended !== null) return refuse(`it has ended (${progress.ended})`, show);
  if (progress.attention === null) return refuse('it does not wait for a person', show);
  if (direction === 'forward' && progress.direction === 'back')
    return refuse(
      `it is on its way back (${progress.reason}), and what is undone is not done again`,
      `ferry ops resolve ${operation} --back`,
    );
  const forward = `ferry ops resolve ${operation} --forward`;
  const behind = direction === 'back' ? noWayBack(plan, progress) : null;
  if (behind !== null) return refuse(behind, forward);
  const undecided = undecidedStep(progress);
  if (was === null) return { type: 'resolved', direction, answer: null, by };
  if (undecided === null)
    return refuse(
      'there is no step of which it is not known whether it was done, so there is nothing to answer; leave that word out',
      `ferry ops resolve ${operation} --${direction}`,
    );
  const decides = direction === 'back' && progress.direction === 'forward' && was === 'done';
  if (decides && undecided === plan.commitAt - 1)
    return refuse(
      `step ${undecided + 1} is its commit step: if that is done, the operation is finished and not undone`,
      `${forward} --done`,
    );
  return { type: 'resolved', direction, answer: { of: undecided, was }, by };
}
