// What can be seen of the chain that a caller made for a mirror (REUSE_EXT), before the disk goes over to it.

import type { Image, Layer } from '../block/layer.js';
import { localPath, sameSource, showSource } from '../block/layer.js';
import { present } from '../std/assert.js';
import { RequestError } from '../std/errors.js';
import type { MirrorEnd, Mirrored } from './mirror-end.js';
import { layersOf } from './refuse.js';

/** REOPEN of a chain that the caller made is his word that it is complete; what can be seen is still looked at. */
export function checkChain(request: MirrorEnd, { disk, mirror, record }: Mirrored): Error | null {
  if (record.made === 'ours') return null;
  const seen = request.files.get(showSource(mirror.image.source));
  const below = seen?.below ?? [];
  const same =
    below.length === mirror.backing.length &&
    below.every((image, i) => sameSource(image.source, mirror.backing[i]?.source ?? image.source));
  if (!same) {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `the backing chain of mirror ${showSource(mirror.image.source)} of disk '${disk.target}' changed since the snapshot was made; it was: ${mirror.backing.map((image) => showSource(image.source)).join(' ← ')}`,
    );
  }
  for (const image of unopened({ disk, mirror, record })) {
    const path = localPath(image.source);
    const facts = request.files.get(showSource(image.source));
    if (facts?.info == null || facts.info.special.length > 0 || path?.endsWith('.part') === true) {
      return new RequestError(
        'CONFIG_UNSUPPORTED',
        `image ${showSource(image.source)} below the mirror of disk '${disk.target}' is missing, unfinished or not a ${image.format} image; copy it completely, then reopen`,
      );
    }
    if (facts.info.virtualSizeBytes > (seen?.info?.virtualSizeBytes ?? 0n)) {
      return new RequestError(
        'CONFIG_UNSUPPORTED',
        `image ${showSource(image.source)} below the mirror of disk '${disk.target}' is larger than the disk`,
      );
    }
  }
  return checkCutOff(request, { disk, mirror, record });
}

/** A copy that is shorter than what it was made of lacks the end of the disk, and reads as zeroes there. */
function checkCutOff({ files }: MirrorEnd, mirrored: Mirrored): Error | null {
  const [of, copy] = [layersOf(mirrored.disk)[1], unopened(mirrored)[0]];
  if (of === undefined || copy === undefined || copy.index !== mirrored.mirror.backing[0]?.index)
    return null;
  const [whole, cut] = [of, copy].map(
    ({ source }) => files.get(showSource(source))?.info?.virtualSizeBytes,
  );
  if (whole === undefined || cut === undefined || cut >= whole) return null;
  return new RequestError(
    'CONFIG_UNSUPPORTED',
    `image ${showSource(copy.source)} below the mirror of disk '${mirrored.disk.target}' has ${cut} bytes where ${showSource(of.source)} has ${whole}; copy it completely, then reopen`,
  );
}

/** Images below the mirror that QEMU does not have open yet. */
export function unopened({ disk, mirror }: Mirrored): readonly Layer[] {
  const open = new Set(layersOf(disk).map((layer) => layer.index));
  return indexed(mirror.backing).filter((layer) => !open.has(layer.index));
}

export const indexed = (images: readonly Image[]): readonly Layer[] =>
  images.map((image) => ({
    ...image,
    index: present(image.index, 'an image of a running domain has an index'),
  }));
