// Which files may have been left, from what is remembered: image roles, and the operations that have ended. Pure.

import { localPath, showSource } from '../../block/layer.js';
import type { ImageRole } from '../../domain/record.js';
import type { OperationRecord } from '../../journal/journal.js';
import type { Step, StepOf } from '../../plan/step.js';
import type { GcKind } from './types.js';

/** One file, with what is known of how it came to be there. */
export interface Candidate {
  readonly path: string;
  readonly kind: GcKind;
  readonly domain: string | null;
  readonly domainName: string | null;
  readonly target: string | null;
  readonly role: ImageRole | null;
  /** The operation that left it; it has ended. Null: not remembered any more. */
  readonly left: OperationRecord | null;
  /** Why it is ours to remove; null: nothing shows that. */
  readonly ours: string | null;
  /** Where what it holds is as well, and how that is known; null: not known. */
  readonly elsewhere: string | null;
  /** Why what is known of that does not count; null: nothing is against it. */
  readonly doubt: string | null;
  /** Why it does not go unless it is named; null: nothing against it. */
  readonly onlyByName: string | null;
  /** Of the source of a move: when it is deleted; null: never by itself. */
  readonly keptUntilMs: number | null;
}

/** Until when the source of a move is kept; null: until somebody removes it. */
export type KeptUntil = (move: OperationRecord) => number | null;

/** `ended`: operations that have ended, newest first. */
export function candidatesOf(
  roles: readonly ImageRole[],
  ended: readonly OperationRecord[],
  keptUntil: KeptUntil,
): readonly Candidate[] {
  // What is sealed lies below a live image that no record names any more: nothing to be rid of.
  const fromRoles = roles.flatMap((role) =>
    role.role === 'sealed' ? [] : [fromRole(role, role.role, ended, keptUntil)],
  );
  const known = new Set(fromRoles.map(({ path }) => path));
  const others = ended.flatMap(leftoversOf).filter(({ path }) => !known.has(path));
  const first = new Map(others.toReversed().map((one) => [one.path, one]));
  return [...fromRoles, ...first.values()];
}

function fromRole(
  role: ImageRole,
  kind: GcKind,
  ended: readonly OperationRecord[],
  keptUntil: KeptUntil,
): Candidate {
  const { path, domain, target } = role;
  const left = ended.find((operation) => gaveRole(operation, role)) ?? null;
  const keptUntilMs = left?.kind === 'move' && role.role === 'stale' ? keptUntil(left) : null;
  return {
    path,
    kind,
    domain,
    domainName: left?.domainName ?? null,
    target,
    role,
    left,
    keptUntilMs,
    ...(role.role === 'stale'
      ? staleProof(role, left, keptText(keptUntilMs))
      : unfinishedProof(role, left, ended)),
  };
}

const gaveRole = ({ entries }: OperationRecord, role: ImageRole): boolean =>
  entries.some(({ changes }) =>
    changes.some(
      (change) =>
        change.change === 'role' &&
        change.role.path === role.path &&
        change.role.role === role.role &&
        // What only names another live image gave none.
        change.since !== 'kept' &&
        // One that was stamped when it was committed has its time from there.
        (change.since !== undefined || change.role.sinceSeconds === role.sinceSeconds),
    ),
  );

type Proof = Pick<Candidate, 'ours' | 'elsewhere' | 'doubt' | 'onlyByName'>;

/** A mirror's target holds nothing that its source has not (laws 1 and 2). */
function unfinishedProof(
  { path, live }: ImageRole,
  left: OperationRecord | null,
  ended: readonly OperationRecord[],
): Proof {
  const made = ended.find((operation) => stepThatMade(operation, path) !== null);
  const step = made === undefined ? null : stepThatMade(made, path);
  const isSealed = left?.plan.steps.some(({ kind }) => kind === 'seal-job') === true;
  return {
    ours:
      made === undefined || step === null
        ? null
        : `operation ${made.id} made it (step ${step + 1})`,
    elsewhere: `a mirror's target holds nothing that its source ${live} did not`,
    doubt: null,
    onlyByName: isSealed
      ? 'its copy was ended when it was READY, so it is an exact point in time that somebody may want'
      : null,
  };
}

/** The step of an operation that made the file where none was; null: none did. */
function stepThatMade({ plan, steps }: OperationRecord, path: string): number | null {
  const found = plan.steps.findIndex(
    (step, i) =>
      step.kind === 'create-image' &&
      step.path === path &&
      !step.existed &&
      steps[i]?.mark === 'done',
  );
  return found < 0 ? null : found;
}

const keptText = (untilMs: number | null): string =>
  untilMs === null
    ? 'the source of a finished switch is kept until somebody names it'
    : 'its time is not over yet: until then only somebody who names it removes it';

