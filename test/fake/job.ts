// The fake's jobs: QEMU's status machine, and the copying that mirror, commit and stream do.
//
//   created ─► running ─► ready ─► waiting ─► pending ─► concluded ─► null
//                 │         │ ⇅ standby         │
//                 └─────────┴──── aborting ◄────┘ (cancelled, failed) ─► concluded
//
// Jobs move by `tick`, a few clusters at a time; commands on them act at once.

import type { JobStatus, JobType, MirrorCopyMode, OnError } from '../../src/qapi/replies.js';
import { Refusal, type Node } from './graph.js';

/** How the target of a job behaves. A hung one answers nothing at all. */
export type Health = 'ok' | 'failed' | 'nospace' | 'hung';

export interface JobSpec {
  readonly id: string;
  readonly type: JobType;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  readonly onTargetError: OnError;
  readonly blocked: readonly Node[];
  readonly held: readonly Node[];
  /** Whether it stays in step once done, until somebody completes it. */
  readonly standing: boolean;
  /** What is left to copy, by unit; guest writes add to it. */
  readonly dirty: Set<number>;
  copyMode: MirrorCopyMode;
  readonly copyUnit: (unit: number) => void;
  /** Before pending: the target is brought up to date and flushed. */
  readonly settle: () => void;
  /** Changes the graph at the end: `pivot` for a job completed or without a ready state. */
  readonly end: (how: 'pivot' | 'stay' | 'abort') => void;
}

export type Emit = (event: string, data: Readonly<Record<string, unknown>>) => void;

/** Which verbs a status takes: QEMU's JobVerbTable. */
const verbs: Readonly<Record<string, readonly JobStatus[]>> = {
  cancel: ['created', 'running', 'paused', 'ready', 'standby', 'waiting', 'pending'],
  pause: ['created', 'running', 'paused', 'ready', 'standby'],
  resume: ['created', 'running', 'paused', 'ready', 'standby'],
  'set-speed': ['created', 'running', 'paused', 'ready', 'standby'],
  complete: ['ready', 'standby'],
  finalize: ['pending'],
  dismiss: ['concluded'],
};

export type Verb =
  | 'cancel'
  | 'pause'
  | 'resume'
  | 'set-speed'
  | 'complete'
  | 'finalize'
  | 'dismiss';

export class FakeJob {
  readonly spec: JobSpec;
  status: JobStatus = 'undefined';
  error: string | null = null;
  paused = false;
  ioStatus: 'ok' | 'failed' | 'nospace' = 'ok';
  speed = 0n;
  doneUnits = 0;
  /** A cancel that was accepted while the target hung. */
  cancelLater: 'soft' | 'hard' | null = null;
  private ending: 'pivot' | 'stay' | null = null;
  private readonly emit: Emit;
  private readonly forget: () => void;

  constructor(spec: JobSpec, emit: Emit, forget: () => void) {
    this.spec = spec;
    this.emit = emit;
    this.forget = forget;
    this.become('created');
    this.become('running');
  }

  get isReady(): boolean {
    return this.status === 'ready' || this.status === 'standby';
  }

  /** Whether the guest's I/O waits for this job. */
  get drains(): boolean {
    return this.status === 'pending' || this.status === 'waiting';
  }

  get isOver(): boolean {
    return this.status === 'concluded' || this.status === 'aborting' || this.status === 'null';
  }

  /** Whether a tick would change anything. */
  get hasWork(): boolean {
    return this.spec.dirty.size > 0 || this.ending !== null || this.status === 'running';
  }

  /** Whether it was cancelled softly: its end leaves the root where it is. */
  get endsInPlace(): boolean {
    return this.ending === 'stay';
  }

  accept(verb: Verb): void {
    if (verbs[verb]?.includes(this.status) === true) return;
    throw new Refusal(
      `Job '${this.spec.id}' in state '${this.status}' cannot accept command verb '${verb}'`,
    );
  }

  complete(): void {
    this.accept('complete');
    this.ending = 'pivot';
  }

  /** `force` null: `job-cancel`, always hard. A soft cancel of a ready job ends it with a consistent target. */
  cancel(how: 'soft' | 'hard'): void {
    this.accept('cancel');
    if (how === 'soft' && this.paused)
      throw new Refusal(`The block job for device '${this.spec.id}' is currently paused`);
    if (how === 'soft' && this.spec.standing && this.isReady) {
      this.ending = 'stay';
      return;
    }
    this.abort('Operation canceled', 'BLOCK_JOB_CANCELLED');
  }

