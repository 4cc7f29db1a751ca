// A FerryHost that keeps everything in memory and does nothing: for tests of the doors.
// It records each call, answers from fields that a test sets, and fails where it is told to.

import type {
  BlockJobView,
  DiskView,
  DomainSummary,
  FerryHost,
  OperationRecordView,
  OperationView,
  PaceChange,
  SnapshotView,
  StreamedEvent,
  UndefineHow,
} from '../../host/ferry-host.js';
import type { GcRemoved, GcReport } from '../../host/gc/types.js';
import type { MovePlan } from '../../host/move-plan.js';
import type { DoctorReport } from '../../host/doctor/types.js';
import { NotFoundError, RequestError } from '../../std/errors.js';

type Verb = keyof FerryHost;

export class MemoryHost implements FerryHost {
  /** Calls in order: the verb and its arguments. */
  readonly calls: (readonly [Verb, ...unknown[]])[] = [];
  /** What a verb throws instead of its answer. */
  readonly failures = new Map<Verb, Error>();
  readonly domains = new Map<string, DomainSummary>();
  readonly operationViews = new Map<number, OperationView>();
  readonly kept: StreamedEvent[] = [];
  readonly listeners = new Set<(event: StreamedEvent) => void>();
  disks: readonly DiskView[] = [];
  snapshots: readonly SnapshotView[] = [];
  report: DoctorReport | undefined;
  garbage: GcReport | undefined;
  movePlan: MovePlan | undefined;
  record: OperationRecordView | undefined;
  job: BlockJobView | null = null;
  xml = '<domain/>';
  /** Called when somebody starts to wait for an operation: the place to let it make progress. */
  onWait: (id: number) => void = () => undefined;
  private readonly waiters = new Map<number, Set<Waiter>>();

  version(): ReturnType<FerryHost['version']> {
    this.note('version');
    return { blockferry: '0.1.0', qemu: '7.2.22', hostname: 'host1' };
  }

  listDomains(): readonly DomainSummary[] {
    this.note('listDomains');
    return [...this.domains.values()];
  }

  showDomain(name: string): DomainSummary {
    this.note('showDomain', name);
    return this.find(name);
  }

  async define(xml: string): Promise<DomainSummary> {
    this.note('define', xml);
    return this.first();
  }

  async createXml(xml: string, options: { readonly paused: boolean }): Promise<DomainSummary> {
    this.note('createXml', xml, options);
    return this.first();
  }

  async seal(name: string, options: { readonly timeoutSeconds: number }): Promise<DomainSummary> {
    this.note('seal', name, options);
    return { ...this.find(name), id: null, state: 'shutoff' };
  }

  async start(
    name: string,
    options: { readonly paused: boolean; readonly mirrorLater: boolean },
  ): Promise<DomainSummary> {
    this.note('start', name, options);
    return this.find(name);
  }

  async shutdown(name: string): Promise<void> {
    this.note('shutdown', name);
    this.find(name);
  }

  async destroy(name: string): Promise<void> {
    this.note('destroy', name);
    this.find(name);
  }

  async undefine(name: string, options: UndefineHow): Promise<void> {
    this.note('undefine', name, options);
    this.find(name);
  }

  dumpXml(name: string, options: { readonly inactive: boolean }): string {
    this.note('dumpXml', name, options);
    this.find(name);
    return this.xml;
  }

  async chain(name: string): Promise<readonly DiskView[]> {
    this.note('chain', name);
    this.find(name);
    return this.disks;
  }

  async doctor(name: string | null): Promise<DoctorReport> {
    this.note('doctor', name);
    if (name !== null) this.find(name);
    return present(this.report);
  }

  async gcList(): Promise<GcReport> {
    this.note('gcList');
    return present(this.garbage);
  }

  async gcRemove(paths: readonly string[] | null): Promise<GcRemoved> {
    this.note('gcRemove', paths);
    const { items } = present(this.garbage);
    const removed = items.filter(({ path, fate }) =>
      paths === null ? fate === 'removable' : paths.includes(path),
    );
    return { removed, operations: removed.length === 0 ? [] : [12] };
  }

  async createSnapshot(
    name: string,
    ...rest: readonly [string, Parameters<FerryHost['createSnapshot']>[2]]
  ): Promise<SnapshotView> {
    this.note('createSnapshot', name, ...rest);
    this.find(name);
    return present(this.snapshots[0]);
  }

  listSnapshots(name: string): readonly SnapshotView[] {
    this.note('listSnapshots', name);
    this.find(name);
    return this.snapshots;
  }

  async deleteSnapshot(name: string, snapshot: string, mode: string): Promise<void> {
    this.note('deleteSnapshot', name, snapshot, mode);
    if (this.snapshots.some((s) => s.name === snapshot)) return;
    throw new NotFoundError(
      'NO_DOMAIN_SNAPSHOT',
      `no domain snapshot with matching name '${snapshot}'`,
    );
  }

  async blockJob(name: string, disk: string): Promise<BlockJobView | null> {
    this.note('blockJob', name, disk);
    this.find(name);
    return this.job;
  }

  async endBlockJob(name: string, disk: string, how: string): Promise<void> {
    this.note('endBlockJob', name, disk, how);
    this.find(name);
  }

