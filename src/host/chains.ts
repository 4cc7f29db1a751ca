// Which images a disk really has, and whether they may be opened: headers followed (law 7), what was recorded
// compared with what is there, roles asked (law 13).

import { posix } from 'node:path';
import type { PathFacts } from '../block/facts.js';
import { nothingThere } from '../block/facts.js';
import type { Format, Image, StorageSource } from '../block/layer.js';
import { localPath, sameSource, showSource } from '../block/layer.js';
import type { Definition } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import type { ImageRole, RecordedChain } from '../domain/record.js';
import type { ImageStore } from '../image/store.js';
import { RequestError, StateError, SystemError } from '../std/errors.js';
import type { Known } from './context.js';

const MAX_DEPTH = 200;

/**
 * The images that the headers name below `image`, nearest first.
 *
 * Only headers of qcow2 images that were named with that format are followed. Each needs the format of what it names in
 * the header; `json:`, protocols and external data files are refused (law 7).
 */
export async function followHeaders(images: ImageStore, image: Image): Promise<readonly Image[]> {
  const chain: Image[] = [];
  const seen = new Set([showSource(image.source)]);
  let at = image;
  for (;;) {
    const next = await below(images, at);
    if (next === null) return chain;
    if (seen.has(showSource(next.source))) {
      throw unusable(
        `the backing chain of ${showSource(image.source)} comes back to ${showSource(next.source)}`,
      );
    }
    if (chain.length >= MAX_DEPTH)
      throw unusable(
        `the backing chain of ${showSource(image.source)} is longer than ${MAX_DEPTH} images`,
      );
    seen.add(showSource(next.source));
    chain.push(next);
    at = next;
  }
}

const unusable = (text: string): RequestError =>
  new RequestError('CONFIG_UNSUPPORTED', text, { from: 'storage' });

async function below(images: ImageStore, image: Image): Promise<Image | null> {
  const path = localPath(image.source);
  if (path === null || image.format === 'raw') return null;
  const info = await images.info(path, image.format);
  if (info === null)
    throw new SystemError(`Cannot access storage file '${path}': No such file or directory`, {
      from: 'storage',
    });
  if (info.special.length > 0)
    throw unusable(`image ${path} has ${info.special.join(', ')}, which is not supported`);
  if (info.backing === null) return null;
  const { filename, format } = info.backing;
  if (/^[a-z0-9+.-]+:/i.test(filename)) {
    throw unusable(
      `image ${path} names '${filename}' below it, which is not a plain path; give the chain with <backingStore>, or 'qemu-img rebase -u' it`,
    );
  }
  if (format === null) {
    throw unusable(
      `image ${path} does not say the format of '${filename}' below it, and formats are never guessed; 'qemu-img rebase -u -F FORMAT -b ${filename} ${path}' says it`,
    );
  }
  if (format !== 'qcow2' && format !== 'raw')
    throw unusable(
      `image ${path} names '${filename}' of format '${format}' below it; only qcow2 and raw are supported`,
    );
  const target = posix.resolve(posix.dirname(path), filename);
  const facts = await images.stat(target);
  if (facts === null)
    throw new SystemError(
      `Cannot access backing file '${target}' of storage file '${path}': No such file or directory`,
      { from: 'storage' },
    );
  return {
    source: sourceAt(target, facts.kind === 'block'),
    format: format satisfies Format,
    index: null,
  };
}

const sourceAt = (path: string, isBlock: boolean): StorageSource =>
  isBlock ? { type: 'block', path } : { type: 'file', path };

/**
 * How much is looked at: the image's own header; the chain that it names as well; whether it is empty as well, which
 * takes a lock and so is for images that nobody has open.
 */
export type LookDepth = 'header' | 'chain' | 'data';

/** Everything that a planner may ask of `image`. */
export async function factsOf(
  images: ImageStore,
  image: Image,
  depth: LookDepth,
): Promise<PathFacts> {
  const path = localPath(image.source);
  if (path === null) return nothingThere;
  const file = await images.stat(path);
  if (file === null || (file.kind === 'file' && file.sizeBytes === 0n))
    return { ...nothingThere, file };
  if (file.kind !== 'file' && file.kind !== 'block') return { ...nothingThere, file };
  const info = await images.info(path, image.format).catch(() => null);
  if (info === null) return { ...nothingThere, file };
  if (depth === 'header') return { ...nothingThere, file, info };
  const empty = depth === 'data' ? await images.isEmpty(path, image.format) : false;
  return { file, info, empty, below: await followHeaders(images, image) };
}

/** The chains of a definition's disks as far as the images are there: what a define records. */
export async function chainsOf(
  images: ImageStore,
  definition: Definition,
): Promise<readonly RecordedChain[]> {
  const found = await Promise.all(
    definition.disks.map(async (disk): Promise<readonly RecordedChain[]> => {
      if (disk.source === null) return [];
      const top: Image = { source: disk.source, format: disk.format, index: null };
      const path = localPath(disk.source);
      if (path === null || (await images.stat(path)) === null) return [];
      return [{ target: disk.target, images: [top, ...(await backingOf(images, top, disk))] }];
    }),
  );
  return found.flat();
}

/** The definition with every disk's whole chain, as a start opens it. Refuses what changed behind our back. */
export async function resolveChains(
  images: ImageStore,
  definition: Definition,
  recorded: readonly RecordedChain[],
): Promise<Definition> {
  const disks = await Promise.all(
    definition.disks.map((disk) => resolveChain(images, definition.name, disk, recorded)),
  );
  return { ...definition, disks };
}

