// The pace of mirrors that are a move's copy: QAPI `block-job-set-speed`, and `job-pause`, for 0 is no limit there.

import { queryJobs } from '../../qmp/jobs.js';
import type { Job } from '../../qmp/jobs.js';
import type { Monitor } from '../../qmp/monitor.js';
import { QemuError } from '../../std/errors.js';
import type { CopyPace } from '../effect.js';

export class MirrorPace {
  private readonly monitor: Monitor;
  private readonly ids: readonly string[];
  private said: CopyPace | null = null;

  constructor(monitor: Monitor, ids: readonly string[]) {
    this.monitor = monitor;
    this.ids = ids;
  }

  /** Null: as planned. A job that an error paused is let go on by who looks after those (law 11), not here. */
  async follow(pace: CopyPace | null): Promise<void> {
    if (pace === null || isSame(pace, this.said)) return;
    const jobs = await queryJobs(this.monitor);
    const told = await Promise.all(
      this.ids.map(async (id) => await this.tell(id, jobs.get(id), pace)),
    );
    if (told.every((isTold) => isTold)) this.said = pace;
  }

  /** READY: what is left now is what the guest writes, and a limit would only make the pivot's pause longer. */
  async free(): Promise<void> {
    const jobs = await queryJobs(this.monitor);
    for (const id of this.ids)
      if ((jobs.get(id)?.block?.speed ?? 0n) > 0n && takesSpeed(jobs.get(id)))
        await this.monitor.execute('block-job-set-speed', { device: id, speed: 0n });
  }

  /** False: not just now; every drain has it stand still for a moment, and then it takes no such word. */
  private async tell(id: string, job: Job | undefined, pace: CopyPace): Promise<boolean> {
    if (job?.block == null || job.block['io-status'] !== 'ok' || !takesSpeed(job)) return false;
    // What is said is said of all of them together; 0 would be no limit.
    const share = (pace.limitBytesPerSecond ?? 0n) / BigInt(this.ids.length);
    const speed = pace.limitBytesPerSecond === null || share > 0n ? share : 1n;
    const isPaused = job.info.status === 'paused' || job.info.status === 'standby';
    try {
      await this.monitor.execute('block-job-set-speed', { device: id, speed });
      if (pace.isPaused && !isPaused) await this.monitor.execute('job-pause', { id });
      if (!pace.isPaused && isPaused) await this.monitor.execute('job-resume', { id });
      return true;
    } catch (error) {
      if (error instanceof QemuError && error.qmpClass === 'GenericError') return false;
      throw error;
    }
  }
}

/** QEMU's JobVerbTable. */
const takesSpeed = (job: Job | undefined): boolean =>
  ['created', 'running', 'paused', 'ready', 'standby'].includes(job?.info.status ?? 'null');

const isSame = (a: CopyPace, b: CopyPace | null): boolean =>
  a.limitBytesPerSecond === b?.limitBytesPerSecond && a.isPaused === b.isPaused;
