// Where the credentials of an NBD disk with TLS lie: an XML says only that there is TLS, so that what was known of it stays.

import type { Image, StorageSource } from '../block/layer.js';
import { showSource } from '../block/layer.js';
import type { Definition } from './definition.js';
import type { Disk } from './disk.js';
import { imagesOf } from './disk.js';
import type { DomainRecord } from './record.js';

/** `definition` as it was read, with the folders that `record` has for the same exports. */
export function withKnownCreds(definition: Definition, record: DomainRecord | null): Definition {
  const known = new Map<string, StorageSource>();
  for (const one of [record?.persistent, record?.live?.definition])
    for (const { source } of (one?.disks ?? []).flatMap(imagesOf))
      if (source.type === 'network' && source.tlsCreds !== undefined)
        known.set(showSource(source), source);
  if (known.size === 0) return definition;
  const kept = (source: StorageSource): StorageSource => known.get(showSource(source)) ?? source;
  const disks = definition.disks.map((disk): Disk => {
    const below = disk.backing?.map((image): Image => ({ ...image, source: kept(image.source) }));
    const source = disk.source === null ? null : kept(disk.source);
    return { ...disk, source, backing: below ?? null };
  });
  return { ...definition, disks };
}