/** What lies below `top`: what the definition says, and where it leaves off what the headers say. */
async function backingOf(
  images: ImageStore,
  top: Image,
  { backing, openEnded }: Disk,
): Promise<readonly Image[]> {
  if (backing === null) return await followHeaders(images, top);
  if (openEnded !== true) return backing;
  return [...backing, ...(await followHeaders(images, backing.at(-1) ?? top))];
}

async function resolveChain(
  images: ImageStore,
  domain: string,
  disk: Disk,
  recorded: readonly RecordedChain[],
): Promise<Disk> {
  if (disk.source === null) return disk;
  const top: Image = { source: disk.source, format: disk.format, index: null };
  await mustExist(images, top);
  for (const image of disk.backing ?? []) await mustExist(images, image);
  if (disk.backing !== null && disk.openEnded !== true) return disk;
  const backing = await backingOf(images, top, disk);
  const known = recorded.find((chain) => chain.target === disk.target)?.images;
  if (
    known?.[0] !== undefined &&
    sameSource(known[0].source, top.source) &&
    !sameImages(known.slice(1), backing)
  ) {
    throw new StateError(
      'OPERATION_INVALID',
      `the backing chain of disk '${disk.target}' is not the one that was recorded: ` +
        `it was ${show(known)}, the headers now say ${show([top, ...backing])}; ` +
        `if that is right, define the domain again ('ferry dumpxml --inactive ${domain} | ferry define -')`,
    );
  }
  return { ...disk, backing, openEnded: false };
}

async function mustExist(images: ImageStore, image: Image): Promise<void> {
  const path = localPath(image.source);
  if (path === null) return;
  const facts = await images.stat(path);
  if (facts === null)
    throw new SystemError(`Cannot access storage file '${path}': No such file or directory`, {
      from: 'storage',
    });
  const wanted = image.source.type === 'block' ? 'block' : 'file';
  if (facts.kind !== wanted)
    throw unusable(
      `'${path}' is not a ${wanted === 'block' ? 'block device' : 'regular file'}, as its <source> says`,
    );
}

const sameImages = (a: readonly Image[], b: readonly Image[]): boolean =>
  a.length === b.length &&
  a.every((image, i) => image.format === b[i]?.format && sameSource(image.source, b[i].source));

const show = (images: readonly Image[]): string =>
  images.map((image) => showSource(image.source)).join(' ← ');

export interface RolesAsked {
  readonly known: Known;
  readonly images: ImageStore;
  /** Those that are stored, and those of moves that wait. */
  readonly roles: readonly ImageRole[];
}

/**
 * Law 13 for a domain that is about to open its images: none that it writes is stale, unfinished or sealed below
 * another, and none is open in another domain.
 */
export async function checkRoles(asked: RolesAsked, definition: Definition): Promise<void> {
  for (const disk of definition.disks) {
    for (const [i, image] of imagesOf(disk).entries()) {
      const path = localPath(image.source);
      if (path === null) continue;
      // A base that became stale as a top may still be sealed below the live image; only the top is written.
      if (i === 0 && !disk.readonly) await checkRole(asked, definition, disk, path);
      const writes = i === 0 && !disk.readonly && !disk.shareable;
      checkOthers(asked.known, definition.uuid, disk, path, writes);
    }
  }
}

async function checkRole(
  { images, roles }: RolesAsked,
  { uuid, name }: Definition,
  disk: Disk,
  path: string,
): Promise<void> {
  for (const role of roles) {
    const isSameDisk =
      role.target === disk.target && (role.domain === uuid || role.domainName === name);
    // Half an image is nobody's; an old one may have become the image of another domain on purpose.
    if (role.path !== path || !(isSameDisk || role.role === 'unfinished')) continue;
    const bornMs = (await images.stat(path))?.bornMs ?? 0;
    // Another file has come to be at that path since.
    if (bornMs > (role.sinceSeconds + 1) * 1000) continue;
    throw wrongImage(name, disk, role);
  }
}

function wrongImage(domain: string, disk: Disk, role: ImageRole): StateError {
  const since = new Date(role.sinceSeconds * 1000).toISOString();
  const what = {
    stale: `is stale since ${since}`,
    unfinished: `is the unfinished destination of a mirror or a move that ended ${since}`,
    sealed: 'lies below the live image, and writing to it would damage that',
  }[role.role];
  return new StateError(
    'OPERATION_INVALID',
    `image ${role.path} of disk '${disk.target}' of domain '${domain}' ${what}; the live image is ${role.live}: name that one`,
    { sourceIntact: true, next: [`ferry chain ${domain}`] },
  );
}

/** Who writes an image must be alone with it; who only reads must not read what somebody writes. */
function checkOthers(known: Known, uuid: string, disk: Disk, path: string, writes: boolean): void {
  for (const other of known.all()) {
    if (other.uuid === uuid || other.live === null) continue;
    for (const theirs of other.live.definition.disks) {
      const at = [
        ...imagesOf(theirs),
        ...(theirs.mirror === null ? [] : [theirs.mirror.image]),
      ].findIndex((image) => localPath(image.source) === path);
      if (at < 0) continue;
      const theyWrite =
        !theirs.readonly && !theirs.shareable && (at === 0 || at === imagesOf(theirs).length);
      if (!writes && !theyWrite) continue;
      throw new StateError(
        'OPERATION_INVALID',
        `image ${path} of disk '${disk.target}' is ${theyWrite ? 'live' : 'in use'} for disk '${theirs.target}' of running domain '${other.name}'; stop that domain or use another image`,
        { from: 'qemu' },
      );
    }
  }
}
