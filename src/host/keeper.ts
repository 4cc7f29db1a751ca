// Law 11: a job that an error of its target paused hurts no guest and is kept; it goes on by itself once the cause is
// gone. Nobody else tells that room was made, so the job is let go on from time to time: if the cause is still there it
// pauses again at its next write, and that is all.

import type { MirrorProblem } from '../domain/record.js';
import type { Job, Monitor } from '../qmp/monitor.js';
import { queryJobs } from '../qmp/monitor.js';
import { messageOf } from '../std/errors.js';
import type { Host } from './host.js';

const FIRST_TRY_MS = 1000;
const LONGEST_BETWEEN_MS = 15_000;
/** A target that is still full says so at the first write, long before this. */
const TRIAL_MS = 500;

export class Keeper {
  private readonly host: Host;
  private readonly timers = new Map<string, NodeJS.Timeout>();
  private readonly trials = new Set<string>();
  private readonly found = new Map<string, MirrorProblem>();

  constructor(host: Host) {
    this.host = host;
  }

  /** Looks after the jobs of a domain until none is paused by an error. */
  watch(uuid: string): void {
    if (!this.timers.has(uuid)) this.again(uuid, FIRST_TRY_MS);
  }

  /** Between a try and what comes of it nothing can be said of the job. */
  isTrying(uuid: string, jobId: string): boolean {
    return this.trials.has(`${uuid} ${jobId}`);
  }

  /** Why some job of the domain stands still, as far as it was seen. */
  problem(uuid: string): MirrorProblem | null {
    return this.found.get(uuid) ?? null;
  }

  close(): void {
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.timers.clear();
  }

  private again(uuid: string, delayMs: number): void {
    const run = (): void => {
      this.tryAll(uuid)
        .catch((error: unknown) => {
          this.host.log.debug({ domain: uuid, error: messageOf(error) }, 'paused jobs');
          return null;
        })
        .then((problem) => this.settle(uuid, problem, delayMs))
        .catch((error: unknown) => this.host.log.error({ error: messageOf(error) }, 'keeper'));
    };
    this.timers.set(uuid, setTimeout(run, delayMs).unref());
  }

  private settle(uuid: string, problem: MirrorProblem | null, delayMs: number): void {
    // Closed meanwhile.
    if (!this.timers.delete(uuid)) return;
    if (problem === null) this.found.delete(uuid);
    else {
      this.found.set(uuid, problem);
      this.again(uuid, Math.min(delayMs * 2, LONGEST_BETWEEN_MS));
    }
    void this.host.look(uuid);
  }

  /** What keeps a job from going on; null when none is kept. */
  private async tryAll(uuid: string): Promise<MirrorProblem | null> {
    const { host } = this;
    const monitor = host.known.find(uuid)?.live == null ? null : await host.guestOf(uuid).monitor();
    if (monitor === null) return null;
    for (const [id, job] of await queryJobs(monitor)) {
      if (problemOf(job) !== null) await this.tryOne(monitor, uuid, id);
    }
    const after = [...(await queryJobs(monitor)).values()].map(problemOf);
    return after.find((problem) => problem !== null) ?? null;
  }

  private async tryOne(monitor: Monitor, uuid: string, id: string): Promise<void> {
    const trial = `${uuid} ${id}`;
    this.trials.add(trial);
    try {
      await monitor.execute('job-resume', { id });
      await new Promise((resolve) => setTimeout(resolve, TRIAL_MS));
    } finally {
      this.trials.delete(trial);
    }
  }
}

/** Why an error of its target paused `job`; null when none did. */
export function problemOf(job: Job): MirrorProblem | null {
  const io = job.block?.['io-status'] ?? 'ok';
  if (io === 'ok') return null;
  return io === 'nospace' ? 'no space' : 'I/O error';
}

/** For a person. */
export const problemText: Readonly<Record<MirrorProblem, string>> = {
  'no space': 'no space left on the destination; make room there, it goes on by itself',
  'I/O error': 'the destination answers with I/O errors; mend it, then it goes on by itself',
};