  async startMove(
    name: string,
    request: Parameters<FerryHost['startMove']>[1],
  ): Promise<OperationView> {
    this.note('startMove', name, request);
    this.find(name);
    return present([...this.operationViews.values()][0]);
  }

  async planMove(name: string, request: Parameters<FerryHost['planMove']>[1]): Promise<MovePlan> {
    this.note('planMove', name, request);
    this.find(name);
    return present(this.movePlan);
  }

  plan(hash: string): MovePlan {
    this.note('plan', hash);
    return present(this.movePlan);
  }

  async applyPlan(hash: string): Promise<OperationView> {
    this.note('applyPlan', hash);
    return present([...this.operationViews.values()][0]);
  }

  async paceOperation(id: number, change: PaceChange): Promise<void> {
    this.note('paceOperation', id, change);
    this.operation(id);
  }

  async pivotOperation(id: number): Promise<void> {
    this.note('pivotOperation', id);
    this.operation(id);
  }

  operations(filter: { readonly all: boolean }): readonly OperationView[] {
    this.note('operations', filter);
    return [...this.operationViews.values()].filter((o) => filter.all || o.status === 'running');
  }

  operation(id: number): OperationView {
    const view = this.operationViews.get(id);
    if (view !== undefined) return view;
    throw new RequestError('INVALID_ARG', `no operation ${id}; list them: ferry ops list --all`);
  }

  async showOperation(id: number): Promise<OperationView> {
    return this.operation(id);
  }

  async keepSource(id: number, keepSeconds: number | null): Promise<void> {
    this.note('keepSource', id, keepSeconds);
    this.operation(id);
  }

  async undoOperation(id: number, { close }: { readonly close: boolean }): Promise<OperationView> {
    this.note('undoOperation', id, close);
    return this.operation(id);
  }

  async operationRecord(id: number): Promise<OperationRecordView> {
    this.note('operationRecord', id);
    this.operation(id);
    return present(this.record);
  }

  async waitOperation(id: number, signal: AbortSignal): Promise<OperationView> {
    this.note('waitOperation', id);
    const view = this.operation(id);
    if (view.status !== 'running') return view;
    return await new Promise((resolve, reject) => {
      const waiters = this.waiters.get(id) ?? new Set();
      this.waiters.set(id, waiters.add({ resolve, reject }));
      signal.addEventListener('abort', () => reject(signal.reason));
      this.onWait(id);
    });
  }

  async rotateOperation(id: number): Promise<void> {
    this.note('rotateOperation', id);
  }

  async cancelOperation(id: number): Promise<void> {
    this.note('cancelOperation', id);
    this.operation(id);
  }

  async resolveOperation(
    id: number,
    answer: Parameters<FerryHost['resolveOperation']>[1],
  ): Promise<OperationView> {
    this.note('resolveOperation', id, answer);
    return this.operation(id);
  }

  events(
    afterSeq: number | null,
    listener: (event: StreamedEvent) => void,
  ): { readonly unsubscribe: () => void } {
    this.note('events', afterSeq);
    if (afterSeq !== null) this.kept.filter((event) => event.seq > afterSeq).forEach(listener);
    this.listeners.add(listener);
    return { unsubscribe: () => this.listeners.delete(listener) };
  }

  /** Keeps an event and tells it to all who listen. */
  emit(event: StreamedEvent['event'], domainName: string | null = 'vm1'): void {
    const seq = this.kept.length + 1;
    const time = new Date(Date.UTC(2026, 0, 2, 3, 4, seq)).toISOString();
    const domain = domainName === null ? null : (this.domains.get(domainName)?.uuid ?? null);
    const streamed: StreamedEvent = { seq, time, domain, domainName, event };
    this.kept.push(streamed);
    for (const listener of this.listeners) listener(streamed);
  }

  /** The operation is now as `view` says, and an event makes those who watch it look. */
  advance(view: OperationView): void {
    this.operationViews.set(view.id, view);
    this.emit({
      type: 'operation',
      operation: view.id,
      kind: view.kind,
      status: view.status,
      message: view.progress?.phase ?? '',
    });
  }

  /** Ends the wait for an operation: with `error`, or with the operation as it is. */
  settle(id: number, error: Error | null = null): void {
    for (const waiter of this.waiters.get(id) ?? []) {
      if (error === null) waiter.resolve(this.operation(id));
      else waiter.reject(error);
    }
    this.waiters.delete(id);
  }

  private note(verb: Verb, ...args: readonly unknown[]): void {
    this.calls.push([verb, ...args]);
    const failure = this.failures.get(verb);
    if (failure !== undefined) throw failure;
  }

  private find(name: string): DomainSummary {
    const found = this.domains.get(name);
    if (found !== undefined) return found;
    throw new NotFoundError('NO_DOMAIN', `no domain with matching name '${name}'`);
  }

  private first(): DomainSummary {
    return present([...this.domains.values()][0]);
  }
}

interface Waiter {
  readonly resolve: (view: OperationView) => void;
  readonly reject: (error: unknown) => void;
}

function present<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the test set no answer');
  return value;
}
