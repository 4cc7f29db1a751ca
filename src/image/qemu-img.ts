// The image store on this host: node's file system calls, and qemu-img for what is inside an image.

import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import { z } from 'zod';
import type { CopyWhole } from '../block/copy.js';
import type { FileFacts, ImageInfo } from '../block/facts.js';
import type { Format } from '../block/layer.js';
import { BusyError, SystemError, messageOf } from '../std/errors.js';
import { convertFrozen } from './convert.js';
import { HostConvertFiles } from './convert-host.js';
import { copyFrozen, rootOfTarget } from './copy.js';
import type { CopyTool } from './copy-host.js';
import { HostCopyFiles, identityOf } from './copy-host.js';
import { chainName } from './chain-name.js';
import { deviceInfo } from './device.js';
import { warmUp } from './copy-threads.js';
import { dataExtents } from './extents.js';
import { ImageHolds } from './hold.js';
import { newKey } from './pieces.js';
import { readRate, writeRate } from './rates.js';
import type { Backing, CopyImage, CreateImage, Hashing, ImageStore, Owner } from './store.js';
import type { StorageLimit } from './storage-limits.js';
import { StorageLimits } from './storage-limits.js';
import { syncFile, syncFolder } from './sync.js';
import { runTool } from './tool.js';

const TOOL_TIMEOUT_MS = 60_000;
/** For all that a guest may have left in the page cache. */
const FLUSH_TIMEOUT_MS = 600_000;

/** The images of this host. `qemuImg` is the binary, found in PATH when it has no slash. */
export function hostImages(
  qemuImg = 'qemu-img',
  owner: Owner | null = null,
  storageLimits: readonly StorageLimit[] = [],
): ImageStore {
  const limits = new StorageLimits(storageLimits);
  const run = (args: readonly string[], timeoutMs = TOOL_TIMEOUT_MS): Promise<string> =>
    runTool(qemuImg, args, timeoutMs);
  const tool = copyTool(qemuImg);
  const converting = new HostConvertFiles(qemuImg, tool, owner);
  const holds = new ImageHolds(qemuImg.replace(/qemu-img$/, 'qemu-io'));
  return {
    stat,
    device: deviceInfo,
    own: async (path) => {
      if (owner !== null) await fs.chown(path, owner.uid, owner.gid);
    },
    info: (path, format) => info(run, path, format),
    create: async (image) => {
      await create(run, image);
      if (owner !== null) await fs.chown(image.path, owner.uid, owner.gid);
    },
    isEmpty: (path, format) => isEmpty(run, path, format),
    copy: async (copying) => {
      const pace = await limits.for(copying.to, copying.pace);
      return await copy(tool, owner, { ...copying, ...(pace === undefined ? {} : { pace }) });
    },
    convert: async (request) => await convertFrozen(converting, request),
    compare: async (request) => await converting.compare(request),
    measure: async (conversion) => await converting.measure(conversion),
    expectCopy: warmUp,
    identity: identityOf,
    rootOf: async (path, by, signal) => await rootOf(tool, path, by, signal),
    setBacking: (path, backing) => setBacking(run, path, backing),
    commitOffline: (overlay, base) => commitOffline(run, overlay, base),
    rename,
    remove,
    truncate: async (path) => {
      await fs.truncate(path, 0);
      await syncFile(path);
    },
    hold: async (by, paths) => {
      // What its last QEMU left in the page cache would not outlive a crash of the host, and its copy would.
      for (const path of await holds.hold(by, paths)) await answer(path, FLUSH_TIMEOUT_MS);
    },
    letGo: async (by) => await holds.letGo(by),
    sync: syncFile,
    answer,
    freeBytes,
    readRate,
    writeRate,
  };
}

/** What a copy asks of `qemuImg`. */
export function copyTool(qemuImg: string): CopyTool {
  const run: Run = (args, timeoutMs = TOOL_TIMEOUT_MS) => runTool(qemuImg, args, timeoutMs);
  return {
    extents: (path, sizeBytes) => dataExtents(qemuImg, path, sizeBytes),
    setBacking: (path, backing) => setBacking(run, path, backing),
    hasBitmaps: (path) => hasBitmaps(run, path),
  };
}

type Run = (args: readonly string[], timeoutMs?: number) => Promise<string>;

async function stat(path: string): Promise<FileFacts | null> {
  try {
    const found = await fs.stat(path, { bigint: true });
    const kind = found.isFile()
      ? 'file'
      : found.isBlockDevice()
        ? 'block'
        : found.isDirectory()
          ? 'folder'
          : 'other';
    const can = (mode: number): Promise<boolean> =>
      fs.access(path, mode).then(
        () => true,
        () => false,
      );
    return {
      kind,
      sizeBytes: found.size,
      readable: await can(constants.R_OK),
      writable: await can(constants.W_OK),
      modifiedNs: found.mtimeNs,
      device: found.dev,
      bornMs: found.birthtimeMs > 0n ? Number(found.birthtimeMs) : null,
    };
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw new SystemError(`look at ${path}: ${messageOf(error)}`, { cause: error });
  }
}

const infoSchema = z.object({
  'virtual-size': z.number(),
  'actual-size': z.number().optional(),
  'cluster-size': z.number().optional(),
  'backing-filename': z.string().optional(),
  'backing-filename-format': z.string().optional(),
  encrypted: z.boolean().optional(),
  snapshots: z.array(z.unknown()).optional(),
  'format-specific': z
    .object({
      data: z.looseObject({ 'data-file': z.string().optional(), corrupt: z.boolean().optional() }),
    })
    .optional(),
});

