// Looks once a second at every move that runs: at QEMU's counters, its jobs, and how far the copies are. What is seen is kept in
// memory, for `ferry ops show` and whoever watches. Nothing of it ever fails a move, or stands in the way of a pause.

import type { StepProgress } from '../../job/runner.js';
import type { OperationRecord } from '../../journal/journal.js';
import { waysOf } from '../../plan/ways.js';
import type { Monitor } from '../../qmp/monitor.js';
import { hasCommand } from '../../qmp/monitor.js';
import { messageOf } from '../../std/errors.js';
import type { Host, Running } from '../host.js';
import { paceOf } from '../pace-verbs.js';
import { copiesOf } from './copies.js';
import type { DeviceStats } from './histograms.js';
import { devicesOf, patience, removeHistograms, setHistograms, writesOf } from './histograms.js';
import { ladderOf } from './ladder.js';
import type { Histogram } from './latency.js';
import { since, sumOf } from './latency.js';
import type { Look } from './meter.js';
import type { Sight } from './move-watch.js';
import { readBytesOf } from '../move-look.js';
import { MoveWatch } from './move-watch.js';
import { Pacing } from './pacing.js';

/** Between the setting of a histogram and the beginning of the move that it is for. */
const OPENING_MS = 30_000;
/** So long what was seen before a move says how its guest was without one. */
const BEFORE_MS = 10 * 60_000;

/** What was seen longer ago is not what goes on: its QEMU does not answer, or is gone. */
const FRESH_MS = 10_000;

type ByTarget = ReadonlyMap<string, Histogram>;

interface Watched {
  readonly uuid: string;
  readonly watch: MoveWatch;
  readonly pacing: Pacing;
}

/** Of a domain in whose QEMU histograms are set. */
interface Held {
  readonly sinceMs: number;
  /** What stood in the histograms at that moment. */
  readonly start: ByTarget;
}

export class Watchers {
  private readonly host: Host;
  private readonly moves = new Map<number, Watched>();
  private readonly looking = new Set<number>();
  private readonly held = new Map<string, Held>();
  /** The writes of guests before their moves, by UUID. */
  private readonly before = new Map<string, { readonly atMs: number; readonly writes: ByTarget }>();
  /** What images of moves take that were not looked at yet, by operation and path. */
  private readonly planned = new Map<number, ReadonlyMap<string, bigint>>();
  private timer: NodeJS.Timeout | null = null;

  constructor(host: Host) {
    this.host = host;
  }

  start(everyMs: number): void {
    let isLooking = false;
    this.timer = setInterval(() => {
      if (isLooking || (this.host.running.size === 0 && this.held.size === 0)) return;
      isLooking = true;
      void this.lookAtAll().finally(() => (isLooking = false));
    }, everyMs);
    this.timer.unref();
  }

  close(): void {
    if (this.timer !== null) clearInterval(this.timer);
  }

  /** Null: it does not run, or was not looked at of late. */
  sightOf(operation: number): Sight | null {
    const watch = this.moves.get(operation)?.watch;
    if (watch === undefined || !this.host.running.has(operation)) return null;
    return this.now - watch.seenAtMs > FRESH_MS ? null : watch.sight;
  }

  /** What images of it that are not begun take, by path. */
  sizesOf(operation: number): ReadonlyMap<string, bigint> {
    return this.moves.get(operation)?.watch.sizes ?? this.planned.get(operation) ?? new Map();
  }

  /** A move was begun, and its planner saw what its images take. */
  weighed(operation: number, sizes: ReadonlyMap<string, bigint>): void {
    this.planned.set(operation, sizes);
  }

  /** A move of this domain is being looked into: from now on its guest's writes are measured. */
  async opening(uuid: string): Promise<void> {
    await this.quietly(uuid, async (monitor) => {
      const devices = await devicesOf(monitor, this.host.known.domain(uuid));
      await setHistograms(monitor, devices);
      this.held.set(uuid, { sinceMs: this.now, start: histogramsOf(devices) });
    });
  }

