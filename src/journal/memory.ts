// A journal in memory, for tests: the same semantics as the one on disk, and a process death on demand.

import type { CopyNote, Piece, SavedCopy } from '../block/copy.js';
import type { Change, DomainRecord, ImageRole } from '../domain/record.js';
import type { Plan } from '../plan/step.js';
import { checkPlan } from '../plan/step.js';
import { assert, present } from '../std/assert.js';
import {
  applyAll,
  copyAfter,
  copyRecordOf,
  entriesAtOnce,
  Listeners,
  operationOf,
  roleAt,
  summaryOf,
} from './applied.js';
import type { OperationParts } from './applied.js';
import type { Entry } from './entry.js';
import type {
  Applied,
  AppliedChange,
  AppliedListener,
  EventFilter,
  Journal,
  OperationFilter,
  OperationRecord,
  OperationSummary,
  Retention,
  StampedEntry,
  StampedEvent,
} from './journal.js';
import { defaultRetention } from './journal.js';

interface StoredOperation {
  readonly id: number;
  readonly plan: Plan;
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
  readonly entries: readonly StampedEntry[];
  /** By step. */
  readonly saved: ReadonlyMap<number, SavedCopy>;
}

/** What is durable. Replaced as a whole by each transaction, so that half of one can never be seen. */
interface Store {
  readonly operations: ReadonlyMap<number, StoredOperation>;
  readonly domains: ReadonlyMap<string, DomainRecord>;
  readonly roles: ReadonlyMap<string, ImageRole>;
  readonly events: readonly StampedEvent[];
  readonly settings: ReadonlyMap<string, string>;
  readonly lastOperation: number;
  readonly lastEvent: number;
  readonly lastDomainId: number;
}

const empty: Store = {
  operations: new Map(),
  domains: new Map(),
  roles: new Map(),
  events: [],
  settings: new Map(),
  lastOperation: 0,
  lastEvent: 0,
  lastDomainId: 0,
};

export interface MemoryJournalOptions {
  readonly nowMs?: () => number;
  readonly keep?: Partial<Retention>;
}

export class MemoryJournal implements Journal {
  private readonly nowMs: () => number;
  private readonly keep: Retention;
  private readonly options: MemoryJournalOptions;
  private readonly listeners = new Listeners();
  private store: Store;
  private previous: Store;
  private open = true;

  constructor(options: MemoryJournalOptions = {}) {
    this.options = options;
    this.nowMs = options.nowMs ?? Date.now;
    this.keep = { ...defaultRetention, ...options.keep };
    this.store = empty;
    this.previous = empty;
  }

  /**
   * The process dies. This journal answers no more; the returned one holds what was durable. `torn`: the last write was
   * under way and did not reach the disk whole, so it is gone.
   */
  crash(torn: 'torn' | null = null): MemoryJournal {
    this.open = false;
    const next = new MemoryJournal(this.options);
    next.store = torn === null ? this.store : this.previous;
    next.previous = next.store;
    return next;
  }

  async begin(plan: Plan): Promise<number> {
    checkPlan(plan);
    return this.write((store) => this.withPlan(store, plan));
  }

  async append(
    operation: number,
    entry: Entry,
    changes: readonly Change[] = [],
    then: Entry | null = null,
  ): Promise<Applied> {
    const applied = this.write((store) => {
      const [next, made] = this.withEntry(store, operation, entry, changes);
      return then === null ? [next, made] : [this.withEntry(next, operation, then, [])[0], made];
    });
    this.listeners.tell(applied);
    return applied;
  }

  async commitAtOnce(
    plan: Plan,
  ): Promise<{ readonly operation: number; readonly applied: Applied }> {
    const entries = entriesAtOnce(plan);
    const result = this.write((start) => {
      const [begun, operation] = this.withPlan(start, plan);
      let store = begun;
      const changes: AppliedChange[] = [];
      for (const { entry, changes: more } of entries) {
        const [next, applied] = this.withEntry(store, operation, entry, more);
        store = next;
        changes.push(...applied.changes);
      }
      const before = start.domains.get(plan.domain) ?? null;
      const after = store.domains.get(plan.domain) ?? null;
      return [store, { operation, applied: { domain: plan.domain, before, after, changes } }];
    });
    this.listeners.tell(result.applied);
    return result;
  }

