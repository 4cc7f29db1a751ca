// Law 13: what becomes of images that a disk had and has no more, and of destinations that never were complete.

import type { Image } from '../block/layer.js';
import { localPath, sameSource, showSource } from '../block/layer.js';
import type { Disk, DiskMirror } from '../domain/disk.js';
import type { Change, DomainRecord, OwedMirror } from '../domain/record.js';
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
export const abandoned = (
  { record, nowSeconds }: { readonly record: DomainRecord; readonly nowSeconds: number },
  { disk, mirror }: { readonly disk: Disk; readonly mirror: DiskMirror },
): readonly Change[] =>
  unfinished(record, {
    target: disk.target,
    source: topOf(disk).source,
    image: mirror.image,
    sinceSeconds: nowSeconds,
  });

/** The same of one that is owed: `source` is what it mirrored. */
export function unfinished(
  { uuid: domain, name: domainName }: { readonly uuid: string; readonly name: string },
  {
    target,
    source,
    image,
    sinceSeconds,
  }: Pick<OwedMirror, 'source' | 'image' | 'sinceSeconds'> & { readonly target: string },
): readonly Change[] {
  const path = localPath(image.source);
  if (path === null) return [];
  const live = showSource(source);
  const role = {
    path,
    role: 'unfinished',
    domain,
    domainName,
    target,
    live,
    sinceSeconds,
  } as const;
  return [{ change: 'role', role }];
}
