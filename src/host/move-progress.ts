// How far a move is, for a person and for a program. What is not READY is never shown as 100 % (law 12). Pure.

import type { MirrorProblem } from '../domain/record.js';
import type { StepProgress } from '../job/runner.js';
import type { OperationRecord } from '../journal/journal.js';
import type { DiskProgress, OperationProgress, ProgressRates } from './ferry-host.js';
import { explainPivot } from '../plan/pivot-when.js';
import { waysOf, whenOf } from '../plan/ways.js';
import { problemText } from './keeper.js';
import type { SaidPace } from './paces.js';
import type { CopyProgress } from './watching/copies.js';
import { copiesOf, doneOf, isCopying, totalOf, workDoneOf, workOf } from './watching/copies.js';
import type { DiskSight, Sight } from './watching/move-watch.js';

export interface MoveState {
  readonly record: OperationRecord;
  /** Null: it does not run, or is between two steps. */
  readonly at: StepProgress | null;
  readonly problem: MirrorProblem | null;
  readonly pace: SaidPace;
  readonly sizes: ReadonlyMap<string, bigint>;
  readonly sight: Sight | null;
  /** As `OperationProgress` has it. */
  readonly pivot: string;
}

/** How much of a move the copies are taken for; the rest is catching up and switching. */
const COPY_SHARE = 90;
const BEFORE_END = 99;

/** How far it is as a whole. */
interface Whole {
  readonly phase: string;
  readonly isDone: boolean;
  readonly isSwitched: boolean;
  readonly copies: readonly CopyProgress[];
  /** By full mirrors: how much of the copy is done, 0 to 1; null: it is none of those. */
  readonly mirrored: number | null;
}

export function moveProgress(state: MoveState): OperationProgress {
  const { record, at, pace, sizes, sight } = state;
  const { steps } = record.plan;
  // A rotation is one more snapshot of the same disks.
  const snapshots = steps.flatMap((step) => (step.kind === 'snapshot' ? step.disks : []));
  const moved = [...snapshots, ...waysOf(record.plan), ...(record.plan.offline?.ways ?? [])];
  const targets = [...new Set(moved.map(({ target }) => target))];
  const isDone = record.outcome === 'committed';
  const isSwitched = steps.some(
    ({ kind }, i) => (kind === 'pivot' || kind === 'arrive') && record.steps[i]?.mark === 'done',
  );
  const isInStep = !isSwitched && at?.report?.isInStep === true;
  const isMirroring = record.plan.full !== undefined && at?.kind === 'wait-ready';
  const phase = isDone
    ? 'done'
    : record.direction === 'back'
      ? 'undoing'
      : pace.isPaused && (at?.kind === 'copy-image' || at?.kind === 'check-image' || isMirroring)
        ? 'paused'
        : isSwitched && !hasMerge(record)
          ? 'letting the old images go'
          : isSwitched && record.plan.full !== undefined
            ? 'closing the source'
            : isInStep && state.problem === null
              ? inStepText(record, state.pivot)
              : isMirroring && state.problem === null
                ? 'copying'
                : phaseOf(at, isSwitched, state.problem);
  const mirrored = mirroredOf(record, at);
  const whole = { phase, isDone, isSwitched, copies: copiesOf(record, at, sizes), mirrored };
  const isOpen = record.endedAtMs === null && record.direction === 'forward';
  return {
    phase,
    pivot: state.pivot,
    limitBytesPerSecond: pace.limitBytesPerSecond,
    auto: pace.auto,
    percent: percentOf(whole, whole.copies),
    ...amountOf(whole, at),
    ready: isSwitched || isInStep,
    ...ratesOf(sight?.together ?? null, whole),
    readySeconds: isOpen && !isSwitched ? (sight?.readySeconds ?? null) : null,
    convergence: isOpen && !isSwitched ? convergenceOf(sight) : unknown,
    disks: targets.map((target) => diskOf(target, whole, at, sight?.disks.get(target) ?? null)),
  };
}

/** Past the wait for READY all of it is there. */
function mirroredOf({ plan, steps }: OperationRecord, at: StepProgress | null): number | null {
  if (plan.full === undefined) return null;
  const waits = plan.steps.findIndex(({ kind }) => kind === 'wait-ready');
  if (steps[waits]?.mark === 'done') return 1;
  const { doneBytes, totalBytes } = at?.report ?? { doneBytes: 0n, totalBytes: 0n };
  return at?.kind === 'wait-ready' ? fraction(doneBytes, totalBytes) : 0;
}

