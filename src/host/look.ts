// What was seen before a plan is made: files at paths, sizes as the guest has them. Read once, then planned.

import type { DiskFacts, PathFacts } from '../block/facts.js';
import type { Image } from '../block/layer.js';
import { formatNode, showSource } from '../block/layer.js';
import type { LiveRecord } from '../domain/record.js';
import { layersOf } from '../plan/refuse.js';
import { QemuError } from '../std/errors.js';
import type { LookDepth } from './chains.js';
import { factsOf } from './chains.js';
import type { Host } from './host.js';

/** Facts of `images`, by location. */
export async function look(
  host: Host,
  images: readonly Image[],
  depth: LookDepth,
): Promise<ReadonlyMap<string, PathFacts>> {
  const entries = await Promise.all(
    images.map(
      async (image) =>
        [showSource(image.source), await factsOf(host.context.images, image, depth)] as const,
    ),
  );
  return new Map(entries);
}

/** Sizes of all disks, from QEMU itself: a file may have grown since it was opened. */
export async function sizesOf(
  host: Host,
  uuid: string,
  live: LiveRecord,
): Promise<ReadonlyMap<string, DiskFacts>> {
  const monitor = await host.guestOf(uuid).monitor();
  if (monitor === null)
    throw new QemuError('look at the disks: QEMU is gone', { qmpClass: 'Gone' });
  const nodes = await monitor.execute('query-named-block-nodes', { flat: true });
  const byName = new Map(
    nodes.flatMap((node) =>
      node['node-name'] === undefined ? [] : [[node['node-name'], node.image] as const],
    ),
  );
  return new Map(
    live.definition.disks.flatMap((disk) => {
      const top = layersOf(disk)[0];
      const image = top === undefined ? undefined : byName.get(formatNode(top));
      if (image === undefined) return [];
      const cluster = image['cluster-size'];
      return [
        [
          disk.target,
          {
            sizeBytes: image['virtual-size'],
            clusterSizeBytes: cluster === undefined ? null : Number(cluster),
          },
        ] as const,
      ];
    }),
  );
}
