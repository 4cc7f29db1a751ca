// Operations as doors show them: what the journal says of each, and how far the one that runs is.

import type { VerifyMode } from '../block/copy.js';
import type { MirrorProblem } from '../domain/record.js';
import type { CopyPace, StepReport } from '../job/effect.js';
import type { StepProgress } from '../job/runner.js';
import type { Journal, OperationRecord } from '../journal/journal.js';
import { explainStep } from '../plan/explain.js';
import { explainPivot, pivotAtOnce } from '../plan/pivot-when.js';
import { NotFoundError } from '../std/errors.js';
import type { OperationProgress, OperationView } from './ferry-host.js';
import type { Host, Running } from './host.js';
import { problemText } from './keeper.js';
import { paceOf } from './pace-verbs.js';
import { pivotOf } from './pivot-verbs.js';
import { statusOf, storyOf } from './story.js';

/** How many ended operations are shown. */
const KEPT = 200;

/** A copy of the journal's newest operations, so that doors can be answered at once. */
export class Operations {
  private readonly journal: Journal;
  private readonly byId = new Map<number, OperationRecord>();
  private readonly due = new Set<number>();

  constructor(journal: Journal) {
    this.journal = journal;
  }

  async load(): Promise<void> {
    for (const { id } of (await this.journal.operations({ limit: KEPT })).toReversed())
      await this.refresh(id);
  }

  /** Behind what goes on: the guest may stand still just now. */
  refreshSoon(id: number): void {
    if (this.due.size === 0) setImmediate(() => this.refreshDue());
    this.due.add(id);
  }

  private refreshDue(): void {
    const ids = [...this.due];
    this.due.clear();
    for (const id of ids) void this.refresh(id);
  }

  /** Never rejects: what cannot be read is read again with the next change, and is no failure of what was done. */
  async refresh(id: number): Promise<void> {
    const found = await this.journal.operation(id).catch(() => null);
    if (found === null) return;
    // Last in line, so that a long one that ends just now is not the next to go.
    this.byId.delete(id);
    this.byId.set(id, found);
    for (const [old, { endedAtMs }] of this.byId) {
      if (this.byId.size <= KEPT) break;
      if (endedAtMs !== null) this.byId.delete(old);
    }
  }

  /** Newest first. */
  all(): readonly OperationRecord[] {
    return [...this.byId.values()].toSorted((a, b) => b.id - a.id);
  }

  get(id: number): OperationRecord {
    const found = this.byId.get(id);
    if (found === undefined)
      throw new NotFoundError('NO_OPERATION', `no operation ${id}`, { next: ['ferry ops --all'] });
    return found;
  }
}

export function operationView(host: Host, record: OperationRecord): OperationView {
  const running = host.running.get(record.id) ?? null;
  return {
    id: record.id,
    kind: record.kind,
    domain: record.domain,
    domainName: record.domainName,
    status: statusOf(record),
    direction: record.direction,
    reason:
      host.interrupted.errorOf(record.id)?.message ??
      record.attention ??
      record.waiting ??
      record.reason,
    startedAt: new Date(record.startedAtMs).toISOString(),
    endedAt: record.endedAtMs === null ? null : new Date(record.endedAtMs).toISOString(),
    commitAt: record.commitAt,
    steps: record.plan.steps.map((step, i) => ({
      kind: step.kind,
      text: explainStep(step),
      mark: record.steps[i]?.mark ?? 'none',
    })),
    story: storyOf(record, running !== null, host.pivots.isSaid(record.id)),
    progress:
      record.kind === 'move'
        ? moveProgress(record, running, {
            problem: host.keeper.problem(record.domain),
            pace: paceOf(host, record),
            pivot: pivotOf(host, record),
          })
        : null,
    copies: copiesOf(record),
    pauses: record.pauses,
  };
}

