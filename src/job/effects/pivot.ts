// Law 4: how every job ends that changes the root of a disk. Over all disks of one operation:
//
//   health asked from outside ─ pre-flush ─ stop ─ swing ─ job-complete all ─ all pending ─ job-finalize all
//     ─ all concluded ─ roots checked ─ headers ─┬─ (the runner's one durable record) ─ cont
//                                                └─ on any failure: back to the source, guest goes on
//
// Before finalize every disk can still be cancelled; a crash anywhere inside leaves both image sets complete, because
// the guest stands still. So `do` can be entered again at any point of it: it looks where it is and goes on.

import type { PivotDisk, StepOf } from '../../plan/step.js';
import type { Monitor } from '../../qmp/monitor.js';
import type { Job } from '../../qmp/jobs.js';
import { queryJobs, waitJob, waitJobs } from '../../qmp/jobs.js';
import { present } from '../../std/assert.js';
import { BusyError, QemuError, StateError, messageOf } from '../../std/errors.js';
import type { Effect, EffectContext } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { errorOf } from '../stop.js';
import { ifAlive, isToRun, needMonitor } from '../world.js';
import { freezeUnlessStopped, mayBeFrozen, thaw } from './freeze.js';
import { cancel, startActiveCommit } from './jobs.js';
import { nodesOf, rootsOf } from './nodes.js';

/** Watchdogs: the guest stands still meanwhile, so none of these may be long. */
const STOP_TIMEOUT_MS = 15_000;
const PENDING_TIMEOUT_MS = 10_000;
const CONCLUDED_TIMEOUT_MS = 10_000;
/** How often it is asked again: the guest runs meanwhile. */
const HEALTH_PATIENCE_MS = 20_000;
/** How long a mirror that was made again may take to be in step; the guest runs meanwhile. */
const CATCH_UP_TIMEOUT_MS = 60_000;
/** The guest runs meanwhile. */
const COMMIT_TIMEOUT_MS = 10 * 60_000;
/** Law 9: a target that takes longer to make one fsync durable is not pivoted to now. */
const HEALTH_TIMEOUT_MS = 1000;
/** What lies dirty in the page cache may take its time first; the guest runs meanwhile. */
const SETTLE_TIMEOUT_MS = 30_000;

export const pivot: Effect<StepOf<'pivot'>, DomainWorld> = {
  async do(step, world, context) {
    const { disks } = step;
    const monitor = await world.monitor();
    if (monitor === null) return await commitWithoutQemu(disks, world);
    if (!context.begun) completing.set(monitor, new Set());
    // Begun in a QEMU that died: its domain's next one has made the mirrors again.
    else await catchUp(monitor, disks);
    try {
      await switchOver(monitor, step, world);
    } catch (error) {
      // Once all have switched, on is nearer than back, and from a commit there is no way back: its base has a parent.
      if (await hasSwitched(monitor, disks).catch(() => false)) return;
      // Behind the commit step nobody would undo it, and a guest must never be left standing.
      await backOut(step, world, context).catch((second: unknown) => {
        throw new QemuError(`${messageOf(error)}; and the way back failed: ${messageOf(second)}`, {
          cause: error,
        });
      });
      throw error;
    }
  },
  undo: (step, world, context) => backOut(step, world, context),
  async probe({ disks, quiesce = false }, world) {
    const monitor = await world.monitor();
    if (monitor === null) return 'absent';
    const roots = await rootsOf(monitor);
    if (disks.every((disk) => roots.has(disk.to)))
      return disks.every((disk) => disk.header === null) ? 'done' : 'partial';
    const { status } = await monitor.execute('query-status', {});
    const jobs = await queryJobs(monitor);
    const untouched = disks.every(
      (disk) => roots.has(disk.from) && jobs.get(disk.jobId)?.info.status === 'ready',
    );
    if (!untouched || status !== 'running') return 'partial';
    return quiesce && (await mayBeFrozen(world)) ? 'partial' : 'absent';
  },
  async changes({ window }, _world, { operation }) {
    if (window === undefined) return [];
    const { seconds, ways, trim } = window;
    const untilMs = Date.now() + seconds * 1000;
    return [{ change: 'open-window', window: { operation, untilMs, ways, trim, closing: null } }];
  },
};

async function switchOver(
  monitor: Monitor,
  step: StepOf<'pivot'>,
  world: DomainWorld,
): Promise<void> {
  const { disks } = step;
  const roots = await rootsOf(monitor);
  if (!disks.every((disk) => roots.has(disk.to))) {
    await commitAgain(monitor, disks, roots);
    await prepare(monitor, step, world);
    const isOurs = await isToRun(world);
    const stoppedAt = performance.now();
    await monitor.execute('stop', {}, { timeoutMs: STOP_TIMEOUT_MS });
    if (isOurs) pauses.set(monitor, stoppedAt);
    await complete(monitor, disks, world);
    await checkRoots(monitor, disks);
  }
  await nameBacking(monitor, disks);
}

