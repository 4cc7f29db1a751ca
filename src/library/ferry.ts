// A running ferryd, for programs: its verbs, its errors by what the caller may do, its streams as async iterations.

import { join, resolve } from 'node:path';
import { absoluteDestination } from '../block/destination.js';

import type { DoctorReport } from '../host/doctor/types.js';
import type {
  BlockJobView,
  DiskView,
  DomainSummary,
  FerryHost,
  MoveRequest,
  OperationAnswer,
  OperationView,
  SnapshotDeleteMode,
  SnapshotRequestFlags,
  SnapshotView,
  StreamedEvent,
  UndefineHow,
} from '../host/ferry-host.js';
import type { GcRemoved, GcReport } from '../host/gc/types.js';
import type { MovePlan } from '../host/move-plan-view.js';
import { defaultRunDir } from '../host/run-dir.js';
import type { FerryClient, StreamReadOptions } from '../http/client.js';
import { ferryClient } from '../http/client.js';
import { failureOf } from '../http/ended.js';
import { publicError } from './errors.js';

export interface ConnectOptions {
  /** Run directory of ferryd. Default: `FERRY_RUN_DIR`, else where ferryd has it by default. */
  readonly runDir?: string;
}

/** What to move and where to; what is left out is as `ferry move` has it. */
export type MoveOptions = Partial<Omit<MoveRequest, 'disks' | 'to'>> & {
  /** Targets such as `vda`, or paths of live images. They switch together or not at all. */
  readonly disks: string | readonly string[];
  /** Directory on the other storage, where file names are kept; or, of one disk, the new file of its top image. */
  readonly to: string;
};

/** An operation, or its number. */
export type OperationRef = number | { readonly id: number };

/** `undefined` anywhere in the options is as good as left out. Every method throws a {@link BlockferryError}. */
export interface Ferry {
  readonly runDir: string;
  /** Of this ferryd when it was connected to. */
  readonly version: ReturnType<FerryHost['version']>;

  domains(): Promise<readonly DomainSummary[]>;
  /** By name, UUID or id, as everywhere. */
  domain(domain: string): Promise<DomainSummary>;
  define(xml: string): Promise<DomainSummary>;
  /** Starts a transient domain. */
  create(xml: string, options?: { readonly paused?: boolean }): Promise<DomainSummary>;
  /** `mirrorLater`: also when a mirror that it had cannot be taken up again now. */
  start(
    domain: string,
    options?: { readonly paused?: boolean; readonly mirrorLater?: boolean },
  ): Promise<DomainSummary>;
  /** Stops it so that its mirrors end with both sides equal; after `timeoutSeconds` (60) without the guest's help. */
  seal(domain: string, options?: { readonly timeoutSeconds?: number }): Promise<DomainSummary>;
  /** Asks the guest to power off. */
  shutdown(domain: string): Promise<void>;
  /** Ends its QEMU at once. */
  destroy(domain: string): Promise<void>;
  undefine(domain: string, how?: Partial<UndefineHow>): Promise<void>;
  dumpXml(domain: string, options?: { readonly inactive?: boolean }): Promise<string>;
  /** Of each disk: the live image, what is below it, its mirror, what was live once. */
  chain(domain: string): Promise<readonly DiskView[]>;
  /** Which image of each disk is live and why, what is stale, what waits for whom; without a domain: of all. */
  doctor(domain?: string): Promise<DoctorReport>;
  /** What was left anywhere, with the proof that it can go. */
  garbage(): Promise<GcReport>;
  /** Removes exactly these files, or all that need no naming; refuses what is not proven, and then removes nothing. */
  removeGarbage(paths?: readonly string[]): Promise<GcRemoved>;

  createSnapshot(
    domain: string,
    xml: string,
    flags?: Partial<SnapshotRequestFlags>,
  ): Promise<SnapshotView>;
  snapshots(domain: string): Promise<readonly SnapshotView[]>;
  deleteSnapshot(domain: string, snapshot: string, mode: SnapshotDeleteMode): Promise<void>;
  /** Null: no job on that disk. */
  blockJob(domain: string, disk: string): Promise<BlockJobView | null>;
  endBlockJob(domain: string, disk: string, how: 'abort' | 'pivot'): Promise<void>;

  /** What a move would do and cost. Changes nothing; takes a second or two, in which guest and storages are looked at. */
  planMove(domain: string, move: MoveOptions): Promise<MovePlan>;
  /** Begins what was planned. @throws NotReady naming what has changed since. */
  apply(plan: string | { readonly hash: string }): Promise<OperationView>;
  /** Begins a move; resolves when it is journaled: from then on it survives this program and ferryd. */
  move(domain: string, move: MoveOptions): Promise<OperationView>;

