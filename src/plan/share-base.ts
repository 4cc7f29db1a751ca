// `--share-base`: images below the top one that are at the destination already. By name and header here; that they hold the
// same is found by a step of the plan. Nothing is ever committed into one of them, and no undo removes it. Pure.

import { posix } from 'node:path';

import type { FileIdentity } from '../block/copy.js';
import type { Image } from '../block/layer.js';
import { localPath } from '../block/layer.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import { present } from '../std/assert.js';
import type { Move } from './move.js';
import type { Placing } from './move-places.js';
import { copiesOf } from './move-places.js';
import type { HeldImage, ImageFile, StepOf } from './step.js';

type Asked = Placing & Pick<Move, 'files' | 'there' | 'bytesPerSecond'>;

/** How many images of the chain, from its base up, are at the destination. Never the top one, which the move makes. */
export function sharedOf(request: Asked, images: readonly Image[]): number {
  if (!request.form.shareBase || request.form.flatten) return 0;
  const copies = copiesOf(images, request);
  const made = copies.findLastIndex(
    ({ path }, i) => i === 0 || request.files.get(path)?.file == null,
  );
  return copies.length - 1 - made;
}

/** Why what is at the destination under the name of an image is not that image, as far as names and headers tell. */
export function shareObstacle(
  request: Asked,
  disk: Disk,
  bad: (text: string) => Error,
): Error | null {
  if (!request.form.shareBase) return null;
  const images = imagesOf(disk);
  const copies = copiesOf(images, request);
  const from = copies.length - sharedOf(request, images);
  for (const [i, copy] of copies.entries()) {
    const isThere = request.files.get(copy.path)?.file != null;
    const below = copies[from - 1];
    if (i > 0 && i < from && isThere)
      return bad(
        `${copy.path} is there, and ${below?.path ?? ''}, which is below it, is not; a base is shared from the bottom up: remove it, or bring what is below it`,
      );
    const different = i < from ? null : differenceOf(request, images, copies, i);
    if (different !== null)
      return bad(
        `${copy.path} cannot stand for ${localPath(present(images[i], 'as many').source)}: ${different}; remove it, choose another folder, or copy without --share-base`,
      );
  }
  return null;
}

function differenceOf(
  { files, there }: Asked,
  images: readonly Image[],
  copies: readonly ImageFile[],
  i: number,
): string | null {
  const copy = present(copies[i], 'a copy per image');
  const seen = files.get(copy.path);
  const source = files.get(localPath(present(images[i], 'as many').source) ?? '')?.info;
  if (seen?.file?.kind !== 'file') return 'it is not a regular file';
  if (seen.info === null || !there.has(copy.path))
    return `it cannot be read as an image of format ${copy.format}`;
  if (seen.info.special.length > 0) return `it has ${seen.info.special.join(', ')}`;
  if (seen.info.virtualSizeBytes !== source?.virtualSizeBytes)
    return `it is a disk of ${seen.info.virtualSizeBytes} bytes, not of ${source?.virtualSizeBytes ?? '?'}`;
  const below = copies[i + 1];
  const { backing } = seen.info;
  if (backing === null) return below === undefined ? null : `it stands alone, not on ${below.path}`;
  const named = posix.resolve(posix.dirname(copy.path), backing.filename);
  if (below === undefined) return `it stands on ${named}, where the source stands alone`;
  if (named !== below.path) return `it stands on ${named}, not on ${below.path}`;
  if (backing.format !== below.format)
    return `its header calls ${named} ${backing.format ?? 'nothing'}, not ${below.format}`;
  return null;
}

/** What is shared, as it was when the plan was made. */
export const heldShared = (request: Asked, images: readonly Image[]): readonly HeldImage[] =>
  copiesOf(images, request)
    .slice(images.length - sharedOf(request, images))
    .map(({ path }) => ({ path, file: identityOf(request, path) }));

const identityOf = ({ there }: Asked, path: string): FileIdentity =>
  present(there.get(path), 'checked before');

/** Proves each image that is shared, the base first. */
export function checkSteps(
  request: Asked,
  images: readonly Image[],
): readonly StepOf<'check-image'>[] {
  const copies = copiesOf(images, request);
  const shared = sharedOf(request, images);
  if (shared === 0) return [];
  const source = images.map(({ source, format }) => ({ path: localPath(source) ?? '', format }));
  const first = copies.length - shared;
  return copies
    .slice(first)
    .map((copy, i): StepOf<'check-image'> => ({
      kind: 'check-image',
      source: source.slice(first + i),
      image: copies.slice(first + i),
      file: identityOf(request, copy.path),
      ...(request.bytesPerSecond === null ? {} : { bytesPerSecond: request.bytesPerSecond }),
    }))
    .toReversed();
}
