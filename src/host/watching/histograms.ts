// The histograms of a guest's writes in QEMU: set where nobody else has set one, read, and taken away again.

import type { DomainRecord } from '../../domain/record.js';
import type { BlockDeviceStats } from '../../qapi/replies.js';
import type { Monitor } from '../../qmp/monitor.js';
import { hasCommand } from '../../qmp/monitor.js';
import type { Histogram } from './latency.js';
import { ourBoundaries, sameBoundaries } from './latency.js';

/** A look must not wait longer: behind a QEMU that hangs, others pile up. */
const ANSWER_TIMEOUT_MS = 2000;
export const patience = { timeoutMs: ANSWER_TIMEOUT_MS } as const;

export interface DeviceStats {
  readonly target: string;
  /** Its QOM path, by which QEMU knows it: devices of -blockdev guests have no other name. */
  readonly qdev: string;
  readonly stats: BlockDeviceStats;
}

export const canMeasure = ({ schema }: Pick<Monitor, 'schema'>): boolean =>
  hasCommand(schema, 'block-latency-histogram-set');

/** Of the disks of a running domain. */
export async function devicesOf(
  monitor: Monitor,
  { live }: DomainRecord,
): Promise<readonly DeviceStats[]> {
  const all = await monitor.execute('query-blockstats', {}, patience);
  return (live?.definition.disks ?? []).flatMap(({ target, alias }) => {
    const found = all.find(({ qdev }) => qdev?.includes(`/${alias}/`) === true);
    return found?.qdev === undefined ? [] : [{ target, qdev: found.qdev, stats: found.stats }];
  });
}

export const writesOf = ({ stats }: DeviceStats): Histogram | null =>
  stats.wr_latency_histogram ?? null;

/** Where there is one already, it is left as it is: whoever set it counts with its bins. */
export async function setHistograms(
  monitor: Monitor,
  devices: readonly DeviceStats[],
): Promise<void> {
  if (!canMeasure(monitor)) return;
  for (const device of devices)
    if (writesOf(device) === null)
      await monitor.execute(
        'block-latency-histogram-set',
        { id: device.qdev, 'boundaries-write': ourBoundaries },
        patience,
      );
}

/** QEMU takes away all three of a device or none: where somebody has set another, ours stays with it. */
export async function removeHistograms(
  monitor: Monitor,
  devices: readonly DeviceStats[],
): Promise<void> {
  for (const device of devices) {
    const { rd_latency_histogram: reads, flush_latency_histogram: flushes } = device.stats;
    const writes = writesOf(device);
    const isOurs = writes !== null && sameBoundaries(writes.boundaries, ourBoundaries);
    if (isOurs && reads === undefined && flushes === undefined)
      await monitor.execute('block-latency-histogram-set', { id: device.qdev }, patience);
  }
}