  /** Nothing of a move has touched the guest's storages since `opening`: its writes until now are those before the move. */
  async stillCalm(uuid: string): Promise<void> {
    const held = this.held.get(uuid);
    if (held === undefined) return;
    await this.quietly(uuid, async (monitor) => {
      const now = histogramsOf(await devicesOf(monitor, this.host.known.domain(uuid)));
      const earlier = this.beforeOf(uuid);
      const writes = new Map(
        [...now].flatMap(([target, histogram]) => {
          const start = held.start.get(target);
          const mine = start === undefined ? histogram : since(histogram, start);
          const older = earlier.get(target);
          if (mine === null) return older === undefined ? [] : [[target, older] as const];
          return [[target, (older === undefined ? null : sumOf([mine, older])) ?? mine] as const];
        }),
      );
      this.before.set(uuid, { atMs: this.now, writes });
      this.held.set(uuid, { sinceMs: this.now, start: now });
    });
  }

  /** Told of every step of every operation. */
  onStep(uuid: string, { kind, state }: StepProgress): void {
    // Images are made before anything changes for the guest; making them takes long enough to see some writes. Those of
    // a rotation are made in the middle of a move.
    if (kind !== 'create-image' || state !== 'done') return;
    if ([...this.moves.values()].every((move) => move.uuid !== uuid)) void this.stillCalm(uuid);
  }

  private beforeOf(uuid: string): ByTarget {
    const found = this.before.get(uuid);
    return found === undefined || this.now - found.atMs > BEFORE_MS ? new Map() : found.writes;
  }

  private get now(): number {
    return performance.now();
  }

  private async lookAtAll(): Promise<void> {
    for (const id of this.planned.keys()) if (!this.host.running.has(id)) this.planned.delete(id);
    for (const [id, { uuid }] of this.moves) {
      if (this.host.running.has(id)) continue;
      this.moves.delete(id);
      if (!this.isMoving(uuid)) await this.letGo(uuid);
    }
    for (const running of this.host.running.values())
      if (running.plan.operation === 'move') this.lookSoon(running);
    for (const [uuid, { sinceMs }] of this.held)
      if (!this.isMoving(uuid) && this.now - sinceMs > OPENING_MS) await this.letGo(uuid);
  }

  /** A QEMU or a storage that hangs holds up the looks at its own move only. */
  private lookSoon(running: Running): void {
    if (this.looking.has(running.id)) return;
    this.looking.add(running.id);
    void this.lookAt(running).finally(() => this.looking.delete(running.id));
  }

  private isMoving(uuid: string): boolean {
    return this.runningOn(uuid).some(({ plan }) => plan.operation === 'move');
  }

  private runningOn(uuid: string): readonly Running[] {
    return [...this.host.running.values()].filter(({ plan }) => plan.domain === uuid);
  }

  private async letGo(uuid: string): Promise<void> {
    this.held.delete(uuid);
    if (this.host.known.find(uuid)?.live == null) return;
    await this.quietly(uuid, async (monitor) =>
      removeHistograms(monitor, await devicesOf(monitor, this.host.known.domain(uuid))),
    );
  }

  private async lookAt({ id, plan: { domain } }: Running): Promise<void> {
    // Where the guest may stand still, nothing of ours is in the way of what lets it go on.
    if (!this.runningOn(domain).every(isLong)) return;
    await this.quietly(domain, async (monitor) => {
      const watched = this.watchedOf(id, domain);
      const devices = await devicesOf(monitor, this.host.known.domain(domain));
      // A daemon that found the move under way, or a QEMU that is new.
      if (devices.some((device) => writesOf(device) === null) || !this.held.has(domain)) {
        await setHistograms(monitor, devices);
        this.held.set(domain, { sinceMs: this.now, start: histogramsOf(devices) });
      }
      const record = this.host.operations.get(id);
      await this.weigh(record, watched.watch);
      await this.take(record, watched, monitor, devices);
    });
  }

  private watchedOf(id: number, uuid: string): Watched {
    const found = this.moves.get(id);
    if (found !== undefined) return found;
    const made = { uuid, watch: new MoveWatch(this.beforeOf(uuid)), pacing: new Pacing() };
    for (const [path, bytes] of this.planned.get(id) ?? []) made.watch.sizes.set(path, bytes);
    // The next move of this guest is another one's "before".
    this.before.delete(uuid);
    this.moves.set(id, made);
    return made;
  }