async function info(run: Run, path: string, format: Format): Promise<ImageInfo | null> {
  if ((await stat(path)) === null) return null;
  // -U: a guest may have it open; only the header is read.
  const said = infoSchema.parse(
    JSON.parse(await run(['info', '-U', '--output=json', jsonName(path, format)])),
  );
  const data = said['format-specific']?.data;
  const special = [
    ...(data?.['data-file'] === undefined ? [] : [`an external data file (${data['data-file']})`]),
    ...(data?.corrupt === true ? ['marked corrupt'] : []),
    ...(said.encrypted === true ? ['encrypted'] : []),
  ];
  return {
    path,
    format,
    virtualSizeBytes: BigInt(said['virtual-size']),
    actualSizeBytes: BigInt(said['actual-size'] ?? 0),
    clusterSizeBytes: said['cluster-size'] ?? null,
    backing:
      said['backing-filename'] === undefined
        ? null
        : { filename: said['backing-filename'], format: said['backing-filename-format'] ?? null },
    special,
    snapshots: said.snapshots?.length ?? 0,
  };
}

const jsonName = (path: string, format: Format, backing: Backing | null = null): string =>
  chainName([{ path, format }, ...(backing === null ? [] : [backing])]);

async function create(run: Run, image: CreateImage): Promise<void> {
  const backing =
    image.backing === null ? [] : ['-u', '-b', image.backing.path, '-F', image.backing.format];
  const options =
    image.clusterSizeBytes === null ? [] : ['-o', `cluster_size=${image.clusterSizeBytes}`];
  await run([
    'create',
    '-q',
    '-f',
    image.format,
    ...backing,
    ...options,
    image.path,
    image.sizeBytes.toString(),
  ]);
  await syncFile(image.path);
}

const mapSchema = z.array(z.object({ present: z.boolean(), data: z.boolean() }));

async function isEmpty(run: Run, path: string, format: Format): Promise<boolean> {
  const map = mapSchema.parse(
    JSON.parse(await run(['map', '-U', '--output=json', jsonName(path, format)])),
  );
  // With no backing opened, what the image does not hold itself is `present: false`; explicit zeroes are its own.
  return map.every((extent) => !extent.data && !extent.present);
}

async function copy(
  tool: CopyTool,
  owner: Owner | null,
  { from, to, ...copying }: CopyImage,
): Promise<CopyWhole> {
  const key = copying.saved?.key ?? newKey();
  await using files = new HostCopyFiles({ from, to, key }, tool, owner);
  return await copyFrozen(files, { ...copying, doing: `copy ${from} to ${to}` });
}

async function rootOf(
  tool: CopyTool,
  path: string,
  { pieceBytes, key }: Hashing,
  signal: AbortSignal,
): Promise<string> {
  await using files = new HostCopyFiles({ from: path, to: path, key }, tool, null);
  return await rootOfTarget(files, await files.source(), pieceBytes, signal);
}

const bitmapsSchema = z.object({
  'format-specific': z
    .object({ data: z.looseObject({ bitmaps: z.array(z.unknown()).optional() }) })
    .optional(),
});

async function hasBitmaps(run: Run, path: string): Promise<boolean> {
  const said = await run(['info', '-U', '--output=json', jsonName(path, 'qcow2')]);
  const { 'format-specific': format } = bitmapsSchema.parse(JSON.parse(said));
  return (format?.data.bitmaps?.length ?? 0) > 0;
}

async function setBacking(run: Run, path: string, backing: Backing | null): Promise<void> {
  const to = backing === null ? ['-b', ''] : ['-b', backing.path, '-F', backing.format];
  await run(['rebase', '-q', '-u', '-f', 'qcow2', ...to, path]);
  await syncFile(path);
}

async function commitOffline(run: Run, overlay: string, base: Backing): Promise<void> {
  // Every name explicit: the header may say something else than the journal (law 7).
  await run(['commit', '-q', '-d', jsonName(overlay, 'qcow2', base)], 3_600_000);
  await syncFile(base.path);
}

async function rename(from: string, to: string): Promise<void> {
  await fs.rename(from, to);
  await syncFolder(to);
}

async function remove(path: string): Promise<void> {
  await fs.rm(path, { force: true });
  await syncFolder(path).catch((error: unknown) => {
    if (codeOf(error) !== 'ENOENT') throw error;
  });
}

function answer(path: string, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('sync', ['--', path], { stdio: ['ignore', 'ignore', 'pipe'] });
    // It ends when the storage comes back; nobody waits for it.
    child.unref();
    let complaint = '';
    child.stderr.on('data', (text: Buffer) => (complaint += text.toString()));
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      child.stderr.destroy();
      reject(new BusyError(`${path} (fsync): its storage did not answer within ${timeoutMs} ms`));
    }, timeoutMs);
    const end = (error: SystemError | null): void => {
      clearTimeout(timer);
      if (error === null) resolve();
      else reject(error);
    };
    child.on('error', (cause) => end(new SystemError(messageOf(cause), { cause })));
    child.on('close', (code) =>
      end(code === 0 ? null : new SystemError(`${path} (fsync): ${complaint.trim()}`)),
    );
  });
}

async function freeBytes(folder: string): Promise<bigint> {
  const found = await fs.statfs(folder, { bigint: true });
  return found.bavail * found.bsize;
}

const codeOf = (error: unknown): string | null =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : null;
