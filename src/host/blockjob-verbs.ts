// Block jobs of running domains: told of, limited, ended.

import type { BlockJobAbortOptions, BlockJobInfo } from './libvirt-host.js';
import type { Disk } from '../domain/disk.js';
import type { DomainRecord } from '../domain/record.js';
import { findDisk } from '../domain/definition.js';
import { mirrorsOf, planBlockJobEnd } from '../plan/mirror-end.js';
import { isRefusal, layersOf, needLive } from '../plan/refuse.js';
import { queryJobs } from '../qmp/monitor.js';
import { RequestError, messageOf } from '../std/errors.js';
import { checkNoneWaits } from './domain-verbs.js';
import type { Host } from './host.js';
import { look } from './look.js';
import { checkTargets } from './targets.js';

function diskOf(record: DomainRecord, path: string): Disk {
  const live = needLive(record);
  if (isRefusal(live)) throw live.refusal;
  const disk = findDisk(live.definition, path);
  if (disk === null) throw new RequestError('INVALID_ARG', `disk '${path}' not found in domain`);
  return disk;
}

/**
 * virDomainGetBlockJobInfo. `current` equals `end` only when the job is ready (spec: semantics 2.5.6): a copy that has
 * caught up but was not told READY is shown one short.
 */
export async function blockJobInfo(
  host: Host,
  uuid: string,
  path: string,
): Promise<BlockJobInfo | null> {
  const disk = diskOf(host.known.domain(uuid), path);
  if (disk.mirror === null) return null;
  const monitor = await host.guestOf(uuid).monitor();
  const block =
    monitor === null ? null : ((await queryJobs(monitor)).get(disk.mirror.jobId)?.block ?? null);
  if (block === null) return { type: 'copy', bandwidthBytesPerSecond: 0n, current: 0n, end: 1n };
  const known = host.known
    .domain(uuid)
    .live?.definition.disks.find((one) => one.target === disk.target);
  const isReady = known?.mirror?.ready === 'yes';
  const counted = { current: block.offset, end: block.len };
  const empty = counted.end === 0n ? { current: isReady ? 1n : 0n, end: 1n } : counted;
  const shown =
    !isReady && empty.current >= empty.end ? { current: empty.end - 1n, end: empty.end } : empty;
  return { type: 'copy', bandwidthBytesPerSecond: block.speed, ...shown };
}

export async function blockJobSetSpeed(
  host: Host,
  uuid: string,
  path: string,
  bytesPerSecond: bigint,
): Promise<void> {
  const disk = diskOf(host.known.domain(uuid), path);
  const monitor = await host.guestOf(uuid).monitor();
  if (disk.mirror === null || monitor === null) {
    throw new RequestError('INVALID_ARG', `disk ${disk.target} does not have an active block job`);
  }
  await monitor.execute('block-job-set-speed', {
    device: disk.mirror.jobId,
    speed: bytesPerSecond,
  });
}

export async function blockJobAbort(
  host: Host,
  uuid: string,
  path: string,
  { async, pivot }: BlockJobAbortOptions,
): Promise<void> {
  const { ended } = await host.begin(uuid, async (known) => {
    const record = known ?? host.known.domain(uuid);
    await checkNoneWaits(host, uuid);
    await checkTargets(host.context.images, record, pivot ? 'pivot' : 'abort');
    const files = pivot ? await lookAtMirrors(host, record) : new Map();
    return planBlockJobEnd({ record, files, nowSeconds: host.nowSeconds, path, pivot });
  });
  if (!async) return await ended;
  ended.catch((error: unknown) =>
    host.log.warn(
      { domain: uuid, disk: path, error: messageOf(error) },
      'asynchronous end of a block job failed',
    ),
  );
}

/** The mirrors that callers made, what lies below them, and what that stands for. */
export async function lookAtMirrors(host: Host, record: DomainRecord) {
  const reused = mirrorsOf(record).filter((mirrored) => mirrored.record.made === 'reuse');
  const tops = await look(
    host,
    reused.map(({ mirror }) => mirror.image),
    'chain',
  );
  const below = await look(
    host,
    reused.flatMap(({ disk, mirror }) => [...layersOf(disk).slice(1, 2), ...mirror.backing]),
    'header',
  );
  return new Map([...below, ...tops]);
}
