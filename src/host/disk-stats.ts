// What disks did and what they take: QEMU's counters by device, sizes by node.

import { formatNode, localPath } from '../block/layer.js';
import { layersOf } from '../plan/refuse.js';
import type { Host } from './host.js';
import type { BlockStats, DiskStats } from './libvirt-host.js';

const nothing: BlockStats = {
  readRequests: 0n,
  readBytes: 0n,
  readNs: 0n,
  writeRequests: 0n,
  writeBytes: 0n,
  writeNs: 0n,
  flushRequests: 0n,
  flushNs: 0n,
};

export async function diskStats(host: Host, uuid: string): Promise<readonly DiskStats[]> {
  const live = host.known.domain(uuid).live;
  const monitor = live === null ? null : await host.guestOf(uuid).monitor();
  if (live === null || monitor === null) return [];
  const [stats, nodes] = await Promise.all([
    monitor.execute('query-blockstats', {}),
    monitor.execute('query-named-block-nodes', { flat: true }),
  ]);
  return live.definition.disks.flatMap((disk): readonly DiskStats[] => {
    const top = layersOf(disk)[0];
    if (top === undefined) return [];
    const device = stats.find(
      (one) => one.qdev !== undefined && one.qdev.includes(`/${disk.alias}/`),
    );
    const image = nodes.find((node) => node['node-name'] === formatNode(top))?.image;
    return [
      {
        target: disk.target,
        path: localPath(top.source),
        index: top.index,
        stats: device === undefined ? nothing : countersOf(device.stats),
        info: {
          capacityBytes: image?.['virtual-size'] ?? 0n,
          allocationBytes: image?.['actual-size'] ?? 0n,
          physicalBytes: image?.['actual-size'] ?? 0n,
        },
      },
    ];
  });
}

/** What QEMU has written to each disk since it began, by target; empty: it cannot be asked. */
export async function writtenBytes(host: Host, uuid: string): Promise<ReadonlyMap<string, bigint>> {
  const live = host.known.domain(uuid).live;
  const monitor = live === null ? null : await host.guestOf(uuid).monitor();
  if (live === null || monitor === null) return new Map();
  const stats = await monitor.execute('query-blockstats', {});
  return new Map(
    live.definition.disks.flatMap(({ target, alias }): readonly (readonly [string, bigint])[] => {
      const device = stats.find(({ qdev }) => qdev?.includes(`/${alias}/`) === true);
      return device === undefined ? [] : [[target, device.stats.wr_bytes]];
    }),
  );
}

interface Counters {
  readonly rd_operations: bigint;
  readonly rd_bytes: bigint;
  readonly rd_total_time_ns: bigint;
  readonly wr_operations: bigint;
  readonly wr_bytes: bigint;
  readonly wr_total_time_ns: bigint;
  readonly flush_operations: bigint;
  readonly flush_total_time_ns: bigint;
}

const countersOf = (stats: Counters): BlockStats => ({
  readRequests: stats.rd_operations,
  readBytes: stats.rd_bytes,
  readNs: stats.rd_total_time_ns,
  writeRequests: stats.wr_operations,
  writeBytes: stats.wr_bytes,
  writeNs: stats.wr_total_time_ns,
  flushRequests: stats.flush_operations,
  flushNs: stats.flush_total_time_ns,
});

export function sumOfStats(all: readonly DiskStats[]): BlockStats {
  return all.reduce<BlockStats>(
    (sum, { stats }) => ({
      readRequests: sum.readRequests + stats.readRequests,
      readBytes: sum.readBytes + stats.readBytes,
      readNs: sum.readNs + stats.readNs,
      writeRequests: sum.writeRequests + stats.writeRequests,
      writeBytes: sum.writeBytes + stats.writeBytes,
      writeNs: sum.writeNs + stats.writeNs,
      flushRequests: sum.flushRequests + stats.flushRequests,
      flushNs: sum.flushNs + stats.flushNs,
    }),
    nothing,
  );
}
