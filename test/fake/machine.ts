// The state of one fake QEMU process that its commands work on, and the pump that moves its jobs.

import type { RunState, VersionInfo } from '../../src/qapi/replies.js';
import { hasCommand, problemWithEvent, type Schema } from '../../src/qapi/schema.js';
import type { AnyEvent } from '../../src/qapi/types.js';
import { Graph, Refusal, imageOf, type Node } from './graph.js';
import type { FakeGuest, GuestDisks } from './guest.js';
import { FakeJob, type Health, type JobSpec } from './job.js';
import type { FakeStorage } from './storage.js';

export interface MachineOptions {
  readonly name: string;
  readonly storage: FakeStorage;
  readonly schema: Schema;
  readonly guest: FakeGuest | null;
  readonly state: RunState;
  /** Clusters that a job copies in one tick. */
  readonly unitsPerTick: number;
}

export class Machine {
  readonly options: MachineOptions;
  readonly storage: FakeStorage;
  readonly graph: Graph;
  readonly jobs = new Map<string, FakeJob>();
  readonly health = new Map<string, Health>();
  readonly throttles = new Map<string, Readonly<Record<string, unknown>>>();
  /** Jobs of these ids copy nothing until released: "the copy takes long". */
  readonly held = new Set<string>();
  readonly events: ((event: AnyEvent) => void)[] = [];
  /** Whether QEMU is of 8.2 or later, as far as replies differ. */
  readonly isModern: boolean;
  readonly version: VersionInfo;
  runState: RunState;
  onShutdown: 'poweroff' | 'pause' = 'poweroff';
  alive = true;
  private pumping = false;
  private clock = 1_700_000_000;

  constructor(options: MachineOptions) {
    this.options = options;
    this.storage = options.storage;
    this.runState = options.state;
    this.isModern = hasCommand(options.schema, 'block-job-change');
    const qemu = this.isModern
      ? { major: 10, minor: 0, micro: 2 }
      : { major: 7, minor: 2, micro: 22 };
    this.version = { qemu, package: 'fake' };
    this.graph = new Graph(options.storage, options.name, (node) => this.useOf(node));
  }

  get isRunning(): boolean {
    return this.alive && this.runState === 'running';
  }

  readonly emit = (event: string, data: Readonly<Record<string, unknown>> = {}): void => {
    const wrong = problemWithEvent(this.options.schema, event, data);
    if (wrong !== null) throw new Error(`the fake's event ${event} is not QEMU's: ${wrong}`);
    const timestamp = { seconds: this.clock++, microseconds: 0 };
    // Checked against the schema just above, so it is JSON.
    for (const listener of [...this.events])
      listener({ event, data: data as AnyEvent['data'], timestamp });
  };

  job(id: string, notFound: () => Refusal = () => new Refusal('Job not found')): FakeJob {
    const job = this.jobs.get(id);
    if (job === undefined) throw notFound();
    return job;
  }

  startJob(spec: JobSpec): void {
    const job: FakeJob = new FakeJob(spec, this.emit, () => void this.jobs.delete(spec.id));
    this.jobs.set(spec.id, job);
  }

  /** Lets every job and the guest go on one little step. */
  tick(): void {
    if (!this.alive) return;
    this.guestStep();
    for (const job of [...this.jobs.values()]) {
      if (this.held.has(job.spec.id)) continue;
      job.tick(this.options.unitsPerTick, this.healthOf(job));
      if (job.drains && this.isRunning && job.spec.standing && !job.endsInPlace)
        this.storage.rude(`${job.spec.id} is ${job.status} and holds the running guest (law 4)`);
    }
  }

  /** Ticks from the event loop for as long as some job has something to do. */
  pump(): void {
    if (this.pumping || !this.alive || ![...this.jobs.values()].some((job) => this.canMove(job)))
      return;
    this.pumping = true;
    setImmediate(() => {
      this.pumping = false;
      this.tick();
      this.pump();
    });
  }

  guestStep(): void {
    if (this.isRunning) this.options.guest?.step(this.guestDisks);
  }

  readonly guestDisks: GuestDisks = {
    write: (disk, block, value) => {
      const root = this.graph.roots.get(disk);
      if (root === undefined || this.isHeld(root)) return 'held';
      this.graph.write(root, block, value);
      return 'done';
    },
    flush: (disk) => {
      const root = this.graph.roots.get(disk);
      if (root === undefined || this.isHeld(root)) return 'held';
      this.graph.flush(root);
      return 'done';
    },
  };

  /** Every drain of a node that a job stands on makes the job flap. */
  drain(): void {
    for (const job of this.jobs.values()) job.flap();
  }

  flushAll(): void {
    for (const node of this.graph.nodes.values()) {
      const image = imageOf(node);
      if (image !== null && node.file !== null && !node.readOnly) this.storage.flush(image);
    }
  }

  healthOf(job: FakeJob): Health {
    for (const node of job.spec.held) {
      const path = node.file?.filename ?? node.filename ?? '';
      const health = this.health.get(path);
      if (health !== undefined) return health;
    }
    return 'ok';
  }

  /** The jobs whose target answers nothing. */
  hung(): readonly FakeJob[] {
    return [...this.jobs.values()].filter((job) => !job.isOver && this.healthOf(job) === 'hung');
  }

  private canMove(job: FakeJob): boolean {
    const works = job.status === 'running' || job.status === 'ready';
    const stuck = job.paused || this.held.has(job.spec.id) || this.healthOf(job) === 'hung';
    return works && !stuck && job.hasWork;
  }

  /** A pending job drains its disk; a write-blocking mirror to a hung target holds every write. */
  private isHeld(root: Node): boolean {
    return [...this.jobs.values()].some((job) => {
      const isBelow = job.spec.blocked.some((node) => node === root || root.backing === node);
      const hangs = job.spec.copyMode === 'write-blocking' && this.healthOf(job) === 'hung';
      return isBelow && !job.isOver && (job.drains || hangs);
    });
  }

  private useOf(node: Node): { type: string; role: 'blocked' | 'held' } | null {
    for (const job of this.jobs.values()) {
      if (job.isOver) continue;
      if (job.spec.blocked.includes(node)) return { type: job.spec.type, role: 'blocked' };
      if (job.spec.held.includes(node)) return { type: job.spec.type, role: 'held' };
    }
    return null;
  }
}