/** Where there was no guest there is nothing to merge, and where the way back stays open it is not merged yet. */
const hasMerge = ({ plan }: OperationRecord): boolean =>
  plan.offline === undefined && plan.move?.undoSeconds === undefined;

const unknown: OperationProgress['convergence'] = { state: 'unknown', why: null, ladder: [] };

const convergenceOf = (sight: Sight | null): OperationProgress['convergence'] =>
  sight === null
    ? unknown
    : { state: sight.convergence.state, why: sight.convergence.why, ladder: sight.ladder };

function diskOf(
  target: string,
  whole: Whole,
  at: StepProgress | null,
  sight: DiskSight | null,
): DiskProgress {
  const copies = whole.copies.filter((copy) => copy.target === target);
  const job = at?.kind === 'wait-ready' || at?.kind === 'wait-pivot' ? (sight?.job ?? null) : null;
  const isCopied = copies.length > 0 && copies.every((copy) => copy.isDone);
  return {
    target,
    phase: whole.phase === 'copying' && isCopied ? 'copied' : whole.phase,
    percent: percentOf(whole, copies),
    doneBytes: job?.doneBytes ?? doneOf(copies),
    totalBytes: job?.totalBytes ?? totalOf(copies) ?? 0n,
    ...ratesOf(sight, whole),
  };
}

/** What is counted just now: what is copied of all images, then what the jobs have carried. */
function amountOf(
  { copies }: Whole,
  at: StepProgress | null,
): { readonly doneBytes: bigint; readonly totalBytes: bigint } {
  if (at !== null && isCopying(at))
    return {
      doneBytes: doneOf(copies),
      totalBytes: totalOf(copies) ?? at.report?.totalBytes ?? 0n,
    };
  const { doneBytes = 0n, totalBytes = 0n } = at?.report ?? {};
  return { doneBytes, totalBytes };
}

function percentOf(
  { isDone, isSwitched, mirrored }: Whole,
  copies: readonly CopyProgress[],
): number {
  if (isDone) return 100;
  if (mirrored !== null && !isSwitched) return Math.floor(COPY_SHARE * mirrored);
  return isSwitched ? BEFORE_END : Math.floor(COPY_SHARE * shareOf(copies));
}

/** By bytes; by images where what they take is not known of each of them. */
function shareOf(copies: readonly CopyProgress[]): number {
  if (copies.length === 0) return 1;
  const total = workOf(copies);
  if (total !== null && total > 0n) return Math.min(1, fraction(workDoneOf(copies), total));
  const shares = copies.map(({ isDone, work }) =>
    isDone ? 1 : fraction(work.doneBytes, work.totalBytes ?? 0n),
  );
  return Math.min(1, shares.reduce((sum, share) => sum + share, 0) / copies.length);
}

const fraction = (doneBytes: bigint, totalBytes: bigint): number =>
  totalBytes === 0n ? 0 : Number((doneBytes * 1000n) / totalBytes) / 1000;

const ratesOf = (sight: ProgressRates | null, { isSwitched }: Whole): ProgressRates => ({
  copyBytesPerSecond: sight?.copyBytesPerSecond ?? null,
  mirrorBytesPerSecond: sight?.mirrorBytesPerSecond ?? null,
  dirtyBytesPerSecond: sight?.dirtyBytesPerSecond ?? null,
  guestBytesPerSecond: sight?.guestBytesPerSecond ?? null,
  // What a merge has still to do is nothing that the guest could lose.
  lagBytes: isSwitched ? null : (sight?.lagBytes ?? null),
  latency: sight?.latency ?? { before: null, now: null },
});

const inStepText = ({ id, plan }: OperationRecord, pivot: string): string =>
  pivot === 'now'
    ? 'in step, switching'
    : `in step, waits for ${explainPivot(whenOf(plan), `ferry pivot ${id}`)}`;

function phaseOf(
  at: StepProgress | null,
  isSwitched: boolean,
  problem: MirrorProblem | null,
): string {
  const kind = at?.kind ?? null;
  const isCatchingUp = kind === 'wait-ready' || kind === 'wait-pivot';
  if (problem !== null && isCatchingUp) return `waiting (${problemText[problem]})`;
  if (isSwitched) return 'merging the overlay';
  switch (kind) {
    case 'copy-image':
      return at === null || isCopying(at) ? 'copying' : (at.report?.phase ?? 'verifying');
    case 'check-image':
      return 'comparing';
    case 'wait-ready':
    case 'wait-pivot':
      return 'catching up';
    case 'pivot':
    case 'arrive':
      return 'switching';
    default:
      return 'preparing';
  }
}
