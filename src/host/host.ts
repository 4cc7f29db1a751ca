// One host: its domains, one lock each, the operations that run, and what is done when QEMU tells something. The verbs
// stand in `*-verbs.ts`; they plan, and `operate` runs.

import { effects } from '../job/effects/index.js';
import type { StepProgress } from '../job/runner.js';
import { perform, resolve, resume } from '../job/runner.js';
import type { Outcome, RunnerDeps } from '../job/runner.js';
import type { Resolution } from '../job/resolve.js';
import type { DomainWorld } from '../job/world.js';
import type { OperationRecord } from '../journal/journal.js';
import type { Plan, Refusal } from '../plan/step.js';
import type { AnyEvent, Schema } from '../qmp/monitor.js';
import { JournalError, NotFoundError, messageOf } from '../std/errors.js';
import type { DomainRecord } from '../domain/record.js';
import type { EmulatorFacts } from './emulator.js';
import { Ages } from './ages.js';
import type { HostContext } from './context.js';
import { FuseWatch } from './fuse-watch.js';
import { Guest } from './guest.js';
import { Interrupted } from './interrupted.js';
import { Keeper } from './keeper.js';
import { Operations } from './operations.js';
import { Paces } from './paces.js';
import { Pivots } from './pivots.js';
import { resumeMoves, rotationOf, takeUpLater } from './owed.js';
import { rotateWhatGrew } from './rotate.js';
import { reconcile } from './reconcile.js';
import { Sources } from './sources.js';
import { Watchers } from './watching/watchers.js';
import { Windows } from './windows.js';

/** An operation that runs in this daemon. */
export interface Running {
  readonly id: number;
  readonly plan: Plan;
  readonly abort: AbortController;
  /** Null between steps. */
  progress: StepProgress | null;
  /** Resolves when it is over, however it went. */
  readonly settled: Promise<void>;
}

export interface Started {
  readonly operation: number;
  readonly ended: Promise<void>;
}

/** QEMU's events after which its state is looked at; the flood of the others is nobody's news. */
const news: ReadonlySet<string> = new Set([
  'BLOCK_JOB_READY',
  'BLOCK_JOB_COMPLETED',
  'BLOCK_JOB_CANCELLED',
  'SHUTDOWN',
  'STOP',
  'RESUME',
  'RESET',
  'BLOCK_IO_ERROR',
  'BLOCK_JOB_ERROR',
  'GUEST_PANICKED',
  'WATCHDOG',
]);

export class Host {
  readonly context: HostContext;
  readonly emulator: EmulatorFacts;
  /** Of this host, kept in its state directory. */
  readonly uuid: string;
  /** Operations by number, while they run. */
  readonly running = new Map<number, Running>();
  /** Domains that are being sealed: their guest's poweroff is an end, whatever `<on_poweroff>` says. */
  readonly sealing = new Set<string>();
  /** Names of domains that are being created. */
  readonly claims = new Map<string, string>();
  readonly operations: Operations;
  readonly paces: Paces;
  readonly pivots: Pivots;
  readonly interrupted = new Interrupted(this);
  readonly keeper = new Keeper(this);
  readonly watchers = new Watchers(this);
  readonly sources = new Sources(this);
  readonly ages = new Ages(this);
  readonly fuseWatch = new FuseWatch(this);
  readonly windows = new Windows(this);
  private readonly guests = new Map<string, Guest>();
  private readonly schemas = new Map<string, Promise<Schema>>();
  private readonly looking = new Map<string, { again: boolean }>();
  private readonly passers = new Set<(uuid: string, event: AnyEvent) => void>();
  private readonly takingUp = new Set<string>();
  private closed = false;

  constructor(context: HostContext, emulator: EmulatorFacts, uuid: string) {
    this.uuid = uuid;
    this.context = context;
    this.operations = new Operations(context.known.journal);
    this.paces = new Paces(context.known.journal);
    this.pivots = new Pivots(context.known.journal);
    this.emulator = emulator;
  }

