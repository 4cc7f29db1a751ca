// The snapshot transaction, and its undo: the overlays' data goes back down into the bases, with QEMU or without it.

import type { PivotDisk, SnapshotDisk, StepOf } from '../../plan/step.js';
import type { Monitor } from '../../qmp/monitor.js';
import { queryJobs, waitJobs } from '../../qmp/jobs.js';
import { QemuError, messageOf } from '../../std/errors.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { ifAlive, isToRun, needMonitor } from '../world.js';
import { cancel, startActiveCommit } from './jobs.js';
import { close, rootsOf } from './nodes.js';
import { pauseOf, pivot, resumeIfRunning } from './pivot.js';

/** An overlay that has to go back is small, but its guest writes on: time to converge. */
const COMMIT_TIMEOUT_MS = 10 * 60_000;

export const snapshot: Effect<StepOf<'snapshot'>, DomainWorld> = {
  async do({ disks }, world, context) {
    const monitor = await needMonitor(world, 'snapshot');
    const start = performance.now();
    await monitor.execute('transaction', {
      actions: disks.map(({ node, overlay }) => ({
        type: 'blockdev-snapshot' as const,
        data: { node, overlay },
      })),
    });
    const ms = performance.now() - start;
    if (await isToRun(world)) context.notePause('snapshot', ms);
  },
  async undo({ disks }, world, context) {
    try {
      await ifAlive(world, (monitor) => commitBack(monitor, disks, world, context));
      if ((await world.monitor()) === null) await commitBackWithoutQemu(disks, world);
    } catch (error) {
      throw layersStay(disks, context.operation, error);
    }
  },
  async probe({ disks }, world, { direction }) {
    const monitor = await world.monitor();
    // Whether it came to the transaction cannot be told, but undoing works either way.
    if (monitor === null) return 'partial';
    if (direction === 'back' && (await isGoingBack(monitor, disks, world))) return 'partial';
    const roots = await rootsOf(monitor);
    const switched = disks.filter((disk) => roots.has(disk.overlay));
    return switched.length === disks.length ? 'done' : switched.length === 0 ? 'absent' : 'partial';
  },
};

/** An undo that was cut off: its commits hide the overlays below their filters, or the guest still stands because of it. */
async function isGoingBack(
  monitor: Monitor,
  disks: readonly SnapshotDisk[],
  world: DomainWorld,
): Promise<boolean> {
  const jobs = await queryJobs(monitor);
  if (disks.some((disk) => jobs.has(commitJob(disk)))) return true;
  const { status } = await monitor.execute('query-status', {});
  return status === 'paused' && (await isToRun(world));
}

/** Design §4: who asked for the snapshot has to know that its layers stay, and how they go. */
function layersStay(disks: readonly SnapshotDisk[], operation: number, cause: unknown): QemuError {
  const layers = disks.map(({ overlayPath, base }) => `${overlayPath} over ${base.path}`);
  return new QemuError(
    `${messageOf(cause)}; the new layers stay in use and nothing is lost: ${layers.join(', ')}; ` +
      `to collapse them, mend the cause, then 'ferry ops resolve ${operation} --back' commits them down and removes them`,
    { cause },
  );
}

const commitJob = (disk: SnapshotDisk): string => `undo-${disk.overlay}`;

/** Can be entered again at any point of it; what stands still because of us goes on in the end. */
export async function commitBack(
  monitor: Monitor,
  disks: readonly SnapshotDisk[],
  world: DomainWorld,
  context: Parameters<typeof pivot.do>[2],
): Promise<void> {
  // One of an earlier attempt would hide the root below its filter.
  for (const disk of disks) await cancel(monitor, commitJob(disk));
  const roots = await rootsOf(monitor);
  const switched = disks.filter((disk) => roots.has(disk.overlay));
  try {
    await commitDown(monitor, switched);
    if (switched.length > 0)
      await pivot.do({ kind: 'pivot', disks: switched.map(backOf) }, world, context);
  } catch (error) {
    // What waits for a person does so at rest.
    for (const disk of switched) await cancel(monitor, commitJob(disk)).catch(() => undefined);
    throw error;
  }
  // No record stands between: the chain before the snapshot is what comes back, and its journal says so with `undone`.
  for (const disk of disks) await makeHarmless(monitor, disk, world);
  await resumeIfRunning(monitor, world);
  const ms = pauseOf(monitor);
  if (ms !== null) context.notePause('undo of the snapshot', ms);
  for (const disk of disks) await emptyAgain(disk, world);
}

/** Resolves when all are READY. */
async function commitDown(monitor: Monitor, disks: readonly SnapshotDisk[]): Promise<void> {
  for (const disk of disks) {
    await startActiveCommit(monitor, {
      jobId: commitJob(disk),
      device: disk.overlay,
      base: disk.node,
      filter: `${disk.overlay}-u`,
    });
  }
  // Not waited for: the domain is locked meanwhile, and who has to make room has to be told.
  await waitJobs(monitor, disks.map(commitJob), ['ready'], COMMIT_TIMEOUT_MS, 'throw');
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
  offline: { overlayPaths: [disk.overlayPath], base: disk.base },
});

/**
 * Before the guest writes to its base again: were QEMU to die now, an overlay that still holds data would be committed
 * once more, over what is newer.
 */
async function makeHarmless(
  monitor: Monitor,
  disk: SnapshotDisk,
  { images }: DomainWorld,
): Promise<void> {
  await cancel(monitor, commitJob(disk));
  await close(monitor, disk.overlay);
  if ((await images.stat(disk.overlayPath))?.kind === 'file')
    await images.truncate(disk.overlayPath);
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

export async function commitBackWithoutQemu(
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
