// Waiting for jobs. The state of a job is what `query-jobs` says; events only say "look again", because they
// may be missed by a reconnect, and because `stop` makes a job flap between ready and standby dozens of times.
//
//   created ─► running ⇄ paused ─► ready ⇄ standby ─► waiting ─► pending ─► concluded ─► null
//                                                        └─► aborting ─► concluded

import type { BlockJobInfo, JobInfo, JobStatus } from '../qapi/replies.js';
import type { AnyEvent, EventName, EventOf } from '../qapi/types.js';
import { BusyError, QemuError } from '../std/errors.js';
import type { Stream } from '../std/queue.js';
import type { ExecuteOptions, Monitor } from './monitor.js';

/** A job, whichever command tells of it. */
export interface Job {
  readonly info: JobInfo;
  /** null for jobs that are not block jobs, e.g. `blockdev-create`. */
  readonly block: BlockJobInfo | null;
}

/** The part of a monitor that waiting needs. */
export type JobMonitor = Pick<Monitor, 'execute' | 'events'>;

/** All jobs of this QEMU by id, concluded ones that await `job-dismiss` included. */
export async function queryJobs(
  monitor: JobMonitor,
  options: ExecuteOptions = {},
): Promise<ReadonlyMap<string, Job>> {
  const [infos, blocks] = await Promise.all([
    monitor.execute('query-jobs', {}, options),
    monitor.execute('query-block-jobs', {}, options),
  ]);
  return new Map(
    infos.map((info) => {
      const block = blocks.find((one) => one.device === info.id) ?? null;
      return [info.id, { info, block }];
    }),
  );
}

/** A look just before the end of the waiting must not make a QEMU that answers in milliseconds one that is silent. */
const ANSWER_TIMEOUT_MS = 3000;

/** As `waitJobs`, for one job. */
export async function waitJob(
  monitor: JobMonitor,
  id: string,
  statuses: readonly JobStatus[],
  timeoutMs: number,
): Promise<Job> {
  const jobs = await waitJobs(monitor, [id], statuses, timeoutMs);
  const job = jobs.get(id);
  if (job === undefined) throw lostJob(id);
  return job;
}

/**
 * Resolves once every one of the jobs is in one of `statuses`, with the jobs as they are then.
 *
 * A job that concluded for good or for bad resolves when `concluded` is among the statuses: look at
 * `info.error`. When it is not, a job that is aborting or concluded, or that is no more, ends the waiting.
 *
 * @throws {QemuError} class JobFailed or JobGone: the statuses cannot be reached any more.
 * @throws {CommandError} class NoAnswer: QEMU itself did not answer, within `timeoutMs` or 3 s where that is more.
 * @throws {BusyError} not so within `timeoutMs`; the message has each job's last status and io-status.
 * @throws {QemuError} class JobStalled, if `stalls` says so: an error of its target paused one of those still waited for.
 */
export async function waitJobs(
  monitor: JobMonitor,
  ids: readonly string[],
  statuses: readonly JobStatus[],
  timeoutMs: number,
  stalls: 'wait' | 'throw' = 'wait',
): Promise<ReadonlyMap<string, Job>> {
  const end = performance.now() + timeoutMs;
  using changes = monitor.events(['JOB_STATUS_CHANGE', 'BLOCK_JOB_READY', 'BLOCK_JOB_ERROR']);
  for (;;) {
    const left = Math.max(ANSWER_TIMEOUT_MS, end - performance.now());
    const jobs = await queryJobs(monitor, { timeoutMs: left });
    const waiting = ids.filter((id) => !has(jobs.get(id), id, statuses));
    if (waiting.length === 0) return jobs;
    if (stalls === 'throw') for (const id of waiting) refuseStalled(jobs.get(id));
    const changed = await nextWithin(changes, end - performance.now());
    if (!changed) throw tooLate(jobs, waiting, statuses, timeoutMs);
    // One look answers all the events that lie there: a flapping job costs one query, not dozens.
    while (changes.length > 0) await changes.next();
  }
}

/** The first event of the stream that `accept` takes, or a BusyError after `timeoutMs`. */
export async function firstEvent<E extends EventName>(
  stream: Stream<EventOf<E>>,
  accept: (event: EventOf<E>) => boolean,
  timeoutMs: number,
): Promise<EventOf<E>> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const found = await nextWithin(stream, end - performance.now());
    if (!found) throw new BusyError(`qmp events: not the one waited for within ${timeoutMs} ms`);
    if (accept(found)) return found;
  }
}

function has(job: Job | undefined, id: string, statuses: readonly JobStatus[]): boolean {
  if (job === undefined) {
    if (statuses.includes('null')) return true;
    throw lostJob(id);
  }
  const { status, error } = job.info;
  if (statuses.includes(status)) return true;
  const over = status === 'aborting' || status === 'concluded' || status === 'null';
  if (!over || (status === 'aborting' && statuses.includes('concluded'))) return false;
  const message = `qmp job ${id}: it is ${status}${error === undefined ? '' : `: ${error}`}, and was awaited ${statuses.join(' or ')}`;
  throw new QemuError(message, { qmpClass: 'JobFailed' });
}

function refuseStalled(job: Job | undefined): void {
  const io = job?.block?.['io-status'] ?? 'ok';
  if (job === undefined || io === 'ok') return;
  throw new QemuError(
    `qmp job ${job.info.id}: an error of its target paused it (io-status ${io})`,
    { qmpClass: 'JobStalled' },
  );
}

const lostJob = (id: string): QemuError =>
  new QemuError(`qmp job ${id}: there is no such job in QEMU (dismissed, or never started)`, {
    qmpClass: 'JobGone',
  });

function tooLate(
  jobs: ReadonlyMap<string, Job>,
  waiting: readonly string[],
  statuses: readonly JobStatus[],
  timeoutMs: number,
): BusyError {
  const states = waiting.map((id) => {
    const job = jobs.get(id);
    const io = job?.block?.['io-status'] ?? 'ok';
    return `${id} is ${job?.info.status ?? 'gone'}${io === 'ok' ? '' : ` (io-status ${io})`}`;
  });
  return new BusyError(
    `qmp jobs: not ${statuses.join(' or ')} within ${timeoutMs} ms: ${states.join(', ')}`,
  );
}

/** The next event, or null when none came in time. A stream left by a timeout must not be read again. */
async function nextWithin<T extends Pick<AnyEvent, 'event'>>(
  stream: Stream<T>,
  timeoutMs: number,
): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), Math.max(0, timeoutMs));
  });
  try {
    const result = await Promise.race([stream.next(), expired]);
    return result === null || result.done === true ? null : result.value;
  } finally {
    clearTimeout(timer);
  }
}