  get known() {
    return this.context.known;
  }

  get log() {
    return this.context.config.log;
  }

  get nowSeconds(): number {
    return Math.floor(this.context.config.nowMs() / 1000);
  }

  guestOf(uuid: string): Guest {
    let guest = this.guests.get(uuid);
    if (guest === undefined) {
      const listener = {
        onNews: (g: Guest, event: AnyEvent) => this.onNews(g, event),
        onGone: (g: Guest) => void this.look(g.uuid),
      };
      guest = new Guest(uuid, this.context, listener, this.schemas);
      this.guests.set(uuid, guest);
    }
    return guest;
  }

  /** How many domains are at hand: those that are known, and those that something still goes on about. */
  get guestCount(): number {
    return this.guests.size;
  }

  /** By name, by UUID, or by the id of a running domain, as a user types it. */
  resolve(name: string): DomainRecord {
    const record =
      this.known.named(name) ??
      this.known.find(name.toLowerCase()) ??
      this.known.all().find((domain) => domain.live !== null && String(domain.live.id) === name) ??
      null;
    if (record === null)
      throw new NotFoundError('NO_DOMAIN', `no domain with matching name '${name}'`, {
        next: ['ferry list --all'],
      });
    return record;
  }

  /** Plans under the domain's lock and runs to the end. Throws the refusal, or what turned the operation round. */
  async operate(
    uuid: string,
    planned: (record: DomainRecord | null) => Promise<Plan | Refusal> | Plan | Refusal,
  ): Promise<void> {
    const { ended } = await this.begin(uuid, planned);
    await ended;
  }

  /** Resolves as soon as the operation is journaled; `ended` tells how it went. */
  async begin(
    uuid: string,
    planned: (record: DomainRecord | null) => Promise<Plan | Refusal> | Plan | Refusal,
  ): Promise<Started> {
    const guest = this.guestOf(uuid);
    const abort = new AbortController();
    let plan: Plan | null = null;
    let running: Running | null = null;
    let announce: (operation: number) => void = () => undefined;
    const announced = new Promise<number>((resolve) => (announce = resolve));
    const onProgress = (progress: StepProgress): void => {
      if (running === null && plan !== null) {
        running = { id: progress.operation, plan, abort, progress, settled };
        this.running.set(progress.operation, running);
        announce(progress.operation);
      }
      if (running !== null) running.progress = progress;
      this.watchers.onStep(uuid, progress);
      this.operations.refreshSoon(progress.operation);
      if (progress.report === null) this.log.debug({ domain: uuid, ...progress }, 'step');
    };
    const planIt = async (): Promise<Plan | Refusal> => {
      this.interrupted.check(uuid);
      const made = await planned(this.known.find(uuid));
      if (!('refusal' in made)) {
        plan = made;
        guest.doing = made.operation;
      }
      return made;
    };
    const performed = perform(planIt, this.deps(guest, abort.signal, onProgress));
    const ended = performed.then(
      ({ operation, outcome }) => this.settle(uuid, operation, outcome),
      async (error: unknown) => {
        // One that was interrupted before its first step is there as well, and whoever is told of it looks for it.
        const id = running?.id ?? (error instanceof JournalError ? error.operation : null);
        if (id !== null) {
          this.running.delete(id);
          await this.operations.refresh(id);
        }
        this.interrupted.trouble(error);
        if (plan !== null) void this.look(uuid);
        this.letGo(uuid);
        throw error;
      },
    );
    // Whoever only wants the number does not wait for the end.
    const settled = ended.catch(() => undefined);
    const operation = await Promise.race([announced, performed.then((p) => p.operation)]);
    return { operation, ended };
  }

