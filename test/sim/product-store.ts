// The product's image store over the fake's storage.

import { isDeepStrictEqual } from 'node:util';
import type { FileFacts, ImageInfo } from '../../src/block/facts.js';
import type { ConvertFiles } from '../../src/image/convert.js';
import { convertFrozen } from '../../src/image/convert.js';
import type { CopyFiles, Tuning } from '../../src/image/copying.js';
import { copyFrozen, rootOfTarget } from '../../src/image/copy.js';
import type { ImageStore } from '../../src/image/store.js';
import { FakeConvertFiles, FakeCopyFiles, identityOf } from '../fake/copy-files.js';
import type { FakeStorage } from '../fake/storage.js';
import { blockBytes } from '../fake/storage.js';

/** Whatever stands in these exists. */
export const folders = ['/src', '/dst', '/spare'] as const;

/** The fake keeps no times: nothing in a scenario is sealed and touched. */
const times = { modifiedNs: 0n, bornMs: null } as const;
/** The second disk comes from a storage of its own, so that its copies go on beside those of the others. */
const deviceOf = (path: string): bigint => (path.includes('vdb') ? 2n : 1n);
const aFile = { kind: 'file', readable: true, writable: true, ...times } as const;
const headerBytes = 196_608n;

/** Several pieces to an image of the bench, and a checkpoint for about every other. */
export const copyTuning: Tuning = {
  pieceBytes: 32 * blockBytes,
  checkpointBytes: 40 * blockBytes,
  checkpointMs: Infinity,
};

/** `outside`: puts the calls that a copy makes under the striker. */
export function productStore(
  storage: FakeStorage,
  outside: <T extends CopyFiles | ConvertFiles>(files: T) => T,
): ImageStore {
  const sync = async (path: string): Promise<void> => await storage.sync(path);
  /** Files of no bytes: the fake's are all images. */
  const empty = new Set<string>();
  return {
    stat: async (path) => {
      const found = statOf(storage, path);
      return (
        found ?? (empty.has(path) ? { ...aFile, device: deviceOf(path), sizeBytes: 0n } : null)
      );
    },
    device: async (path) => {
      throw new Error(`${path}: the fake has no block devices`);
    },
    own: async () => undefined,
    info: async (path) => {
      if (empty.has(path)) throw new Error(`info ${path}: Image is not in qcow2 format`);
      return await infoOf(storage, path);
    },
    create: async ({ clusterSizeBytes, ...image }) => {
      empty.delete(image.path);
      await storage.create({
        ...image,
        ...(clusterSizeBytes === null ? {} : { clusterSizeBytes }),
      });
      await sync(image.path);
    },
    isEmpty: async (path) => await storage.isEmpty(path),
    copy: copies(storage, outside),
    ...conversions(storage, outside),
    expectCopy: () => undefined,
    identity: async (path) => {
      const image = storage.files.get(path);
      return image === undefined ? null : identityOf(image);
    },
    rootOf: async (path, { pieceBytes }, signal) => {
      const files = new FakeCopyFiles(storage, path, path);
      return await rootOfTarget(files, await files.source(), pieceBytes, signal);
    },
    setBacking: async (path, backing) => {
      await storage.setBacking(path, backing);
      await sync(path);
    },
    commitOffline: async (overlay, base) => {
      await storage.commitOffline(overlay, base);
      await sync(base.path);
    },
    rename: async (from, to) => await storage.rename(from, to),
    remove: async (path) => {
      empty.delete(path);
      await storage.remove(path);
    },
    truncate: async (path) => {
      await storage.remove(path);
      empty.add(path);
    },
    hold: async (by, paths) => storage.hold(by, paths),
    letGo: async (by) => storage.letGo(by),
    sync,
    answer: async (path) => await sync(path),
    freeBytes: async () => 1n << 40n,
    readRate: async () => null,
    writeRate: async () => null,
  };
}

function copies(
  storage: FakeStorage,
  outside: (files: CopyFiles) => CopyFiles,
): ImageStore['copy'] {
  return async ({ from, to, ...request }) => {
    const files = outside(new FakeCopyFiles(storage, from, to));
    const doing = `copy ${from} to ${to}`;
    const whole = await copyFrozen(files, { ...request, doing }, copyTuning);
    if (!isCopy(storage, from, to)) storage.rude(`${doing}: it says that it is whole and is not`);
    return whole;
  };
}

function conversions(
  storage: FakeStorage,
  outside: (files: ConvertFiles) => ConvertFiles,
): Pick<ImageStore, 'convert' | 'compare' | 'measure'> {
  const files = new FakeConvertFiles(storage);
  return {
    convert: async (request) => {
      const whole = await convertFrozen(outside(files), request);
      const target = [{ path: request.to, format: request.format }, ...request.below];
      const { differsAt } = await files.compare({ ...request, source: request.chain, target });
      if (differsAt !== null)
        storage.rude(`convert ${request.to}: it says that it is whole and is not`);
      return whole;
    },
    compare: async (images) => await outside(files).compare(images),
    measure: async ({ chain }) => await files.dataBytes(chain),
  };
}

function statOf(storage: FakeStorage, path: string): FileFacts | null {
  const common = { readable: true, writable: true, device: deviceOf(path), ...times };
  if (folders.some((folder) => folder === path))
    return { kind: 'folder', sizeBytes: 0n, ...common };
  const image = storage.files.get(path);
  return image === undefined ? null : { ...aFile, device: deviceOf(path), sizeBytes: headerBytes };
}

async function infoOf(storage: FakeStorage, path: string): Promise<ImageInfo | null> {
  const info = await storage.info(path);
  if (info === null) return null;
  const { backing, ...rest } = info;
  const named = backing === null ? null : { filename: backing.path, format: backing.format };
  return { ...rest, backing: named, special: [], snapshots: 0 };
}

/** Whether the two hold the same, block by block, on the storage too. */
export function isCopy(storage: FakeStorage, from: string, to: string): boolean {
  if ((storage.files.get(to)?.rotten.size ?? 0) > 0) return false;
  const [source, target] = [from, to].map((path) =>
    [...(storage.files.get(path)?.blocks ?? [])].toSorted(([a], [b]) => a - b),
  );
  return isDeepStrictEqual(source, target);
}