  /** Those that have not ended; `all`: those that have, too. */
  operations(filter?: {
    readonly domain?: string;
    readonly all?: boolean;
  }): Promise<readonly OperationView[]>;
  operation(operation: OperationRef): Promise<OperationView>;
  /**
   * The operation at each change until it has ended, with its end as the last. A ferryd that is restarted meanwhile is
   * waited for. An aborted `signal` ends the iteration, not the operation.
   *
   * @throws Undone it was taken back. @throws NeedsPerson it stopped and waits for one. @throws NotReady QEMU died: it
   * goes on at the next start of the domain.
   */
  watch(operation: OperationRef, options?: StreamReadOptions): AsyncGenerator<OperationView, void>;
  /** The end of it; throws what `watch` does, and the reason of an aborted `signal`. */
  wait(operation: OperationRef, options?: StreamReadOptions): Promise<OperationView>;
  /** What its copies may read in a second, from now on; null: as fast as they can. */
  limit(operation: OperationRef, bytesPerSecond: bigint | null): Promise<void>;
  /** Lets its copies stand still; the guest and its mirror go on. */
  pause(operation: OperationRef): Promise<void>;
  resume(operation: OperationRef): Promise<void>;
  /** Lets a move switch as soon as it is in step, whatever it was told to wait for. */
  pivot(operation: OperationRef): Promise<void>;
  /**
   * How long the source of a move is kept: so many seconds from now on (of one that has not switched: from its switch on),
   * then it is deleted as far as it is proven to be elsewhere and unused; null: until somebody removes it.
   *
   * @throws NotReady nothing of it is left. @throws Refused its copies were not verified.
   */
  keepSource(operation: OperationRef, seconds: number | null): Promise<void>;
  /**
   * Takes back a move that has switched, in one pause, while its way back is open (`undoSeconds`); with `close` that is
   * closed instead. Resolves to the operation that does it.
   *
   * @throws NotReady it is not open, which says how to move back, or its mirror is not in step yet.
   */
  undo(operation: OperationRef, options?: { readonly close?: boolean }): Promise<OperationView>;
  /** Puts a fresh layer on the disks of a move, so that a crash costs only what comes after. */
  rotate(operation: OperationRef): Promise<void>;
  /** Ends it before its commit step; what it did is undone, which `watch` tells. */
  cancel(operation: OperationRef): Promise<void>;
  /** A person's word on an operation that waits for one. */
  resolve(operation: OperationRef, answer: OperationAnswer): Promise<OperationView>;

  /**
   * Events from the first `next()` on, until `signal` is aborted. With `after`, a `seq`: those that came after it, as far
   * as ferryd keeps them, so that nothing is missed; 0: all that are kept.
   */
  events(
    options?: StreamReadOptions & { readonly after?: number },
  ): AsyncGenerator<StreamedEvent, void>;
  /** Those that are kept of the ones after `after`. */
  pastEvents(after?: number): Promise<readonly StreamedEvent[]>;
}

/** Finds a running ferryd. There is nothing to close. @throws Busy none answers there. */
export async function connect({ runDir }: ConnectOptions = {}): Promise<Ferry> {
  const directory = await told(async () => resolve(runDir ?? defaultRunDir()));
  const client = ferryClient(join(directory, 'ferry.sock'));
  const version = await told(() => client.version());
  return {
    runDir: directory,
    version,
    ...domainVerbs(client),
    ...diskVerbs(client),
    ...moveVerbs(client),
    ...operationVerbs(client),
  };
}

type DomainVerbs =
  | 'domains'
  | 'domain'
  | 'define'
  | 'create'
  | 'start'
  | 'seal'
  | 'shutdown'
  | 'destroy'
  | 'undefine'
  | 'dumpXml';

function domainVerbs(client: FerryClient): Pick<Ferry, DomainVerbs> {
  return {
    domains: () => told(() => client.listDomains()),
    domain: (domain) => told(() => client.showDomain(domain)),
    define: (xml) => told(() => client.define(xml)),
    create: (xml, { paused = false } = {}) => told(() => client.createXml(xml, { paused })),
    start: (domain, { paused = false, mirrorLater = false } = {}) =>
      told(() => client.start(domain, { paused, mirrorLater })),
    seal: (domain, { timeoutSeconds = 60 } = {}) =>
      told(() => client.seal(domain, { timeoutSeconds })),
    shutdown: (domain) => told(() => client.shutdown(domain)),
    destroy: (domain) => told(() => client.destroy(domain)),
    undefine: (domain, { snapshotsMetadata = false, nvram = null } = {}) =>
      told(() => client.undefine(domain, { snapshotsMetadata, nvram })),
    dumpXml: (domain, { inactive = false } = {}) =>
      told(() => client.dumpXml(domain, { inactive })),
  };
}

type DiskVerbs =
  | 'chain'
  | 'doctor'
  | 'garbage'
  | 'removeGarbage'
  | 'createSnapshot'
  | 'snapshots'
  | 'deleteSnapshot'
  | 'blockJob'
  | 'endBlockJob';