  /**
   * Goes on with an operation that a former daemon left open, or that waited; or, once aborted, takes it back.
   * `turn` is the runner's.
   */
  async resumeOperation(
    { id, plan }: OperationRecord,
    {
      abort = new AbortController(),
      turn,
    }: { readonly abort?: AbortController; readonly turn?: RunnerDeps<DomainWorld>['turn'] } = {},
  ): Promise<void> {
    // Two lives of one operation would undo each other's work: a rotation that ends sets its move going, and so does
    // whoever waited for that rotation.
    const going = this.running.get(id);
    if (going !== undefined) return await going.settled;
    await this.goOn(id, plan, abort, async (deps) => {
      return await resume(id, plan, turn === undefined ? deps : { ...deps, turn });
    });
  }

  /** Goes on as a person says. Resolves when his word is durable; how it ends is the operation's own news. */
  async resolveOperation({ id, plan }: OperationRecord, resolution: Resolution): Promise<void> {
    await new Promise<void>((written, refused) => {
      const work = async (deps: RunnerDeps<DomainWorld>): Promise<Outcome> => {
        const { ended } = await resolve(id, plan, resolution, deps);
        written();
        return await ended;
      };
      this.goOn(id, plan, new AbortController(), work).catch((error: unknown) => {
        // After his word was written this comes to nobody here: the journal has it, and so does the log.
        this.log.warn({ operation: id, error: messageOf(error) }, 'resolve');
        refused(error);
      });
    });
  }

  private async goOn(
    id: number,
    plan: Plan,
    abort: AbortController,
    work: (deps: RunnerDeps<DomainWorld>) => Promise<Outcome>,
  ): Promise<void> {
    const guest = this.guestOf(plan.domain);
    const onProgress = (progress: StepProgress): void => {
      const running = this.running.get(id);
      if (running !== undefined) running.progress = progress;
      this.operations.refreshSoon(id);
    };
    guest.doing = plan.operation;
    // A job of it may stand still since the former daemon's time.
    this.keeper.watch(plan.domain);
    const outcome = work(this.deps(guest, abort.signal, onProgress));
    const settled = outcome.then(
      () => undefined,
      () => undefined,
    );
    this.running.set(id, { id, plan, abort, progress: null, settled });
    try {
      await this.settle(plan.domain, id, await outcome);
    } finally {
      this.running.delete(id);
      await this.operations.refresh(id);
      this.letGo(plan.domain);
    }
  }

  /** Runs `body` alone on the domain. For looks that may turn into a plan of their own, which they make outside. */
  async alone<T>(uuid: string, body: () => Promise<T>): Promise<T> {
    return await this.guestOf(uuid).lock.run(body);
  }

  /** Looks at a domain's QEMU soon, once for all that happens meanwhile. Resolves after a look; never rejects. */
  async look(uuid: string): Promise<void> {
    const under = this.looking.get(uuid);
    if (under !== undefined) {
      under.again = true;
      return;
    }
    if (this.closed) return;
    const mine = { again: false };
    this.looking.set(uuid, mine);
    await reconcile(this, uuid)
      .catch((error: unknown) => {
        this.interrupted.look(uuid, error);
        this.log.error({ domain: uuid, error: messageOf(error) }, 'look at QEMU failed');
      })
      .finally(() => {
        this.looking.delete(uuid);
        if (mine.again) void this.look(uuid);
        this.letGo(uuid);
      });
  }

  /** Every event of every QEMU, as it came. */
  onQemuEvent(listener: (uuid: string, event: AnyEvent) => void): () => void {
    this.passers.add(listener);
    return () => this.passers.delete(listener);
  }

  /** Tries now and then to take up what is owed to domains that run (`ferry start --mirror-later`). */
  retryOwed(everyMs: number): void {
    const timer = setInterval(() => {
      for (const { uuid, live, owed } of this.known.all())
        if (live !== null && owed.length > 0 && !this.takingUp.has(uuid)) void this.takeUp(uuid);
    }, everyMs);
    timer.unref();
  }