  async record(domain: string, changes: readonly Change[]): Promise<Applied> {
    const applied = this.write((store) => this.withChanges(store, domain, changes));
    this.listeners.tell(applied);
    return applied;
  }

  async entries(operation: number): Promise<readonly StampedEntry[]> {
    return this.read().operations.get(operation)?.entries ?? [];
  }

  async copy(operation: number, step: number): Promise<SavedCopy | null> {
    return this.read().operations.get(operation)?.saved.get(step) ?? null;
  }

  async saveCopy(id: number, step: number, note: CopyNote): Promise<void> {
    this.write((store) => {
      const operation = openOperation(store, id, 'nothing of a copy can be saved');
      const before = operation.saved.get(step) ?? null;
      const pieces = piecesAfter(before?.pieces ?? [], note);
      const saved = { ...copyAfter(before, note, this.nowMs()), pieces };
      const next = { ...operation, saved: new Map(operation.saved).set(step, saved) };
      return [{ ...store, operations: new Map(store.operations).set(id, next) }, undefined];
    });
  }

  async openOperations(): Promise<readonly OperationRecord[]> {
    return [...this.read().operations.values()]
      .filter(({ endedAtMs }) => endedAtMs === null)
      .map((stored) => operationOf(partsOf(stored)));
  }

  async operation(id: number): Promise<OperationRecord | null> {
    const stored = this.read().operations.get(id);
    return stored === undefined ? null : operationOf(partsOf(stored));
  }

  async operations({ domain, limit = 100 }: OperationFilter = {}): Promise<
    readonly OperationSummary[]
  > {
    const wanted = [...this.read().operations.values()].filter(
      ({ plan }) => domain === undefined || plan.domain === domain,
    );
    return wanted
      .toReversed()
      .slice(0, limit)
      .map((stored) => summaryOf(partsOf(stored)));
  }

  async domains(): Promise<readonly DomainRecord[]> {
    return [...this.read().domains.values()].toSorted((a, b) => (a.uuid < b.uuid ? -1 : 1));
  }

  async domain(uuid: string): Promise<DomainRecord | null> {
    return this.read().domains.get(uuid) ?? null;
  }

  async roles(): Promise<readonly ImageRole[]> {
    return [...this.read().roles.values()].toSorted((a, b) => (a.path < b.path ? -1 : 1));
  }

  async events({ afterSeq = 0, limit = 1000 }: EventFilter = {}): Promise<readonly StampedEvent[]> {
    return this.read()
      .events.filter(({ seq }) => seq > afterSeq)
      .slice(0, limit);
  }

  async writable(): Promise<void> {
    return this.write((store) => [store, undefined]);
  }

  async nextDomainId(): Promise<number> {
    return this.write((store) => {
      const id = store.lastDomainId + 1;
      return [{ ...store, lastDomainId: id }, id];
    });
  }

  async setting(key: string): Promise<string | null> {
    return this.read().settings.get(key) ?? null;
  }

  async putSetting(key: string, value: string | null): Promise<void> {
    this.write((store) => {
      const settings = new Map(store.settings);
      if (value === null) settings.delete(key);
      else settings.set(key, value);
      return [{ ...store, settings }, undefined];
    });
  }