  pause(): void {
    this.accept('pause');
    if (this.paused) throw new Refusal('Job is already paused');
    this.paused = true;
    this.become(this.status === 'ready' ? 'standby' : 'paused');
  }

  resume(): void {
    this.accept('resume');
    if (!this.paused) throw new Refusal("Can't resume a job that was not paused");
    this.paused = false;
    this.ioStatus = 'ok';
    this.become(this.status === 'standby' ? 'ready' : 'running');
  }

  finalize(): void {
    this.accept('finalize');
    this.spec.end(this.ending ?? 'pivot');
    this.emit('BLOCK_JOB_COMPLETED', this.progress());
    this.conclude();
  }

  dismiss(): void {
    this.accept('dismiss');
    this.become('null');
    this.forget();
  }

  fail(error: string): void {
    this.error = error;
    this.become('aborting');
    this.spec.end('abort');
    this.emit('BLOCK_JOB_COMPLETED', { ...this.progress(), error });
    this.conclude();
  }

  abort(error: string, event: 'BLOCK_JOB_CANCELLED'): void {
    this.error = error;
    this.become('aborting');
    this.spec.end('abort');
    this.emit(event, this.progress());
    this.conclude();
  }

  /** What every drain does to a ready job: seen as dozens of events, and meaning nothing. */
  flap(): void {
    if (this.status !== 'ready') return;
    this.become('standby');
    this.become('ready');
  }

  /** Copies up to `units`, and goes on to the next status when there is nothing left. */
  tick(units: number, health: Health): void {
    const works = this.status === 'running' || this.status === 'ready';
    if (!works || this.paused || health === 'hung') return;
    if (this.spec.dirty.size > 0 && health !== 'ok') return this.targetFailed(health);

    for (const unit of [...this.spec.dirty].slice(0, units)) {
      this.spec.dirty.delete(unit);
      try {
        this.spec.copyUnit(unit);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        return this.fail(error.message);
      }
      this.doneUnits++;
    }
    if (this.spec.dirty.size > 0) return;
    if (this.spec.standing && this.status === 'running') this.becomeReady();
    else if (!this.spec.standing || this.ending !== null) this.finishCopy();
  }

  info(): Readonly<Record<string, unknown>> {
    const { id, type } = this.spec;
    const error = this.error === null ? {} : { error: this.error };
    const [done, total] = [this.doneBytes(), this.totalBytes()];
    return {
      id,
      type,
      status: this.status,
      'current-progress': done,
      'total-progress': total,
      ...error,
    };
  }

  blockInfo(): Readonly<Record<string, unknown>> {
    const error = this.error === null ? {} : { error: this.error };
    return {
      type: this.spec.type,
      device: this.spec.id,
      len: this.totalBytes(),
      offset: this.doneBytes(),
      busy: this.status === 'running' && this.spec.dirty.size > 0,
      paused: this.paused || this.drains,
      speed: this.speed,
      'io-status': this.ioStatus,
      ready: this.isReady,
      status: this.status,
      'auto-finalize': this.spec.autoFinalize,
      'auto-dismiss': this.spec.autoDismiss,
      ...error,
    };
  }

  private targetFailed(health: 'failed' | 'nospace'): void {
    const message = health === 'nospace' ? 'No space left on device' : 'Input/output error';
    const stops = this.spec.onTargetError === 'stop';
    this.emit('BLOCK_JOB_ERROR', {
      device: this.spec.id,
      operation: 'write',
      action: stops ? 'stop' : 'report',
    });
    if (!stops) return this.fail(message);
    this.ioStatus = health;
    this.pause();
  }

  private becomeReady(): void {
    this.become('ready');
    this.emit('BLOCK_JOB_READY', this.progress());
  }

  private finishCopy(): void {
    this.spec.settle();
    this.become('waiting');
    this.become('pending');
    if (this.spec.autoFinalize) this.finalize();
    else this.emit('BLOCK_JOB_PENDING', { type: this.spec.type, id: this.spec.id });
  }

  private conclude(): void {
    this.become('concluded');
    if (this.spec.autoDismiss) this.dismiss();
  }

  private progress(): Readonly<Record<string, unknown>> {
    const [offset, len] = [this.doneBytes(), this.totalBytes()];
    return { type: this.spec.type, device: this.spec.id, len, offset, speed: this.speed };
  }

  private doneBytes(): bigint {
    return BigInt(this.doneUnits) * 65536n;
  }

  private totalBytes(): bigint {
    return BigInt(this.doneUnits + this.spec.dirty.size) * 65536n;
  }

  private become(status: JobStatus): void {
    this.status = status;
    this.emit('JOB_STATUS_CHANGE', { id: this.spec.id, status });
  }
}