  private async takeUp(uuid: string): Promise<void> {
    this.takingUp.add(uuid);
    await takeUpLater(this, uuid)
      .catch((error: unknown) =>
        this.log.error({ domain: uuid, error: messageOf(error) }, 'taking a mirror up failed'),
      )
      .finally(() => this.takingUp.delete(uuid));
  }

  /** Keeps the live layers of moves small (design §5, epoch rotation). */
  watchMoves(everyMs: number): void {
    let isLooking = false;
    const timer = setInterval(() => {
      if (isLooking || this.running.size === 0) return;
      isLooking = true;
      void rotateWhatGrew(this)
        .catch((error: unknown) =>
          this.log.error({ error: messageOf(error) }, 'looking at moves failed'),
        )
        .finally(() => (isLooking = false));
    }, everyMs);
    timer.unref();
  }

  /** Lets go of every QEMU; the guests go on, the journal is not closed. */
  async close(): Promise<void> {
    this.closed = true;
    this.interrupted.close();
    this.keeper.close();
    this.watchers.close();
    this.sources.close();
    this.ages.close();
    this.fuseWatch.close();
    this.windows.close();
    await Promise.all([...this.guests.values()].map((guest) => guest.detach()));
  }

  /** Of a transient domain that ended, or one that never came to be, nothing stays once nothing goes on about it. */
  private letGo(uuid: string): void {
    const guest = this.guests.get(uuid);
    const runs = [...this.running.values()].some(({ plan }) => plan.domain === uuid);
    if (guest === undefined || guest.isBusy || runs) return;
    if (this.known.find(uuid) !== null || this.looking.has(uuid)) return;
    this.guests.delete(uuid);
    guest.detach().catch((error: unknown) => {
      this.log.warn({ domain: uuid, error: messageOf(error) }, 'monitor did not close');
    });
  }

  private deps(guest: Guest, signal: AbortSignal, onProgress: (progress: StepProgress) => void) {
    return {
      journal: this.known.journal,
      effects,
      world: guest.world(),
      lock: guest.lock,
      signal,
      obstacle: async () => rotationOf(await this.known.journal.openOperations(), guest.uuid),
      pace: (operation: number) => this.paces.of(operation),
      isPivotSaid: (operation: number) => this.pivots.isSaid(operation),
      isGone: async () => (await guest.monitor()) === null || this.isOwed(guest.uuid),
      onProgress,
      onInterrupted: (error: JournalError) => this.interrupted.operation(guest.uuid, error),
    };
  }

  /** Its move's mirror is put off although it runs: to the move that is as good as no QEMU. */
  private isOwed(uuid: string): boolean {
    return this.known.find(uuid)?.owed.some(({ record }) => record.move) === true;
  }

  private async settle(uuid: string, operation: number, outcome: Outcome): Promise<void> {
    await this.operations.refresh(operation);
    // Who waits for a move that deletes its source waits for that too.
    await this.sources.ended(this.operations.get(operation));
    this.running.delete(operation);
    if (this.operations.get(operation).kind === 'rotate') await resumeMoves(this, uuid);
    const { pauses, endedAtMs, plan } = this.operations.get(operation);
    if (endedAtMs !== null) {
      await this.paces.forget(operation);
      await this.pivots.forget(operation);
    }
    if (endedAtMs !== null && Windows.concerns(plan)) await this.windows.see(uuid);
    this.log.info({ domain: uuid, operation, outcome: outcome.outcome, pauses }, 'operation ended');
    void this.look(uuid);
    if (outcome.outcome === 'rolled-back') throw outcome.error;
  }

  private onNews(guest: Guest, event: AnyEvent): void {
    for (const listener of this.passers) listener(guest.uuid, event);
    if (event.event === 'BLOCK_JOB_ERROR') this.keeper.watch(guest.uuid);
    if (news.has(event.event)) void this.look(guest.uuid);
  }
}
