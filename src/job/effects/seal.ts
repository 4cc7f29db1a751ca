// Mirrors of a guest that stands still are ended softly: each target then equals its source and may be trusted at the
// next start, if nobody touched either side meanwhile. The guest is never kept waiting for it beyond the time limit.

import type { Change, FileStamp } from '../../domain/record.js';
import type { SealDisk, StepOf } from '../../plan/step.js';
import { queryJobs } from '../../qmp/jobs.js';
import type { Monitor } from '../../qmp/monitor.js';
import { within } from '../../std/deadline.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { ifAlive } from '../world.js';
import { neverUndone } from './images.js';
import { cancel, endSoftly } from './jobs.js';
import { close } from './nodes.js';
import { checkHealth } from './pivot.js';

export const seal: Effect<StepOf<'seal'>, DomainWorld> = {
  do: ({ disks, timeoutMs }, world) =>
    ifAlive(world, async (monitor) => {
      // What cannot be sealed is owed like after a crash; the guest's end does not wait for it.
      await within(sealAll(monitor, disks, world), timeoutMs, 'seal').catch(() => undefined);
    }),
  undo: neverUndone,
  probe: async () => 'absent',
  async changes({ disks }, world) {
    const monitor = await world.monitor();
    if (monitor === null) return [];
    const jobs = await queryJobs(monitor);
    return disks.flatMap(({ jobId, target }): readonly Change[] => {
      const info = jobs.get(jobId)?.info;
      const isSealed = info?.status === 'concluded' && info.error === undefined;
      return isSealed ? [{ change: 'mirror-sealed', target }] : [];
    });
  },
};

async function sealAll(
  monitor: Monitor,
  disks: readonly SealDisk[],
  world: DomainWorld,
): Promise<void> {
  await Promise.all(disks.map((disk) => checkHealth(disk, world, 'seal')));
  // Nothing to one that powered off; any other must not write while its mirrors end.
  await monitor.execute('stop', {}, { timeoutMs: STOP_TIMEOUT_MS });
  const jobs = await queryJobs(monitor);
  const ids = disks.map((disk) => disk.jobId).filter((id) => jobs.has(id));
  await endSoftly(monitor, ids, SEAL_TIMEOUT_MS);
}

const STOP_TIMEOUT_MS = 15_000;
const SEAL_TIMEOUT_MS = 60_000;

/** Closes the targets of sealed mirrors, which flushes them; then QEMU may be killed in any way. */
export const closeSealed: Effect<StepOf<'close-sealed'>, DomainWorld> = {
  repeatable: true,
  do: ({ disks }, world) =>
    ifAlive(world, async (monitor) => {
      const jobs = await queryJobs(monitor);
      for (const { jobId, node } of disks) {
        // A target that hangs would hang its close as well; it goes with its QEMU.
        if (jobs.get(jobId)?.info.status !== 'concluded') continue;
        await cancel(monitor, jobId);
        await close(monitor, node);
      }
    }),
  undo: neverUndone,
  probe: async () => 'absent',
};

/** Nothing outside: only what is known afterwards. */
export const stamp: Effect<StepOf<'stamp'>, DomainWorld> = {
  repeatable: true,
  do: async () => undefined,
  undo: neverUndone,
  probe: async () => 'absent',
  async changes({ disks }, world) {
    const owed = (await world.record())?.owed ?? [];
    const sealed = disks.filter(({ target }) =>
      owed.some(({ record }) => record.target === target && record.sealed === true),
    );
    const stamped = await Promise.all(
      sealed.map(async ({ target, source, image }): Promise<readonly Change[]> => {
        const [ours, theirs] = await Promise.all([stampOf(world, source), stampOf(world, image)]);
        return ours === null || theirs === null
          ? []
          : [{ change: 'stamp', target, source: ours, image: theirs }];
      }),
    );
    return stamped.flat();
  },
};

async function stampOf({ images }: DomainWorld, path: string): Promise<FileStamp | null> {
  const file = await images.stat(path);
  return file === null ? null : { sizeBytes: file.sizeBytes, modifiedNs: file.modifiedNs };
}
