// Operations as doors show them: what the journal says of each, and how far the one that runs is.

import type { CopyRecord, Journal, OperationRecord } from '../journal/journal.js';
import { explainStep } from '../plan/explain.js';
import { NotFoundError } from '../std/errors.js';
import type { OperationView } from './ferry-host.js';
import type { Host } from './host.js';
import { moveProgress } from './move-progress.js';
import { paceOf } from './pace-verbs.js';
import { pivotOf } from './pivot-verbs.js';
import { sourceView } from './source-verbs.js';
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
        ? moveProgress({
            record,
            at: running?.progress ?? null,
            problem: host.keeper.problem(record.domain),
            pace: paceOf(host, record),
            sizes: host.watchers.sizesOf(record.id),
            sight: host.watchers.sightOf(record.id),
            pivot: pivotOf(host, record),
          })
        : null,
    source: sourceView(host, record),
    copies: copiesOf(record),
    pauses: record.pauses,
  };
}

/** What is written down as copied; 0 for a reflink. */
export function copiedOf({ whole, totalBytes, savedBytes }: CopyRecord): bigint {
  const how = whole?.how ?? null;
  return BigInt(how === 'reflink' ? 0 : how === 'data' ? totalBytes : savedBytes);
}

export const copiesOf = ({ plan, steps, copies }: OperationRecord): OperationView['copies'] =>
  copies.flatMap((copy) => {
    const { step: i, totalBytes, whole } = copy;
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
        copiedBytes: copiedOf(copy),
        root: whole?.root ?? null,
        verified: verified && {
          how: verified.how,
          readBackBytes: BigInt(verified.bytes),
          fromStorageBytes: BigInt(verified.storageBytes),
          repairedBytes: BigInt(verified.repairedBytes),
          seconds: verified.seconds,
        },
        resumes: copy.resumes.map(({ atMs, keptBytes, brokenBytes }) => ({
          time: new Date(atMs).toISOString(),
          keptBytes: BigInt(keptBytes),
          brokenBytes: BigInt(brokenBytes),
        })),
      },
    ];
  });