async function catchUp(monitor: Monitor, disks: readonly PivotDisk[]): Promise<void> {
  const jobs = await queryJobs(monitor);
  const behind = disks.filter(({ jobId }) => {
    const job = jobs.get(jobId);
    return job?.info.status === 'running' && job.block?.ready === false;
  });
  const ids = behind.map(({ jobId }) => jobId);
  if (ids.length === 0) return;
  await waitJobs(monitor, ids, ['ready'], CATCH_UP_TIMEOUT_MS, 'throw').catch((error: unknown) => {
    // What is not in step by then is told of by who looks next.
    if (!(error instanceof BusyError)) throw error;
  });
}

async function hasSwitched(monitor: Monitor, disks: readonly PivotDisk[]): Promise<boolean> {
  const roots = await rootsOf(monitor);
  if (!disks.every((disk) => roots.has(disk.to))) return false;
  await nameBacking(monitor, disks);
  return true;
}

async function nameBacking(monitor: Monitor, disks: readonly PivotDisk[]): Promise<void> {
  for (const disk of disks.filter((d) => d.header !== null)) {
    const { node, names } = present(disk.header, 'filtered');
    await monitor.execute('change-backing-file', {
      device: disk.to,
      'image-node-name': node,
      'backing-file': names,
    });
  }
}

/** When we stopped a guest, by its monitor: `resume-guest` tells how long it stood. */
const pauses = new WeakMap<Monitor, number>();

/** The guest stands still from now on, because of us. */
export function notePauseFrom(monitor: Monitor): void {
  pauses.set(monitor, performance.now());
}
/**
 * Jobs that the pivot under way told to complete, by monitor; no entry: it was begun before, and what it told nobody knows.
 * Such a job is never left to itself: as soon as all is copied it is pending, and holds the writes of a running guest
 * for ever.
 */
const completing = new WeakMap<Monitor, Set<string>>();

export function pauseOf(monitor: Monitor): number | null {
  const since = pauses.get(monitor);
  pauses.delete(monitor);
  return since === undefined ? null : performance.now() - since;
}

/** A commit that a pivot before this one backed out of was cancelled, and behind the commit step nobody else starts it again. */
async function commitAgain(
  monitor: Monitor,
  disks: readonly PivotDisk[],
  roots: ReadonlySet<string>,
): Promise<void> {
  const jobs = await queryJobs(monitor);
  const again = disks.filter((disk) => {
    const info = jobs.get(disk.jobId)?.info;
    const lost = info === undefined || (info.status === 'concluded' && info.error !== undefined);
    return disk.job === 'commit' && lost && !roots.has(disk.to);
  });
  for (const { jobId, from, to } of again) {
    await cancel(monitor, jobId);
    await startActiveCommit(monitor, { jobId, device: from, base: to, filter: `${jobId}-f` });
  }
  const ids = again.map((disk) => disk.jobId);
  if (ids.length > 0) await waitJobs(monitor, ids, ['ready'], COMMIT_TIMEOUT_MS, 'throw');
}

/** While the guest runs: are the jobs fit, is the target alive; and flush, so that `stop` has little to do (11 × shorter). */
async function prepare(
  monitor: Monitor,
  { disks, quiesce = false }: StepOf<'pivot'>,
  world: DomainWorld,
): Promise<void> {
  const { status } = await monitor.execute('query-status', {});
  if (status !== 'running' && status !== 'paused' && status !== 'prelaunch') {
    throw new StateError(
      'OPERATION_INVALID',
      `pivot: the guest is in state '${status}'; bring it back to running or paused first`,
    );
  }
  const jobs = await queryJobs(monitor);
  for (const disk of disks) checkJob(disk, jobs.get(disk.jobId));
  // Found in the middle of it: the guest stands still, and every moment counts.
  if (disks.some((disk) => isBeyondReady(jobs.get(disk.jobId)))) return;
  await Promise.all(disks.map((disk) => untilHealthy(disk, world)));
  // As late as can be: what it flushes goes the way of the pre-flush.
  if (quiesce) await freezeUnlessStopped(world, monitor, status);
  if (status !== 'running') return;
  for (const disk of disks) {
    await monitor.execute(
      'human-monitor-command',
      { 'command-line': `qemu-io ${disk.to} flush` },
      { timeoutMs: STOP_TIMEOUT_MS },
    );
  }
}

