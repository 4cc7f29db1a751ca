// The snapshot transaction, and its undo: the overlays' data goes back down into the bases, with QEMU or without it.

import type { SnapshotDisk, StepOf } from '../../plan/step.js';
import type { Monitor } from '../../qmp/monitor.js';
import { waitJobs } from '../../qmp/jobs.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { ifAlive, needMonitor } from '../world.js';
import { cancel, startActiveCommit } from './jobs.js';
import { rootsOf } from './nodes.js';
import { pauseOf, pivot, resumeIfRunning } from './pivot.js';

/** An overlay that has to go back is small, but its guest writes on: time to converge. */
const COMMIT_TIMEOUT_MS = 10 * 60_000;

export const snapshot: Effect<StepOf<'snapshot'>, DomainWorld> = {
  async do({ disks }, world) {
    const monitor = await needMonitor(world, 'snapshot');
    const start = performance.now();
    await monitor.execute('transaction', {
      actions: disks.map(({ node, overlay }) => ({
        type: 'blockdev-snapshot' as const,
        data: { node, overlay },
      })),
    });
    world.notePause('snapshot', performance.now() - start);
  },
  async undo({ disks }, world, context) {
    await ifAlive(world, (monitor) => commitBack(monitor, disks, world, context));
    if ((await world.monitor()) === null) await commitBackWithoutQemu(disks, world);
  },
  async probe({ disks }, world) {
    const monitor = await world.monitor();
    // Whether it came to the transaction cannot be told, but undoing works either way.
    if (monitor === null) return 'partial';
    const roots = await rootsOf(monitor);
    const switched = disks.filter((disk) => roots.has(disk.overlay));
    return switched.length === disks.length ? 'done' : switched.length === 0 ? 'absent' : 'partial';
  },
};

const commitJob = (disk: SnapshotDisk): string => `undo-${disk.overlay}`;

async function commitBack(
  monitor: Monitor,
  disks: readonly SnapshotDisk[],
  world: DomainWorld,
  context: Parameters<typeof pivot.do>[2],
): Promise<void> {
  const roots = await rootsOf(monitor);
  const switched = disks.filter((disk) => roots.has(disk.overlay));
  if (switched.length === 0) return;
  for (const disk of switched) {
    await cancel(monitor, commitJob(disk));
    await startActiveCommit(monitor, {
      jobId: commitJob(disk),
      device: disk.overlay,
      base: disk.node,
      filter: `${disk.overlay}-u`,
    });
  }
  const jobIds = switched.map(commitJob);
  await waitJobs(monitor, jobIds, ['ready'], COMMIT_TIMEOUT_MS);
  const back = switched.map((disk) => ({
    target: disk.target,
    jobId: commitJob(disk),
    job: 'commit' as const,
    from: disk.overlay,
    to: disk.node,
    path: disk.base.path,
    swing: null,
    swingBack: null,
    header: null,
    offline: { overlayPath: disk.overlayPath, base: disk.base },
  }));
  await pivot.do({ kind: 'pivot', disks: back }, world, context);
  // No record stands between: the chain before the snapshot is what comes back, and its journal says so with `undone`.
  await resumeIfRunning(monitor, world);
  const ms = pauseOf(monitor);
  if (ms !== null) world.notePause('undo of the snapshot', ms);
  for (const id of jobIds) await cancel(monitor, id);
}

async function commitBackWithoutQemu(
  disks: readonly SnapshotDisk[],
  world: DomainWorld,
): Promise<void> {
  for (const { overlayPath, base } of disks) {
    const info = await world.images.info(overlayPath, 'qcow2').catch(() => null);
    // Not made yet, or never written to.
    if (info === null || (await world.images.isEmpty(overlayPath, 'qcow2'))) continue;
    await world.images.commitOffline(overlayPath, base);
  }
}
