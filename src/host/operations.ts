// Operations as doors show them: what the journal says of each, and how far the one that runs is.

import type { Journal, OperationRecord } from '../journal/journal.js';
import { explainStep } from '../plan/explain.js';
import { NotFoundError } from '../std/errors.js';
import type { OperationView } from './ferry-host.js';
import type { Host } from './host.js';
import { moveProgress } from './move-progress.js';
import { paceOf } from './pace-verbs.js';
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
    story: storyOf(record, running !== null),
    progress:
      record.kind === 'move'
        ? moveProgress({
            record,
            at: running?.progress ?? null,
            problem: host.keeper.problem(record.domain),
            pace: paceOf(host, record),
            sizes: host.watchers.sizesOf(record.id),
            sight: host.watchers.sightOf(record.id),
          })
        : null,
    pauses: record.pauses,
  };
}