/** A storage that is only busy, or a host, answers in time at one of the next questions; one that hangs used up the patience with the first. */
async function untilHealthy(disk: PivotDisk, world: DomainWorld): Promise<void> {
  const end = performance.now() + HEALTH_PATIENCE_MS;
  for (;;) {
    try {
      return await checkHealth(disk, world);
    } catch (error) {
      const isLate = [error, error instanceof Error ? error.cause : null].some(
        (one) => one instanceof BusyError,
      );
      if (!isLate || performance.now() >= end) throw error;
    }
  }
}

const isBeyondReady = (job: Job | undefined): boolean =>
  job !== undefined && ['waiting', 'pending', 'concluded'].includes(job.info.status);

function checkJob(disk: PivotDisk, job: Job | undefined): void {
  const doing = `pivot ${disk.target}`;
  if (job === undefined)
    throw new QemuError(`${doing}: job '${disk.jobId}' is gone`, { qmpClass: 'JobGone' });
  if (job.info.error !== undefined)
    throw new QemuError(`${doing}: job '${disk.jobId}' failed: ${job.info.error}`, {
      qmpClass: 'JobFailed',
    });
  if (isBeyondReady(job)) return;
  if (job.block?.ready !== true)
    throw new StateError('BLOCK_COPY_ACTIVE', `block job '${disk.jobId}' not ready for pivot yet`);
  const io = job.block['io-status'];
  if (io !== 'ok') {
    throw new StateError(
      'OPERATION_INVALID',
      `${doing}: job '${disk.jobId}' is paused by an error of its target (io-status ${io}); mend the cause, then try again`,
    );
  }
}

/** Law 9: asked from outside QEMU, because inside it nothing could time out once it drains. */
export async function checkHealth(
  disk: Pick<PivotDisk, 'path' | 'target' | 'fuse'>,
  world: DomainWorld,
  doing = 'pivot',
): Promise<void> {
  const { path, fuse } = disk;
  if (path === null && fuse === undefined) return;
  for (const timeoutMs of [SETTLE_TIMEOUT_MS, HEALTH_TIMEOUT_MS]) {
    const beganMs = performance.now();
    const answer =
      fuse === undefined
        ? world.images.answer(path ?? '', timeoutMs)
        : world.fuses.answer(fuse, timeoutMs);
    await answer.catch((cause: unknown) => {
      const text = `${doing} ${disk.target}: ${messageOf(cause)}, so it is left alone now`;
      throw new StateError('OPERATION_INVALID', text, { cause });
    });
    // With little to write out the first answer says it all.
    if (performance.now() - beganMs < HEALTH_TIMEOUT_MS) return;
  }
}

/** A commit has no way back once a disk of it has switched: the others are tried again, while there is nothing to copy. */
async function complete(
  monitor: Monitor,
  disks: readonly PivotDisk[],
  world: DomainWorld,
): Promise<void> {
  try {
    await completeOnce(monitor, disks, world);
  } catch (error) {
    const roots = await rootsOf(monitor);
    if (!disks.some((disk) => disk.job === 'commit' && roots.has(disk.to))) throw error;
    await commitAgain(monitor, disks, roots);
    await completeOnce(monitor, disks, world);
  }
}

async function completeOnce(
  monitor: Monitor,
  disks: readonly PivotDisk[],
  world: DomainWorld,
): Promise<void> {
  const ids = disks.map((disk) => disk.jobId);
  // `stop` makes jobs flap between ready and standby; job-complete is taken in READY only.
  const jobs = await waitJobs(
    monitor,
    ids,
    ['ready', 'waiting', 'pending', 'concluded'],
    PENDING_TIMEOUT_MS,
    'throw',
  );
  const untouched = disks.filter((disk) => jobs.get(disk.jobId)?.info.status === 'ready');
  const swings = untouched.flatMap((disk) => disk.swing ?? []);
  if (swings.length > 0) {
    await monitor.execute('blockdev-reopen', { options: swings });
  }
  for (const { jobId } of untouched) completing.get(monitor)?.add(jobId);
  await Promise.all(untouched.map((disk) => monitor.execute('job-complete', { id: disk.jobId })));
  // A target that takes no more will not do so while we wait, and the guest stands still meanwhile.
  const ready = await waitJobs(monitor, ids, ['pending', 'concluded'], PENDING_TIMEOUT_MS, 'throw');
  const pending = ids.filter((id) => ready.get(id)?.info.status === 'pending');
  // The last moment at which all can still be cancelled: one that failed takes the others with it.
  for (const disk of disks) checkJob(disk, ready.get(disk.jobId));
  // Behind the last flush (block/mirror.c flushes before `pending`): one server has it all, or it is not switched to.
  for (const { fuse } of disks) if (fuse !== undefined) await world.fuses.check(fuse);
  await Promise.all(pending.map((id) => monitor.execute('job-finalize', { id })));
  const over = await waitJobs(monitor, ids, ['concluded'], CONCLUDED_TIMEOUT_MS);
  for (const disk of disks) checkJob(disk, over.get(disk.jobId));
}