  onApplied(listener: AppliedListener): () => void {
    return this.listeners.add(listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.open = false;
  }

  private read(): Store {
    assert(this.open, 'the journal is closed');
    return this.store;
  }

  private write<T>(transaction: (store: Store) => readonly [Store, T]): T {
    const [store, result] = transaction(this.read());
    this.previous = this.store;
    this.store = store;
    return result;
  }

  private withPlan(store: Store, plan: Plan): readonly [Store, number] {
    const id = store.lastOperation + 1;
    const operation = {
      id,
      plan: plan,
      startedAtMs: this.nowMs(),
      endedAtMs: null,
      entries: [],
      saved: new Map(),
    };
    return [
      { ...store, lastOperation: id, operations: new Map(store.operations).set(id, operation) },
      id,
    ];
  }

  private withEntry(
    store: Store,
    id: number,
    entry: Entry,
    changes: readonly Change[],
  ): readonly [Store, Applied] {
    const operation = openOperation(store, id, `no '${entry.type}' can follow`);
    const atMs = this.nowMs();
    const next: StoredOperation = {
      ...operation,
      endedAtMs: entry.type === 'end' ? atMs : null,
      entries: [...operation.entries, { atMs, entry, changes }],
      saved: entry.type === 'end' ? withoutPieces(operation.saved) : operation.saved,
    };
    const operations = new Map(store.operations).set(id, next);
    if (entry.type === 'end') this.prune(operations);
    return this.withChanges({ ...store, operations }, operation.plan.domain, changes);
  }

  private prune(operations: Map<number, StoredOperation>): void {
    const ended = [...operations.values()].filter(({ endedAtMs }) => endedAtMs !== null);
    for (const { id } of ended.slice(0, Math.max(0, ended.length - this.keep.operations)))
      operations.delete(id);
  }

  private replanned(
    operations: Store['operations'],
    { operation, from, done, plan }: Extract<Change, { readonly change: 'replan' }>,
  ): Store['operations'] {
    const stored = present(operations.get(operation), `there is no operation ${operation}`);
    // Only data to who made the change; here it is known to be a plan.
    const next = plan as Plan;
    checkPlan(next);
    const entry = { type: 'replan', from, done } as const;
    const entries = [...stored.entries, { atMs: this.nowMs(), entry, changes: [] }];
    return new Map(operations).set(operation, { ...stored, plan: next, entries });
  }

  private withChanges(
    store: Store,
    domain: string,
    changes: readonly Change[],
  ): readonly [Store, Applied] {
    const before = store.domains.get(domain) ?? null;
    const after = applyAll(before, domain, changes);
    const domains = new Map(store.domains);
    if (after === null) domains.delete(domain);
    else if (after !== before) domains.set(domain, after);
    const roles = new Map(store.roles);
    const events = [...store.events];
    let seq = store.lastEvent;
    let { operations } = store;
    const applied = changes.map((change): AppliedChange => {
      if (change.change === 'role') {
        const role = roleAt(change, roles.get(change.role.path) ?? null, this.nowMs());
        roles.set(role.path, role);
        return { change: { change: 'role', role }, seq: null };
      }
      if (change.change === 'forget-role') roles.delete(change.path);
      if (change.change === 'replan') operations = this.replanned(operations, change);
      if (change.change !== 'event') return { change, seq: null };
      events.push({ seq: ++seq, atMs: this.nowMs(), domain, event: change.event });
      return { change, seq };
    });
    events.splice(0, Math.max(0, events.length - this.keep.events));
    return [
      { ...store, operations, domains, roles, events, lastEvent: seq },
      { domain, before, after: domains.get(domain) ?? null, changes: applied },
    ];
  }
}

function openOperation(store: Store, id: number, otherwise: string): StoredOperation {
  const operation = present(store.operations.get(id), `there is no operation ${id}`);
  assert(operation.endedAtMs === null, `operation ${id} has ended: ${otherwise}`);
  return operation;
}

function piecesAfter(pieces: readonly Piece[], note: CopyNote): readonly Piece[] {
  if (note.note === 'begun') return [];
  if (note.note !== 'pieces') return pieces;
  const byOffset = new Map([...pieces, ...note.pieces].map((piece) => [piece.offset, piece]));
  return [...byOffset.values()].toSorted((a, b) => a.offset - b.offset);
}

const withoutPieces = (saved: ReadonlyMap<number, SavedCopy>): ReadonlyMap<number, SavedCopy> =>
  new Map([...saved].map(([step, copy]) => [step, { ...copy, pieces: [] }]));

function partsOf(stored: StoredOperation): OperationParts {
  const copies = [...stored.saved].toSorted(([a], [b]) => a - b);
  return {
    ...stored,
    copies: copies.map(([step, { pieces, ...state }]) =>
      copyRecordOf(
        step,
        state,
        pieces.reduce((sum, { dataBytes }) => sum + dataBytes, 0),
      ),
    ),
  };
}