function diskVerbs(client: FerryClient): Pick<Ferry, DiskVerbs> {
  return {
    chain: (domain) => told(() => client.chain(domain)),
    doctor: (domain) => told(() => client.doctor(domain ?? null)),
    garbage: () => told(() => client.gcList()),
    removeGarbage: (paths) => told(() => client.gcRemove(paths ?? null)),
    createSnapshot: (domain, xml, flags = {}) =>
      told(() => client.createSnapshot(domain, xml, { ...noFlags, ...flags })),
    snapshots: (domain) => told(() => client.listSnapshots(domain)),
    deleteSnapshot: (domain, snapshot, mode) =>
      told(() => client.deleteSnapshot(domain, snapshot, mode)),
    blockJob: (domain, disk) => told(() => client.blockJob(domain, disk)),
    endBlockJob: (domain, disk, how) => told(() => client.endBlockJob(domain, disk, how)),
  };
}

const noFlags: SnapshotRequestFlags = {
  diskOnly: false,
  noMetadata: false,
  reuseExternal: false,
  atomic: false,
};

function moveVerbs(client: FerryClient): Pick<Ferry, 'planMove' | 'apply' | 'move'> {
  return {
    planMove: (domain, move) => told(() => client.planMove(domain, requestOf(move))),
    apply: (plan) => told(() => client.applyPlan(typeof plan === 'string' ? plan : plan.hash)),
    move: (domain, move) => told(() => client.startMove(domain, requestOf(move))),
  };
}

/** `as`: what is left out is filled in by ferryd, whose schema has the defaults. */
const requestOf = ({ disks, to, overlayDir, ...rest }: MoveOptions): MoveRequest =>
  ({
    ...rest,
    disks: typeof disks === 'string' ? [disks] : disks,
    to: absoluteDestination(to),
    ...(overlayDir == null ? {} : { overlayDir: resolve(overlayDir) }),
  }) as MoveRequest;

type OperationVerbs =
  | 'operations'
  | 'operation'
  | 'watch'
  | 'wait'
  | 'limit'
  | 'pause'
  | 'resume'
  | 'pivot'
  | 'keepSource'
  | 'undo'
  | 'rotate'
  | 'cancel'
  | 'resolve'
  | 'events'
  | 'pastEvents';

function operationVerbs(client: FerryClient): Pick<Ferry, OperationVerbs> {
  return {
    operations: ({ domain, all = false } = {}) =>
      told(() => client.operations({ domain: domain ?? null, all })),
    operation: (ref) => told(() => client.operation(idOf(ref))),
    watch: (ref, options = {}) => toldEach(watch(client, idOf(ref), options)),
    wait: (ref, options = {}) => told(() => wait(client, idOf(ref), options)),
    limit: (ref, limitBytesPerSecond) =>
      told(() => client.paceOperation(idOf(ref), { limitBytesPerSecond })),
    pause: (ref) => told(() => client.paceOperation(idOf(ref), { isPaused: true })),
    resume: (ref) => told(() => client.paceOperation(idOf(ref), { isPaused: false })),
    pivot: (ref) => told(() => client.pivotOperation(idOf(ref))),
    keepSource: (ref, seconds) => told(() => client.keepSource(idOf(ref), seconds)),
    undo: (ref, { close = false } = {}) => told(() => client.undoOperation(idOf(ref), { close })),
    rotate: (ref) => told(() => client.rotateOperation(idOf(ref))),
    cancel: (ref) => told(() => client.cancelOperation(idOf(ref))),
    resolve: (ref, answer) => told(() => client.resolveOperation(idOf(ref), answer)),
    events: ({ after, ...options } = {}) => toldEach(client.events(after ?? null, options)),
    pastEvents: (after = 0) => told(() => client.pastEvents(after)),
  };
}

const idOf = (ref: OperationRef): number => (typeof ref === 'number' ? ref : ref.id);

async function* watch(
  client: FerryClient,
  id: number,
  options: StreamReadOptions,
): AsyncGenerator<OperationView, void> {
  let last: OperationView | null = null;
  for await (const view of client.watchOperation(id, options)) {
    last = view;
    yield view;
  }
  if (options.signal?.aborted === true || last === null) return;
  const failure = failureOf(last);
  if (failure !== null) throw failure;
}

async function wait(
  client: FerryClient,
  id: number,
  options: StreamReadOptions,
): Promise<OperationView> {
  let last: OperationView | null = null;
  for await (const view of watch(client, id, options)) last = view;
  options.signal?.throwIfAborted();
  return last ?? (await client.operation(id));
}

async function told<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw publicError(error);
  }
}

async function* toldEach<T>(values: AsyncIterable<T>): AsyncGenerator<T, void> {
  try {
    yield* values;
  } catch (error) {
    throw publicError(error);
  }
}