async function checkRoots(monitor: Monitor, disks: readonly PivotDisk[]): Promise<void> {
  const roots = await rootsOf(monitor);
  const missing = disks.filter((disk) => !roots.has(disk.to));
  if (missing.length > 0) {
    throw new QemuError(
      `pivot: ${missing.map((disk) => disk.target).join(', ')} did not switch although the job ended without an error`,
    );
  }
}

/** All disks back on their source, jobs that went too far cancelled, the guest as its record says. Law 5. */
async function backOut(
  { disks, quiesce = false }: StepOf<'pivot'>,
  world: DomainWorld,
  context: EffectContext,
): Promise<void> {
  await ifAlive(world, async (monitor) => {
    const { running } = await monitor.execute('query-status', {});
    const jobs = await queryJobs(monitor);
    for (const { jobId } of disks) {
      const status = jobs.get(jobId)?.info.status ?? 'null';
      if (status === 'concluded' || status === 'null') continue;
      // A job that is only READY is left: a failed swing or a stop that took too long costs nothing.
      const isAsked = completing.get(monitor)?.has(jobId) ?? !running;
      const isToEnd = isAsked || status === 'waiting' || status === 'pending';
      if (isToEnd && status !== 'aborting') await monitor.execute('job-cancel', { id: jobId });
      if (isToEnd || status === 'aborting')
        await waitJob(monitor, jobId, ['concluded'], CONCLUDED_TIMEOUT_MS);
    }
    // What was told is ended now; what is left was told nothing, also when the way back is gone once more.
    completing.set(monitor, new Set());
    const roots = await rootsOf(monitor);
    for (const disk of disks.filter((d) => !roots.has(d.from))) await switchBack(monitor, disk);
    // The guest comes first: every disk is on its source, and what the targets stand on is nothing to it.
    const failed = await swingBack(monitor, disks).then(() => null, errorOf);
    await resumeIfRunning(monitor, world);
    const ms = pauseOf(monitor);
    if (ms !== null) context.notePause('pivot that was taken back', ms);
    if (quiesce && (await isToRun(world))) await thaw(world, context);
    if (failed !== null) throw failed;
  });
}

/** What was opened for the swing can be closed only when no target stands on it. Only a guest that stands still had a swing. */
async function swingBack(monitor: Monitor, disks: readonly PivotDisk[]): Promise<void> {
  const { running } = await monitor.execute('query-status', {});
  const nodes = await nodesOf(monitor);
  const swings = disks.filter((disk) => nodes.has(disk.to)).flatMap((disk) => disk.swingBack ?? []);
  if (!running && swings.length > 0) await monitor.execute('blockdev-reopen', { options: swings });
}

/** A disk that switched while another did not: a mirror of nothing, since both sides are equal while the guest stands still. */
async function switchBack(monitor: Monitor, disk: PivotDisk): Promise<void> {
  const jobId = `back-${disk.target}`;
  // One of an earlier attempt would hide the root below its filter.
  await cancel(monitor, jobId);
  if (!(await rootsOf(monitor)).has(disk.to)) return;
  await monitor.execute('blockdev-mirror', {
    'job-id': jobId,
    device: disk.to,
    target: disk.from,
    sync: 'none',
    'auto-finalize': false,
    'auto-dismiss': false,
    'filter-node-name': `${jobId}-f`,
    'on-target-error': 'stop',
  });
  await waitJob(monitor, jobId, ['ready'], PENDING_TIMEOUT_MS);
  await monitor.execute('job-complete', { id: jobId });
  await waitJob(monitor, jobId, ['pending'], PENDING_TIMEOUT_MS);
  await monitor.execute('job-finalize', { id: jobId });
  await waitJob(monitor, jobId, ['concluded'], CONCLUDED_TIMEOUT_MS);
  await monitor.execute('job-dismiss', { id: jobId });
}

/** QEMU is gone: a commit is finished by qemu-img, which any start of the base needs; a copy is lost with its QEMU (law 2). */
async function commitWithoutQemu(disks: readonly PivotDisk[], world: DomainWorld): Promise<void> {
  if (disks.some((disk) => disk.offline === null)) await needMonitor(world, 'pivot');
  for (const { offline } of disks) {
    if (offline === null) continue;
    // Oldest first, and again from the first after a crash: the newest data is written last.
    for (const path of offline.overlayPaths)
      if ((await world.images.stat(path)) !== null)
        await world.images.commitOffline(path, offline.base);
  }
}

/** `cont`, unless the guest's user had suspended it. */
export async function resumeIfRunning(monitor: Monitor, world: DomainWorld): Promise<void> {
  if (!(await isToRun(world))) return;
  const { status } = await monitor.execute('query-status', {});
  if (status === 'paused' || status === 'prelaunch') await monitor.execute('cont', {});
}
