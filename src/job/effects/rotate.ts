// Epoch rotation (spec: qemu-block §3.3), over all disks of a move:
//
//   health asked from outside ─ pre-flush ─ stop ─ mirrors ended softly ─ snapshot, one transaction ─ new twins opened
//     ─ new mirrors started ─┬─ (the runner's one durable record) ─ cont
//                            └─ on any failure: the new layers back into the old ones, the old mirrors made again
//
// Between the soft end and the snapshot the guest must not write: what it wrote would be on one side only. Like a
// pivot it can be entered again at any point: it looks where it is and goes on.

import type { RotateDisk, StepOf } from '../../plan/step.js';
import { queryJobs } from '../../qmp/jobs.js';
import type { Monitor } from '../../qmp/monitor.js';
import { QemuError, StateError } from '../../std/errors.js';
import type { Effect, EffectContext } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { ifAlive, needMonitor } from '../world.js';
import { recreateImage } from './images.js';
import { cancel, endSoftly, startMirror } from './jobs.js';
import { close, nodesOf, rootsOf } from './nodes.js';
import { checkHealth, notePauseFrom, resumeIfRunning } from './pivot.js';
import { commitBack, commitBackWithoutQemu } from './snapshot.js';

const STOP_TIMEOUT_MS = 15_000;
const SEAL_TIMEOUT_MS = 10_000;

export const rotate: Effect<StepOf<'rotate'>, DomainWorld> = {
  async do({ disks }, world, context) {
    const monitor = await needMonitor(world, 'rotate');
    const roots = await rootsOf(monitor);
    if (!disks.every(({ snapshot }) => roots.has(snapshot.overlay)))
      await sealAndSnapshot(monitor, disks, world);
    for (const disk of disks) await mirrorNewLayer(monitor, disk, world, context);
  },

  async undo({ disks }, world, context) {
    await ifAlive(world, async (monitor) => {
      // One that is on its end is ended before the guest goes on: at `pending` it would hold its writes.
      const jobs = await queryJobs(monitor);
      for (const { sealed } of disks)
        if (jobs.get(sealed.mirror.jobId)?.info.status !== 'ready')
          await cancel(monitor, sealed.mirror.jobId);
      for (const { mirror, twin } of disks) {
        await cancel(monitor, mirror.jobId);
        await close(monitor, twin['node-name']);
      }
      await commitBack(
        monitor,
        disks.map(({ snapshot }) => snapshot),
        world,
        context,
      );
      for (const disk of disks) await mirrorOldLayer(monitor, disk, world, context);
    });
    if ((await world.monitor()) === null)
      await commitBackWithoutQemu(
        disks.map(({ snapshot }) => snapshot),
        world,
      );
  },

  async probe({ disks }, world) {
    const monitor = await world.monitor();
    if (monitor === null) return 'partial';
    const [roots, jobs] = [await rootsOf(monitor), await queryJobs(monitor)];
    const isDone = disks.every(
      ({ snapshot, mirror }) => roots.has(snapshot.overlay) && jobs.has(mirror.jobId),
    );
    return isDone ? 'done' : 'partial';
  },
};

async function sealAndSnapshot(
  monitor: Monitor,
  disks: readonly RotateDisk[],
  world: DomainWorld,
): Promise<void> {
  const { status } = await monitor.execute('query-status', {});
  if (status !== 'running' && status !== 'paused')
    throw new StateError(
      'OPERATION_INVALID',
      `rotate: the guest is in state '${status}'; bring it back to running or paused first`,
    );
  await checkMirrors(monitor, disks, world);
  for (const { sealed } of disks)
    await monitor.execute(
      'human-monitor-command',
      { 'command-line': `qemu-io ${sealed.options['node-name']} flush` },
      { timeoutMs: STOP_TIMEOUT_MS },
    );
  notePauseFrom(monitor);
  await monitor.execute('stop', {}, { timeoutMs: STOP_TIMEOUT_MS });
  await endMirrors(monitor, disks);
  await monitor.execute('transaction', {
    actions: disks.map(({ snapshot: { node, overlay } }) => ({
      type: 'blockdev-snapshot' as const,
      data: { node, overlay },
    })),
  });
}

/** Law 9, before anything stops. One that was ended already, by a life before this one, is in order. */
async function checkMirrors(
  monitor: Monitor,
  disks: readonly RotateDisk[],
  world: DomainWorld,
): Promise<void> {
  const jobs = await queryJobs(monitor);
  for (const { sealed, snapshot } of disks) {
    const job = jobs.get(sealed.mirror.jobId);
    const isEnded = job?.info.status === 'concluded' && job.info.error === undefined;
    const isFit = job?.block?.ready === true && job.block['io-status'] === 'ok';
    if (!isEnded && !isFit && job?.info.status !== 'pending')
      throw new StateError(
        'OPERATION_INVALID',
        `rotate ${snapshot.target}: its mirror is not READY; try again when it is`,
      );
  }
  await Promise.all(
    disks.map(({ sealed, snapshot: { target } }) =>
      checkHealth({ target, path: sealed.image.path }, world, 'rotate'),
    ),
  );
}

/** Each target equals its source afterwards. */
async function endMirrors(monitor: Monitor, disks: readonly RotateDisk[]): Promise<void> {
  const ids = disks.map(({ sealed }) => sealed.mirror.jobId);
  const over = await endSoftly(monitor, ids, SEAL_TIMEOUT_MS);
  const failed = ids.find((id) => over.get(id)?.info.error !== undefined);
  if (failed !== undefined)
    throw new QemuError(
      `rotate: job '${failed}' did not end in order: ${over.get(failed)?.info.error}`,
      { qmpClass: 'JobFailed' },
    );
}

async function mirrorNewLayer(
  monitor: Monitor,
  { sealed, twin, mirror }: RotateDisk,
  world: DomainWorld,
  context: EffectContext,
): Promise<void> {
  await cancel(monitor, sealed.mirror.jobId);
  if ((await queryJobs(monitor)).has(mirror.jobId)) return;
  if (!(await nodesOf(monitor)).has(twin['node-name'])) await monitor.execute('blockdev-add', twin);
  await startMirror.do({ kind: 'start-mirror', ...mirror }, world, context);
}

/** What the guest wrote after its mirror had ended is in the source only: the target is made anew (law 2). */
async function mirrorOldLayer(
  monitor: Monitor,
  { sealed: { options, image, mirror } }: RotateDisk,
  world: DomainWorld,
  context: EffectContext,
): Promise<void> {
  const job = (await queryJobs(monitor)).get(mirror.jobId);
  if (job !== undefined && job.info.status !== 'concluded') return;
  await cancel(monitor, mirror.jobId);
  await close(monitor, options['node-name']);
  await recreateImage.do({ kind: 'recreate-image', ...image }, world, context);
  await monitor.execute('blockdev-add', options);
  await startMirror.do({ kind: 'start-mirror', ...mirror }, world, context);
  await resumeIfRunning(monitor, world);
}
