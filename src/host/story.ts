// An operation in words: what is done, what comes next, what it waits for, and what the way back is. Pure.

import { noWayBack, undecidedStep } from '../job/resolve.js';
import type { OperationRecord } from '../journal/journal.js';
import { explainStep, explainUndo, whereToLook } from '../plan/explain.js';
import { operations } from '../plan/operation.js';
import type { Step } from '../plan/step.js';
import type { CommandHint, OperationStatus, OperationStory } from './ferry-host.js';

export function statusOf(record: OperationRecord): OperationStatus {
  if (record.outcome !== null) return record.outcome;
  if (record.attention !== null) return 'attention';
  return record.waiting === null ? 'running' : 'waiting';
}

/** `isPivotSaid`: somebody told it to switch without waiting any longer. */
export function storyOf(
  record: OperationRecord,
  isRunning: boolean,
  isPivotSaid = false,
): OperationStory {
  const { operation, offline } = record.plan;
  const what =
    offline === undefined
      ? (operations[operation] ?? operation)
      : 'moves disks of a domain that is shut off to another folder';
  const told = { what, soFar: progressText(record), said: saidOf(record) };
  if (record.endedAtMs !== null)
    return { ...told, now: null, next: null, waitsFor: null, wayBack: null, commands: [] };
  const at = placeOf(record);
  return {
    ...told,
    now: at.now === null ? null : named(record, at.now),
    next: at.next === null ? null : named(record, at.next),
    waitsFor: waitsFor(record, isRunning),
    wayBack: wayBack(record),
    commands: [
      ...(isPivotSaid ? [] : pivotHint(record)),
      ...undoHints(record),
      ...commandsOf(record),
    ],
  };
}

const marksOf = (record: OperationRecord) => record.steps.map(({ mark }) => mark);

function named({ plan, direction }: OperationRecord, i: number): string {
  const step = plan.steps[i];
  if (step === undefined) return 'its end';
  const text = `step ${i + 1}: ${explainStep(step)}`;
  return direction === 'back' ? `taking back ${text}` : text;
}

/** What persons said to it, oldest first. */
function saidOf({ entries }: OperationRecord): OperationStory['said'] {
  return entries.flatMap(({ atMs, entry }) => {
    if (entry.type !== 'resolved') return [];
    const { direction, answer, by } = entry;
    const words = { done: 'is done', absent: 'is not done' } as const;
    const word = answer === null ? '' : `, step ${answer.of + 1} ${words[answer.was]}`;
    return [{ time: new Date(atMs).toISOString(), by, text: `${direction}${word}` }];
  });
}

function progressText(record: OperationRecord): string {
  const marks = marksOf(record);
  const count = (mark: string): number => marks.filter((one) => one === mark).length;
  const done = `${count('done')} of ${marks.length} steps done`;
  return count('undone') === 0 ? done : `${done}, ${count('undone')} taken back`;
}

/** Step numbers, from 0; null: none. */
function placeOf(record: OperationRecord): { now: number | null; next: number | null } {
  const marks = marksOf(record);
  const order = [...marks.keys()];
  if (record.direction === 'back') {
    const left = order.filter((i) => marks[i] === 'done' || marks[i] === 'doing').toReversed();
    return { now: left[0] ?? null, next: left[1] ?? null };
  }
  const left = order.filter((i) => marks[i] !== 'done');
  return { now: left[0] ?? null, next: left[1] ?? null };
}

function waitsFor(record: OperationRecord, isRunning: boolean): string {
  const { attention, waiting, domainName } = record;
  if (attention === null && waiting !== null) return `the next start of ${domainName}: ${waiting}`;
  if (attention === null) {
    if (!isRunning) return 'ferryd, which goes on with it when it starts';
    const { now } = placeOf(record);
    return now === null ? 'its end' : named(record, now);
  }
  const step = doubtful(record);
  const where = step === null ? '' : `; ${whereToLook(step, record.domainName)}`;
  return `a person: ${attention}${where}`;
}

/** The step that a person is asked about. */
function doubtful(record: OperationRecord): Step | null {
  const i = undecidedStep({ marks: marksOf(record), direction: record.direction });
  return i === null ? null : (record.plan.steps[i] ?? null);
}

function wayBack(record: OperationRecord): string {
  const { plan, direction, commitAt } = record;
  const marks = marksOf(record);
  if (direction === 'back') return `it is on it: ${record.reason ?? 'no reason was kept'}`;
  const none = noWayBack(plan, { marks, direction });
  if (none !== null) return `none: ${none}`;
  const begun = plan.steps.filter((_, i) => marks[i] === 'done' || marks[i] === 'doing');
  return `open until step ${commitAt} is done: taking it back ${explainUndo(begun)}`;
}

/** For a move that is to wait, also before it does. */
function pivotHint({
  id,
  plan,
  steps,
  direction,
  attention,
}: OperationRecord): readonly CommandHint[] {
  const isHeld = plan.steps.some(
    (one, i) => one.kind === 'wait-pivot' && steps[i]?.mark !== 'done',
  );
  if (!isHeld || direction === 'back' || attention !== null) return [];
  return [{ type: `ferry pivot ${id}`, why: 'switch as soon as it is in step' }];
}

/** Of what keeps the way back of a move open. */
export function undoHints({
  plan,
  steps,
  direction,
  waiting,
}: OperationRecord): readonly CommandHint[] {
  const { undo } = plan;
  const isOpen = steps[plan.commitAt - 1]?.mark !== 'done' && direction === 'forward';
  if (undo?.going !== 'open' || !isOpen) return [];
  const back = {
    type: `ferry undo ${undo.move}`,
    why: 'switch the disks back to where they were',
  };
  return [
    // Only a mirror that is in step can be switched to.
    ...(waiting === null ? [back] : []),
    { type: `ferry undo ${undo.move} --close`, why: 'there is to be no way back any more' },
  ];
}

function commandsOf(record: OperationRecord): readonly CommandHint[] {
  const { id, plan, direction } = record;
  const none = noWayBack(plan, { marks: marksOf(record), direction });
  const canGoBack = direction === 'forward' && none === null;
  if (record.attention === null) {
    const wait = { type: `ferry ops wait ${id}`, why: 'see how it goes on' };
    const cancel = { type: `ferry ops cancel ${id}`, why: 'take it back' };
    const start = { type: `ferry start ${record.domainName}`, why: 'it goes on from there' };
    // Its end has a word of its own.
    if (plan.undo?.going === 'open') return record.waiting === null ? [] : [start];
    if (record.waiting !== null) return [start, cancel];
    return canGoBack ? [wait, cancel] : [wait];
  }
  const resolve = `ferry ops resolve ${id}`;
  const again = 'the cause is mended: try again';
  if (direction === 'back') return answers(record, `${resolve} --back`, again);
  const forward = answers(record, `${resolve} --forward`, again);
  return canGoBack ? [...forward, { type: `${resolve} --back`, why: 'take it back' }] : forward;
}

function answers(record: OperationRecord, command: string, again: string): readonly CommandHint[] {
  const plain = { type: command, why: again };
  const i = undecidedStep({ marks: marksOf(record), direction: record.direction });
  if (i === null) return [plain];
  return [
    plain,
    { type: `${command} --done`, why: `you looked: step ${i + 1} is done` },
    { type: `${command} --not-done`, why: `you looked: nothing of step ${i + 1} is there` },
  ];
}
