// Where a move puts each image, under which name and in what form, and what of that cannot be. Pure.

import { posix } from 'node:path';

import type { FileFacts } from '../block/facts.js';
import type { Image } from '../block/layer.js';
import { localPath } from '../block/layer.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import type { DomainRecord } from '../domain/record.js';
import { RequestError } from '../std/errors.js';
import type { Move } from './move.js';
import type { ConvertedImage, ImageFile } from './step.js';

/** What decides where images go. */
export type Placing = Pick<Move, 'to' | 'name' | 'form' | 'stamp'>;

/** What `--to` names: a folder, or a folder and the name of the top image in it. */
export interface Place {
  readonly to: string;
  readonly name: string | null;
}

/** Suffixes that no folder has by custom. */
const imageSuffixes = ['.qcow2', '.raw', '.img'];

/**
 * What is there decides. Where nothing is, `/` at the end tells a folder; a file is told by the suffix of an image, or
 * by that of the image that goes there (`tops`).
 */
export function placeOf(said: string, seen: FileFacts | null, tops: readonly string[]): Place {
  const path = posix.normalize(said);
  const to = path.replace(/(.)\/$/, '$1');
  const suffixes = [...imageSuffixes, ...tops.map((top) => posix.extname(top))];
  const suffix = posix.extname(to);
  const isFile =
    seen === null
      ? !path.endsWith('/') && suffix !== '' && suffixes.includes(suffix)
      : seen.kind !== 'folder' && !path.endsWith('/');
  return isFile && to.startsWith('/')
    ? { to: posix.dirname(to), name: posix.basename(to) }
    : { to, name: null };
}

export interface Destinations {
  /** Of each image at the destination, active first. */
  readonly copies: readonly string[];
  /** The move's own, on the source side and at the destination. */
  readonly overlays: readonly [string, string];
}

/** Paths that a move of `disk` would make, or find with `shareBase`; null: not all of its images are files of this host. */
export function destinationsOf(disk: Disk, placing: Placing): Destinations | null {
  const paths = imagesOf(disk).map((image) => localPath(image.source));
  const [top] = paths;
  if (top == null || paths.some((path) => path === null)) return null;
  const { to, stamp, form } = placing;
  const overlay = `${posix.basename(top)}.move-${stamp}`;
  return {
    copies: copiesOf(imagesOf(disk), placing).map(({ path }) => path),
    overlays: [posix.join(form.overlayDir ?? posix.dirname(top), overlay), posix.join(to, overlay)],
  };
}

/** The chain at the destination, active first. `images` is that of the source, of files of this host. */
export function copiesOf(
  images: readonly Image[],
  { to, name, form }: Placing,
): readonly ImageFile[] {
  return (form.flatten ? images.slice(0, 1) : images).map((image, i): ImageFile => {
    const base = posix.basename(localPath(image.source) ?? '');
    if (i > 0) return { path: posix.join(to, base), format: image.format };
    const format = form.format ?? image.format;
    // A name that tells the format goes on to tell the truth.
    const suffix = `.${image.format}`;
    const kept =
      format !== image.format && base.endsWith(suffix)
        ? `${base.slice(0, -suffix.length)}.${format}`
        : base;
    return { path: posix.join(to, name ?? kept), format };
  });
}

/**
 * How the top image becomes another one; null: it is copied byte for byte.
 *
 * `clusterSizeBytes` is that of the source's top image.
 */
export function conversionOf(
  images: readonly Image[],
  placing: Placing,
  clusterSizeBytes: number | null,
): ConvertedImage | null {
  const { form } = placing;
  const [top, ...below] = copiesOf(images, placing);
  const [from] = images;
  if (top === undefined || from === undefined) return null;
  const wanted = form.clusterSizeBytes === null ? null : Number(form.clusterSizeBytes);
  const isSame =
    top.format === from.format &&
    (wanted === null || wanted === clusterSizeBytes) &&
    (!form.flatten || images.length === 1);
  if (isSame) return null;
  return {
    chain: images.map(({ source, format }) => ({ path: localPath(source) ?? '', format })),
    format: top.format,
    clusterSizeBytes: top.format === 'raw' ? null : (wanted ?? clusterSizeBytes),
    below,
  };
}

