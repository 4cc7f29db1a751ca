// Effects on block jobs: started, awaited, ended, dismissed. Never auto-finalized, never auto-dismissed (law 10): what
// became of a job stays in QEMU until it was read.

import type { StepOf } from '../../plan/step.js';
import type { Monitor } from '../../qmp/monitor.js';
import type { Job } from '../../qmp/jobs.js';
import { queryJobs, waitJob, waitJobs } from '../../qmp/jobs.js';
import { BusyError, QemuError, StateError } from '../../std/errors.js';
import type { Effect, EffectContext } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { ifAlive, needMonitor } from '../world.js';
import { neverUndone } from './images.js';
import { MirrorPace } from './mirror-pace.js';
import { rootsOf } from './nodes.js';

const END_TIMEOUT_MS = 30_000;
/** How long a soft end may take to converge before it is forced. */
const SEAL_TIMEOUT_MS = 60_000;
const LOOK_EVERY_MS = 250;

const never = { 'auto-finalize': false, 'auto-dismiss': false } as const;

export const startMirror: Effect<StepOf<'start-mirror'>, DomainWorld> = {
  async do(step, world) {
    const monitor = await needMonitor(world, `mirror ${step.device}`);
    await monitor.execute('blockdev-mirror', {
      ...never,
      'job-id': step.jobId,
      device: step.device,
      target: step.target,
      sync: step.sync,
      'copy-mode': step.copyMode,
      'filter-node-name': step.filter,
      // Law 11: a copy that an error pauses hurts no guest and can go on; `report` would end it.
      'on-target-error': 'stop',
      'on-source-error': 'report',
      ...(step.bytesPerSecond === undefined ? {} : { speed: step.bytesPerSecond }),
    });
  },
  undo: (step, world) => ifAlive(world, (monitor) => cancel(monitor, step.jobId)),
  probe: (step, world) => probeJob(step.jobId, world),
};

export const startCommit: Effect<StepOf<'start-commit'>, DomainWorld> = {
  async do(step, world) {
    const monitor = await world.monitor();
    // QEMU died: nobody has the images open, so the pivot that follows commits them without it.
    if (monitor === null) return;
    await startActiveCommit(monitor, step);
  },
  undo: (step, world) => ifAlive(world, (monitor) => cancel(monitor, step.jobId)),
  async probe(step, world) {
    const monitor = await world.monitor();
    if (monitor === null) return 'absent';
    return (await rootsOf(monitor)).has(step.base) ? 'done' : await probeJob(step.jobId, world);
  },
};

export interface ActiveCommit {
  readonly jobId: string;
  readonly device: string;
  readonly base: string;
  readonly filter: string;
}

export async function startActiveCommit(
  monitor: Monitor,
  { jobId, device, base, filter }: ActiveCommit,
): Promise<void> {
  await monitor.execute('block-commit', {
    ...never,
    'job-id': jobId,
    device,
    'base-node': base,
    'filter-node-name': filter,
    'on-error': 'stop',
  });
}

async function probeJob(jobId: string, world: DomainWorld): Promise<'done' | 'absent'> {
  const monitor = await world.monitor();
  return monitor !== null && (await queryJobs(monitor)).has(jobId) ? 'done' : 'absent';
}

export const waitReady: Effect<StepOf<'wait-ready'>, DomainWorld> = {
  background: true,
  repeatable: true,
  async do(step, world, context) {
    const monitor =
      step.job === 'commit' ? await world.monitor() : await needMonitor(world, 'wait for READY');
    if (monitor !== null) await untilReady(monitor, step, world, context);
  },
  undo: async () => undefined,
  async probe(step, world) {
    const monitor = await world.monitor();
    if (monitor === null) return 'absent';
    const jobs = await queryJobs(monitor);
    return step.jobIds.every((id) => jobs.get(id)?.info.status === 'ready') ? 'done' : 'absent';
  },
};

/** READY is what QEMU says, never arithmetic (law 12): `standby` of a stopped guest counts when the job was READY before. */
async function untilReady(
  monitor: Monitor,
  { jobIds: ids, isPaced, fuses = [] }: StepOf<'wait-ready'>,
  world: DomainWorld,
  context: EffectContext,
): Promise<void> {
  const pace = isPaced === true ? new MirrorPace(monitor, ids) : null;
  for (;;) {
    for (const fuse of fuses) await world.fuses.check(fuse);
    await pace?.follow(context.pace());
    if (context.signal.aborted)
      throw new StateError('OPERATION_ABORTED', 'wait for READY: canceled');
    try {
      await waitJobs(monitor, ids, ['ready', 'waiting', 'pending'], LOOK_EVERY_MS);
      return await pace?.free();
    } catch (error) {
      // Not yet, or QEMU is busy: it is asked again, and then it has its time to answer.
      if (!(error instanceof BusyError || isLate(error))) throw error;
    }
    const jobs = await queryJobs(monitor);
    const blocks = ids.map((id) => jobs.get(id)?.block ?? null);
    if (blocks.every((block) => block?.ready === true && block['io-status'] === 'ok'))
      return await pace?.free();
    context.progress({
      doneBytes: blocks.reduce((sum, block) => sum + (block?.offset ?? 0n), 0n),
      totalBytes: blocks.reduce((sum, block) => sum + (block?.len ?? 0n), 0n),
    });
  }
}