  /** Asks once for what each image takes that is not begun yet. */
  private async weigh(record: OperationRecord, { sizes }: MoveWatch): Promise<void> {
    for (const copy of copiesOf(record, null, sizes)) {
      const step = record.plan.steps[copy.step];
      if (copy.totalBytes !== null || step?.kind !== 'copy-image') continue;
      sizes.set(step.from, await readBytesOf(this.host, step));
    }
  }

  private async take(
    record: OperationRecord,
    { watch, pacing }: Watched,
    monitor: Monitor,
    devices: readonly DeviceStats[],
  ): Promise<void> {
    const { host } = this;
    const { id } = record;
    const at = host.running.get(id)?.progress ?? null;
    const jobs = await monitor.execute('query-block-jobs', {}, patience);
    const pace = paceOf(host, record);
    const jobIds = jobIdsOf(record);
    const copies = copiesOf(record, at, watch.sizes);
    const atMs = this.now;
    const targets = new Set(waysOf(record.plan).map(({ target }) => target));
    const disks = devices
      .filter(({ target }) => targets.has(target))
      .map((device): [string, Pick<Look, 'job' | 'writtenBytes' | 'writes'>] => {
        const jobId = jobIds.get(device.target);
        const job = jobs.find((one) => one.device === jobId);
        return [
          device.target,
          {
            writtenBytes: device.stats.wr_bytes,
            writes: writesOf(device),
            job:
              job === undefined
                ? null
                : { id: job.device, doneBytes: job.offset, totalBytes: job.len },
          },
        ];
      });
    watch.add({
      atMs,
      copies,
      disks: new Map(disks),
      // What moves by itself is no change of what was asked for.
      limitBytesPerSecond: pace.auto == null ? pace.limitBytesPerSecond : null,
      // While a base is compared no copy goes on, and that says nothing of how they will.
      isPaused: pace.isPaused || at?.kind === 'check-image',
    });
    const isCopying = at?.kind === 'copy-image';
    if (isCopying) await pacing.step(host, id, watch, atMs);
    const { convergence } = watch;
    watch.ladder = ladderOf(convergence, {
      operation: id,
      domainName: record.domainName,
      uri: `qemu+unix:///system?socket=${host.context.config.runDir}/libvirt-sock`,
      jobIds: [...jobIds.values()],
      isCopying: isCopying && !pace.isPaused,
      isLimited: pace.limitBytesPerSecond !== null,
      canForce: hasCommand(monitor.schema, 'block-job-change'),
    });
    if (convergence.state === 'diverges' && !watch.isTold) {
      watch.isTold = true;
      await this.tell(record, convergence.why);
    }
  }

  private async tell({ id, domain }: OperationRecord, reason: string): Promise<void> {
    const details = JSON.stringify({ operation: id, reason });
    const event = { type: 'monitor', event: 'MOVE_NOT_CONVERGING', details } as const;
    await this.host.known.journal.record(domain, [{ change: 'event', event }]);
  }

  /** What cannot be seen is not shown; the move does not care. */
  private async quietly(uuid: string, body: (monitor: Monitor) => Promise<void>): Promise<void> {
    try {
      const monitor = await this.host.guestOf(uuid).monitor();
      if (monitor !== null) await body(monitor);
    } catch (error) {
      this.host.log.debug({ domain: uuid, error: messageOf(error) }, 'not looked at');
    }
  }
}

/** Steps in which the guest runs and the domain is not locked. */
const isLong = ({ progress }: Running): boolean =>
  progress !== null &&
  progress.state === 'doing' &&
  ['copy-image', 'check-image', 'wait-ready', 'wait-pivot'].includes(progress.kind);

const histogramsOf = (devices: readonly DeviceStats[]): ByTarget =>
  new Map(
    devices.flatMap((device): [string, Histogram][] => {
      const writes = writesOf(device);
      return writes === null ? [] : [[device.target, writes]];
    }),
  );

/** Of the jobs that it waits for now, or will next: mirrors before the switch, merges after it. By target. */
function jobIdsOf({ plan, steps }: OperationRecord): ReadonlyMap<string, string> {
  const next = plan.steps.find(
    (step, i) => step.kind === 'wait-ready' && steps[i]?.mark !== 'done',
  );
  if (next?.kind !== 'wait-ready') return new Map();
  return new Map(
    waysOf(plan).flatMap(({ target }, i): [string, string][] => {
      const id = next.jobIds[i];
      return id === undefined ? [] : [[target, id]];
    }),
  );
}