/** Law 14: what a switch left behind was copied whole, or was in step, before it was left. */
function staleProof(role: ImageRole, left: OperationRecord | null, onlyByName: string): Proof {
  const nothing = { ours: null, elsewhere: null, doubt: null, onlyByName };
  if (left?.outcome !== 'committed') return nothing;
  const { id, kind, plan, steps } = left;
  const ours = `it was ${role.target} of ${left.domainName} until operation ${id} (${kind}) switched`;
  const at = plan.steps.findIndex(
    (step, i) => steps[i]?.mark === 'done' && sourcesOf(step).includes(role.path),
  );
  const step = plan.steps[at];
  const copied = step === undefined ? null : whereElse(step);
  if (step !== undefined && copied !== null) {
    const where = `operation ${id} ${copied} (step ${at + 1})`;
    return isProven(left, at, step)
      ? { ...nothing, ours, elsewhere: `${where} before the switch` }
      : { ...nothing, ours, doubt: `${where} without reading it back (--verify none)` };
  }
  const elsewhere = mirroredText(left, role) ?? originalText(left, role);
  return { ...nothing, ours, elsewhere };
}

/** A reflink shares its blocks with the source: there was nothing to compare. What was taken over was compared. */
const isProven = ({ copies }: OperationRecord, at: number, step: Step): boolean =>
  step.kind !== 'copy-image' ||
  step.verify !== 'none' ||
  copies.find((copy) => copy.step === at)?.whole?.how === 'reflink';

function mirroredText(left: OperationRecord, role: ImageRole): string | null {
  const { id, plan } = left;
  if (wasMirrored(left, role))
    return `operation ${id} had its mirror in step (READY) when it switched over to it`;
  const epoch = plan.move?.ways
    .flatMap(({ epochs }) => epochs.slice(0, -1))
    .find(({ source }) => localPath(source.source) === role.path);
  return epoch === undefined
    ? null
    : `operation ${id} sealed it when its mirror ${showSource(epoch.twin.source)} was equal to it, and brought that one over`;
}

/** Images whose whole content is elsewhere once the step is done. */
function sourcesOf(step: Step): readonly string[] {
  if (step.kind === 'check-image') return step.source.slice(0, 1).map(({ path }) => path);
  if (step.kind !== 'copy-image') return [];
  const isAll = step.convert !== undefined && step.convert.below.length === 0;
  return isAll ? step.convert.chain.map(({ path }) => path) : [step.from];
}

function whereElse(step: Step): string | null {
  if (step.kind === 'check-image') return `found ${step.image[0]?.path ?? ''} to hold the same`;
  if (step.kind !== 'copy-image') return null;
  return step.convert === undefined
    ? `copied it whole to ${step.to}`
    : `made ${step.to} of all that it held`;
}

/** A copy that a move made and that was left when the move was undone: what it was made of is live again. */
function originalText({ plan }: OperationRecord, role: ImageRole): string | null {
  if (plan.undo === undefined) return null;
  for (const { from, to } of plan.move?.ways ?? []) {
    const at = from.findIndex(({ source }) => localPath(source) === role.path);
    const original = to[at];
    if (original !== undefined)
      return `operation ${plan.undo.move} made it as a copy of ${showSource(original.source)}, which is in use again`;
  }
  return null;
}

/** The active layer of a disk is what its mirror kept in step; roles of one disk are given from the top down. */
function wasMirrored({ entries, plan }: OperationRecord, role: ImageRole): boolean {
  return entries.some(({ entry, changes }) => {
    if (entry.type !== 'done' || plan.steps[entry.step]?.kind !== 'pivot') return false;
    const first = changes.find(
      (change) => change.change === 'role' && change.role.target === role.target,
    );
    return first?.change === 'role' && first.role.path === role.path;
  });
}

/** What a rollback should have removed, and copies that never got their name. */
function leftoversOf(operation: OperationRecord): readonly Candidate[] {
  const { plan, steps, outcome, id, domain, domainName } = operation;
  const common = {
    domain,
    domainName,
    target: null,
    role: null,
    left: operation,
    keptUntilMs: null,
  } as const;
  return plan.steps.flatMap((step, i): readonly Candidate[] => {
    const mark = steps[i]?.mark;
    if (step.kind === 'create-image' && outcome === 'rolled-back' && mark === 'undone')
      return step.existed ? [] : [{ ...common, ...leftover(id, i, step) }];
    if (step.kind === 'copy-image' && (mark === 'done' || mark === 'undone'))
      return [{ ...common, ...part(id, i, step) }];
    return [];
  });
}

const leftover = (id: number, i: number, step: StepOf<'create-image'>) => ({
  path: step.path,
  kind: 'leftover' as const,
  ours: `operation ${id} made it (step ${i + 1}) and was rolled back`,
  elsewhere: 'what was written to it was brought down into the image below it by the rollback',
  doubt: null,
  onlyByName: null,
});

const part = (id: number, i: number, step: StepOf<'copy-image'>) => ({
  path: `${step.to}.part`,
  kind: 'part' as const,
  ours: `operation ${id} was copying to it (step ${i + 1}); nothing stood there before`,
  elsewhere: `it is an unfinished copy of ${step.from}`,
  doubt: null,
  onlyByName: null,
});
