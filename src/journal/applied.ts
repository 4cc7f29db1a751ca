// What both journals share: applying changes to a record, the listeners, and the summary of an operation.

import type { CopyNote, CopyState } from '../block/copy.js';
import type { Change, DomainRecord, ImageRole } from '../domain/record.js';
import { applyChange } from '../domain/record.js';
import type { Plan } from '../plan/step.js';
import { checkPlan } from '../plan/step.js';
import { assert, present } from '../std/assert.js';
import type { Entry } from './entry.js';
import { fold } from './fold.js';
import type {
  Applied,
  AppliedListener,
  CopyRecord,
  OperationRecord,
  OperationSummary,
  StampedEntry,
} from './journal.js';

/** The record after all `changes`, in order. */
export function applyAll(
  record: DomainRecord | null,
  domain: string,
  changes: readonly Change[],
): DomainRecord | null {
  const after = changes.reduce(applyChange, record);
  assert(
    after === null || after.uuid === domain,
    `changes of domain ${domain} made a record of ${after?.uuid}`,
  );
  return after;
}

/** A role as it is stored at `nowMs`; `known` is the one that its image has already. */
export function roleAt(
  { role, since }: Extract<Change, { readonly change: 'role' }>,
  known: ImageRole | null,
  nowMs: number,
): ImageRole {
  if (since === undefined) return role;
  const kept = since === 'kept' ? known?.sinceSeconds : undefined;
  return { ...role, sinceSeconds: kept ?? Math.floor(nowMs / 1000) };
}

/** The listeners of one journal. */
export class Listeners {
  private readonly listeners = new Set<AppliedListener>();

  add(listener: AppliedListener): () => void {
    // A function of its own, so that one listener added twice is two.
    const own: AppliedListener = (applied) => listener(applied);
    this.listeners.add(own);
    return () => this.listeners.delete(own);
  }

  /** Tells all of a commit that changed something. */
  tell(applied: Applied): void {
    if (applied.changes.length === 0) return;
    for (const listener of this.listeners) {
      try {
        listener(applied);
      } catch (error) {
        // The commit stands; a runner must not take a listener's bug for a failed write and roll back.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

export interface OperationParts {
  readonly id: number;
  readonly plan: Plan;
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
  readonly entries: readonly StampedEntry[];
  readonly copies: readonly CopyRecord[];
}

export function operationOf({
  id,
  plan,
  startedAtMs,
  endedAtMs,
  entries,
  copies,
}: OperationParts): OperationRecord {
  const progress = fold(
    entries.map(({ entry }) => entry),
    plan.steps.length,
  );
  return {
    id,
    kind: plan.operation,
    domain: plan.domain,
    domainName: plan.domainName,
    startedAtMs,
    endedAtMs,
    outcome: progress.ended,
    direction: progress.direction,
    reason: progress.reason,
    attention: progress.attention,
    waiting: progress.waiting,
    commitAt: plan.commitAt,
    steps: plan.steps.map(({ kind }, i) => ({ kind, mark: progress.marks[i] ?? 'none' })),
    pauses: entries.flatMap(({ entry }) => entry.pauses ?? []),
    plan,
    entries,
    copies,
  };
}

export function summaryOf(parts: OperationParts): OperationSummary {
  const { plan: _plan, entries: _entries, copies: _copies, ...summary } = operationOf(parts);
  return summary;
}

/** The entries and changes of a plan that touches nothing outside. */
export function entriesAtOnce(
  plan: Plan,
): readonly { readonly entry: Entry; readonly changes: readonly Change[] }[] {
  checkPlan(plan);
  assert(
    isRecordOnly(plan),
    `plan '${plan.operation}' touches the world: it cannot be committed at once`,
  );
  return [
    ...plan.steps.map(({ changes }, step) => ({
      entry: { type: 'done', step } as const,
      changes: changes ?? [],
    })),
    { entry: { type: 'end', outcome: 'committed' }, changes: [] },
  ];
}

export const isRecordOnly = (plan: Plan): boolean =>
  plan.steps.every(({ kind }) => kind === 'record');

/** The state of a copy after `note`; its pieces are each journal's own. */
export function copyAfter(state: CopyState | null, note: CopyNote, atMs: number): CopyState {
  if (note.note === 'begun') {
    const { source, pieceBytes, key, totalBytes } = note;
    return { source, pieceBytes, key, totalBytes, resumes: [], whole: null };
  }
  const begun = present(state, `a copy that was not begun is '${note.note}'`);
  switch (note.note) {
    case 'resumed': {
      const { keptBytes, brokenBytes } = note;
      return { ...begun, resumes: [...begun.resumes, { atMs, keptBytes, brokenBytes }] };
    }
    case 'pieces':
      return begun;
    case 'whole':
      return { ...begun, whole: note.whole };
  }
}

/** What is shown of a copy: a finished one is there, whatever became of its pieces. */
export function copyRecordOf(step: number, state: CopyState, savedBytes: number): CopyRecord {
  return { step, ...state, savedBytes: state.whole === null ? savedBytes : state.totalBytes };
}