const isLate = (error: unknown): boolean =>
  error instanceof QemuError && error.qmpClass === 'NoAnswer';

/** Ends a job by force, whatever its state, and takes it off QEMU's list. */
export async function cancel(monitor: Monitor, jobId: string): Promise<void> {
  const job = (await queryJobs(monitor)).get(jobId);
  if (job === undefined) return;
  if (job.info.status !== 'concluded') {
    if (job.info.status !== 'aborting') await monitor.execute('job-cancel', { id: jobId });
    await waitJob(monitor, jobId, ['concluded'], END_TIMEOUT_MS);
  }
  await monitor.execute('job-dismiss', { id: jobId });
}

export const cancelJob: Effect<StepOf<'cancel-job'>, DomainWorld> = {
  repeatable: true,
  do: (step, world) => ifAlive(world, (monitor) => cancel(monitor, step.jobId)),
  undo: neverUndone,
  probe: async (step, world) =>
    (await probeJob(step.jobId, world)) === 'done' ? 'absent' : 'done',
};

export const sealJob: Effect<StepOf<'seal-job'>, DomainWorld> = {
  repeatable: true,
  do: (step, world) => ifAlive(world, (monitor) => seal(monitor, step.jobId)),
  undo: neverUndone,
  probe: async (step, world) =>
    (await probeJob(step.jobId, world)) === 'done' ? 'absent' : 'done',
};

/** `block-job-cancel` without force leaves a READY copy complete (QEMU block/mirror.c); with it, whatever was there. */
async function seal(monitor: Monitor, jobId: string): Promise<void> {
  const job = (await queryJobs(monitor)).get(jobId);
  if (job === undefined) return;
  // What an error paused is no exact point in time, and QEMU ends it by force only.
  const isWhole = job.block?.ready === true && job.block['io-status'] === 'ok';
  if (!isWhole || job.info.status === 'concluded') return await cancel(monitor, jobId);
  try {
    await endSoftly(monitor, [jobId], SEAL_TIMEOUT_MS);
  } catch (error) {
    if (!(error instanceof BusyError)) throw error;
  }
  await cancel(monitor, jobId);
}

/**
 * Ends READY mirrors without force, which leaves each target complete; how they ended. With auto-finalize off a soft end
 * stops at `pending` and holds the guest's writes there, so it is finalized at once.
 *
 * @throws {BusyError} one takes longer than `timeoutMs` to come to its end.
 */
export async function endSoftly(
  monitor: Monitor,
  ids: readonly string[],
  timeoutMs: number,
): Promise<ReadonlyMap<string, Job>> {
  const jobs = await queryJobs(monitor);
  for (const id of ids)
    if (jobs.get(id)?.block?.ready === true && jobs.get(id)?.info.status !== 'pending')
      await monitor.execute('block-job-cancel', { device: id });
  const ended = await waitJobs(monitor, ids, ['pending', 'concluded'], timeoutMs);
  for (const id of ids)
    if (ended.get(id)?.info.status === 'pending') await monitor.execute('job-finalize', { id });
  return await waitJobs(monitor, ids, ['concluded'], timeoutMs);
}

export const dismissJobs: Effect<StepOf<'dismiss-jobs'>, DomainWorld> = {
  repeatable: true,
  do: (step, world) =>
    ifAlive(world, async (monitor) => {
      for (const id of step.jobIds) await dismiss(monitor, id);
    }),
  undo: neverUndone,
  async probe(step, world) {
    const monitor = await world.monitor();
    if (monitor === null) return 'done';
    const jobs = await queryJobs(monitor);
    return step.jobIds.some((id) => jobs.has(id)) ? 'absent' : 'done';
  },
};

async function dismiss(monitor: Monitor, jobId: string): Promise<void> {
  if (!(await queryJobs(monitor)).has(jobId)) return;
  await waitJob(monitor, jobId, ['concluded'], END_TIMEOUT_MS);
  await monitor.execute('job-dismiss', { id: jobId }).catch((error: unknown) => {
    // Dismissed between the look and the word.
    if (!(error instanceof QemuError && error.qmpClass === 'DeviceNotFound')) throw error;
  });
}