const copiesOf = ({ plan, steps, copies }: OperationRecord): OperationView['copies'] =>
  copies.flatMap(({ step: i, totalBytes, whole }) => {
    const step = plan.steps[i];
    // What was taken back is not there to be spoken of.
    if (step?.kind !== 'copy-image' || steps[i]?.mark === 'undone') return [];
    const verified = whole?.verified ?? null;
    return [
      {
        from: step.from,
        to: step.to,
        how: whole?.how ?? null,
        totalBytes: BigInt(totalBytes),
        root: whole?.root ?? null,
        verified: verified && {
          how: verified.how,
          readBackBytes: BigInt(verified.bytes),
          fromStorageBytes: BigInt(verified.storageBytes),
          repairedBytes: BigInt(verified.repairedBytes),
          seconds: verified.seconds,
        },
      },
    ];
  });

/** How much of a move the copies are taken for; the rest is catching up and switching. */
const COPY_SHARE = 90;
const BEFORE_END = 99;

/** What is known of a move besides its record. */
interface Besides {
  readonly problem: MirrorProblem | null;
  readonly pace: CopyPace;
  readonly pivot: string;
}

/** Where a move is. What is not READY is never shown as 100 % (law 12). */
function moveProgress(
  record: OperationRecord,
  running: Running | null,
  { problem, pace: { limitBytesPerSecond, isPaused }, pivot }: Besides,
): OperationProgress {
  const { steps } = record.plan;
  const marks = record.steps.map((step) => step.mark);
  // A rotation is one more snapshot of the same disks.
  const snapshots = steps.flatMap((step) => (step.kind === 'snapshot' ? step.disks : []));
  const moved = [...snapshots, ...(record.plan.offline?.ways ?? [])];
  const targets = [...new Set(moved.map(({ target }) => target))];
  const isDone = record.outcome === 'committed';
  const isSwitched = steps.some(
    ({ kind }, i) => (kind === 'pivot' || kind === 'arrive') && marks[i] === 'done',
  );
  const at = running?.progress ?? null;
  const isInStep = !isSwitched && at?.report?.isInStep === true;
  const report = at?.report ?? { doneBytes: 0n, totalBytes: 0n };
  const copies = steps.flatMap((step, i) => (step.kind === 'copy-image' ? [marks[i]] : []));
  const copied = copies.filter((mark) => mark === 'done').length;
  const part = at?.kind === 'copy-image' ? partOf(report, verifyOf(record)) : 0;
  const share = copies.length === 0 ? 1 : Math.min(1, (copied + part) / copies.length);
  const percent = isDone ? 100 : isSwitched ? BEFORE_END : Math.floor(COPY_SHARE * share);
  const phase = isDone
    ? 'done'
    : record.direction === 'back'
      ? 'undoing'
      : isPaused && at?.kind === 'copy-image'
        ? 'paused'
        : isSwitched && record.plan.offline !== undefined
          ? 'letting the old images go'
          : isInStep && problem === null
            ? inStepText(record, pivot)
            : phaseOf(at, isSwitched, problem);
  return {
    phase,
    pivot,
    limitBytesPerSecond,
    percent,
    doneBytes: report.doneBytes,
    totalBytes: report.totalBytes,
    ready: isSwitched || isInStep,
    disks: targets.map((target) => ({
      target,
      phase,
      doneBytes: report.doneBytes,
      totalBytes: report.totalBytes,
    })),
  };
}

/** All copies of a move are verified alike. */
function verifyOf({ plan }: OperationRecord): VerifyMode {
  const step = plan.steps.find((one) => one.kind === 'copy-image');
  return step?.kind === 'copy-image' ? (step.verify ?? 'full') : 'none';
}

const inStepText = ({ id, plan }: OperationRecord, pivot: string): string =>
  pivot === 'now'
    ? 'in step, switching'
    : `in step, waits for ${explainPivot(plan.move?.pivot ?? pivotAtOnce, `ferry pivot ${id}`)}`;

/** What part of a copy its first pass is; the verification is the rest. */
const copyPart: Readonly<Record<VerifyMode, number>> = { full: 0.6, sample: 0.95, none: 1 };

/** How much of a copy is done, of 1. */
function partOf({ doneBytes, totalBytes, phase }: StepReport, verify: VerifyMode): number {
  const done = totalBytes === 0n ? 0 : Number((doneBytes * 1000n) / totalBytes) / 1000;
  const first = copyPart[verify];
  return phase === 'verifying' ? first + done * (1 - first) : done * first;
}

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
      return at?.report?.phase ?? 'copying';
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
