// The snapshot transaction, and its undo: the overlays' data goes back down into the bases, with QEMU or without it.

import type { PivotDisk, SnapshotDisk, StepOf } from '../../plan/step.js';
import type { Monitor } from '../../qmp/monitor.js';
import { waitJobs } from '../../qmp/jobs.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { ifAlive, needMonitor } from '../world.js';
import { cancel, startActiveCommit } from './jobs.js';
import { close, rootsOf } from './nodes.js';
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
    // None is no proof that nothing was done: an undo that was cut short behind its pivot looks the same, and has jobs
    // to end and a guest to let go. Both ways can be gone again from there.
    return switched.length === disks.length ? 'done' : 'partial';
  },
};

const commitJob = (disk: Pick<SnapshotDisk, 'overlay'>): string => `undo-${disk.overlay}`;

/** Can be entered again at any point of it; what stands still because of us goes on in the end. */
async function commitBack(
  monitor: Monitor,
  disks: readonly SnapshotDisk[],
  world: DomainWorld,
  context: Parameters<typeof pivot.do>[2],
): Promise<void> {
  // One of an earlier attempt would hide the root below its filter.
  for (const disk of disks) await cancel(monitor, commitJob(disk));
  const roots = await rootsOf(monitor);
  const switched = disks.filter((disk) => roots.has(disk.overlay));
  for (const disk of switched) {
    await startActiveCommit(monitor, {
      jobId: commitJob(disk),
      device: disk.overlay,
      base: disk.node,
      filter: `${disk.overlay}-u`,
    });
  }
  await waitJobs(monitor, switched.map(commitJob), ['ready'], COMMIT_TIMEOUT_MS);
  if (switched.length > 0)
    await pivot.do({ kind: 'pivot', disks: switched.map(backOf) }, world, context);
  // No record stands between: the chain before the snapshot is what comes back, and its journal says so with `undone`.
  for (const disk of disks) await makeHarmless(monitor, disk, world, switched.includes(disk));
  await resumeIfRunning(monitor, world);
  const ms = pauseOf(monitor);
  if (ms !== null) world.notePause('undo of the snapshot', ms);
  for (const disk of disks) await emptyAgain(disk, world);
}

const backOf = (disk: SnapshotDisk): PivotDisk => ({
  target: disk.target,
  jobId: commitJob(disk),
  job: 'commit',
  from: disk.overlay,
  to: disk.node,
  path: disk.base.path,
  swing: null,
  swingBack: null,
  header: null,
  offline: { overlayPath: disk.overlayPath, base: disk.base },
});

/**
 * Before the guest writes to its base again: were QEMU to die now, an overlay that still holds data would be committed
 * once more, over what is newer.
 */
async function makeHarmless(
  monitor: Monitor,
  { overlay, overlayPath }: SnapshotDisk,
  { images }: DomainWorld,
  wasSwitched: boolean,
): Promise<void> {
  await cancel(monitor, commitJob({ overlay }));
  await close(monitor, overlay);
  const file = await images.stat(overlayPath);
  if (file?.kind !== 'file' || file.sizeBytes === 0n) return;
  // One that was never on top is as its maker left it.
  if (wasSwitched || !(await images.isEmpty(overlayPath, 'qcow2')))
    await images.truncate(overlayPath);
}

/** One that its caller made is left as he made it: whole, and with nothing in it. */
async function emptyAgain(
  { overlayPath, base }: SnapshotDisk,
  { images }: DomainWorld,
): Promise<void> {
  const info = await images.info(base.path, base.format);
  if (info === null || (await images.stat(overlayPath))?.sizeBytes !== 0n) return;
  await images.create({
    path: overlayPath,
    format: 'qcow2',
    sizeBytes: info.virtualSizeBytes,
    backing: base,
    clusterSizeBytes: info.clusterSizeBytes,
  });
}

async function commitBackWithoutQemu(
  disks: readonly SnapshotDisk[],
  world: DomainWorld,
): Promise<void> {
  for (const { overlayPath, base } of disks) {
    const info = await world.images.info(overlayPath, 'qcow2').catch(() => null);
    // Not made yet, cut back to nothing because it came back with QEMU, or never written to.
    if (info === null || (await world.images.isEmpty(overlayPath, 'qcow2'))) continue;
    await world.images.commitOffline(overlayPath, base);
  }
}
