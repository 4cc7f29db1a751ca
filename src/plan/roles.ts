// Law 13: what becomes of images that a disk had and has no more, and of destinations that never were complete.

import type { Image } from '../block/layer.js';
import { localPath, sameSource, showSource } from '../block/layer.js';
import type { Disk, DiskMirror } from '../domain/disk.js';
import type { Change, DomainRecord } from '../domain/record.js';
import { present } from '../std/assert.js';
import { topOf } from './overlay.js';

/** Law 13: what the disk had and has no more is stale from now on, and the live image is named. */
export function staleRoles(
  { uuid: domain, name: domainName }: { readonly uuid: string; readonly name: string },
  target: string,
  before: readonly Image[],
  after: readonly Image[],
): readonly Change[] {
  const live = present(after[0], 'a disk has an image');
  const gone = before.filter(
    (image) => !after.some((kept) => sameSource(kept.source, image.source)),
  );
  return [
    ...gone.flatMap((image): readonly Change[] => {
      const path = localPath(image.source);
      if (path === null) return [];
      const role = {
        path,
        role: 'stale',
        domain,
        domainName,
        target,
        live: showSource(live.source),
        sinceSeconds: 0,
      } as const;
      return [{ change: 'role', role, since: 'commit' }];
    }),
    ...after.map((image): Change => ({ change: 'forget-role', path: showSource(image.source) })),
  ];
}

/** The destination of a mirror that ended without a switch is not to be opened by mistake (law 13). */
export function abandoned(
  request: { readonly record: DomainRecord; readonly nowSeconds: number },
  { disk, mirror }: { readonly disk: Disk; readonly mirror: DiskMirror },
): readonly Change[] {
  const path = localPath(mirror.image.source);
  if (path === null) return [];
  return [
    {
      change: 'role',
      role: {
        path,
        role: 'unfinished',
        domain: request.record.uuid,
        domainName: request.record.name,
        target: disk.target,
        live: showSource(topOf(disk).source),
        sinceSeconds: request.nowSeconds,
      },
    },
  ];
}