const leastCluster = 1n << 16n;
const mostCluster = 1n << 21n;

/** What of a form cannot be, whatever is moved. */
export function formObstacle({
  form,
  name,
  to,
  disks,
  record,
}: Pick<Move, 'form' | 'name' | 'to' | 'disks' | 'record'>): Error | null {
  const bad = (text: string): Error =>
    new RequestError('INVALID_ARG', `move ${record.name}: ${text}`);
  const { clusterSizeBytes: cluster, flatten, shareBase, format, overlayDir } = form;
  if (name !== null && disks.length > 1)
    return bad(
      `${posix.join(to, name)} is the name of a file, and ${disks.length} disks are moved; name a folder`,
    );
  if (flatten && shareBase)
    return bad('a flattened chain has no base that could be shared; leave one of the two out');
  if (cluster !== null && format === 'raw') return bad('a raw image has no clusters');
  const isPower = cluster !== null && (cluster & (cluster - 1n)) === 0n;
  if (cluster !== null && (!isPower || cluster < leastCluster || cluster > mostCluster))
    return bad(`clusters of ${cluster} bytes; qcow2 takes powers of two from 64K to 2M here`);
  if (overlayDir !== null && !overlayDir.startsWith('/'))
    return bad(`the folder of the overlay, ${overlayDir}, must be an absolute path`);
  if (overlayDir !== null && posix.resolve(overlayDir) === posix.resolve(to))
    return bad(
      `${overlayDir} is the destination; the overlay belongs to the source side until the switch, so name another folder`,
    );
  return null;
}

/** What of a form cannot be for a disk. `copied`: the internal snapshots of a byte copy go along, those of a conversion not. */
export function diskFormObstacle(
  request: Placing & Pick<Move, 'record' | 'files'>,
  disk: Disk,
  bad: (text: string) => Error,
): Error | null {
  const { form, record, files } = request;
  const images = imagesOf(disk);
  const [top] = copiesOf(images, request);
  if (top?.format === 'raw' && images.length > 1 && !form.flatten)
    return bad(
      `its chain has ${images.length} images, and a raw image cannot stand on another; make one of them too ('--flatten'), or leave the format`,
    );
  if (top?.format === 'raw' && form.clusterSizeBytes !== null)
    return bad('its image is raw and has no clusters; add a format (--format qcow2)');
  const cluster = clusterOf(files, images);
  const conversion = conversionOf(images, request, cluster);
  if (conversion === null) return null;
  const inside = images.find(
    ({ source }) => (files.get(localPath(source) ?? '')?.info?.snapshots ?? 0) > 0,
  );
  if (inside !== undefined)
    return bad(
      `image ${localPath(inside.source)} holds internal snapshots, which a conversion would lose; delete them first, or move it as it is`,
    );
  return form.flatten ? flattenObstacle(record, disk, bad) : null;
}

/** A snapshot names the image that was made for it, and that would be no more. */
function flattenObstacle(
  { snapshots, name }: DomainRecord,
  disk: Disk,
  bad: (text: string) => Error,
): Error | null {
  const paths = new Set(imagesOf(disk).map(({ source }) => localPath(source)));
  const named = snapshots.filter((snapshot) =>
    snapshot.disks.some(
      ({ name: target, image }) =>
        target === disk.target && image !== null && paths.has(localPath(image.source)),
    ),
  );
  if (named.length === 0) return null;
  const names = named.map((snapshot) => snapshot.name).join(', ');
  return bad(
    `snapshot ${names} names images of its chain, which would be one image afterwards; forget it first ('ferry snapshot-delete ${name} ${named[0]?.name} --metadata'), or move the chain as it is`,
  );
}

export const clusterOf = (files: Move['files'], images: readonly Image[]): number | null => {
  const [top] = images;
  const path = top === undefined ? null : localPath(top.source);
  return files.get(path ?? '')?.info?.clusterSizeBytes ?? null;
};
