// A storage in memory: files by path, each an image whose data is a map from block to the number of the guest
// write that it holds. It knows who has a file open, refuses what file locks refuse, forgets unflushed writes
// when a process dies, and records what no polite program does.

import { SystemError } from '../../src/std/errors.js';
import { present } from '../../src/std/assert.js';
import type { BackingRef, CopyRequest, ImageFormat, ImageInfo, ImageStore } from './image-store.js';

export const blockBytes = 4096;

export type OpenMode = 'read' | 'write';

/** An image file: an inode, so it stays itself when renamed. */
export interface Image {
  readonly inode: bigint;
  readonly format: ImageFormat;
  readonly clusterBlocks: number;
  virtualSizeBytes: bigint;
  backing: BackingRef | null;
  /** Block number to write number; 0 is zeroes. qcow2: all blocks of an allocated cluster are there. */
  readonly blocks: Map<number, number>;
  /** Blocks written since the last flush, with what they held before. */
  readonly unflushed: Map<number, number | undefined>;
  /** Blocks that are something else on the storage than the page cache says. */
  readonly rotten: Map<number, number>;
  /** Who has it open: a key per process and node. */
  readonly opens: Map<string, OpenMode>;
  synced: boolean;
  /** When it was last written to. */
  writtenAt: bigint;
  /** Why nothing may write to it any more, or null. */
  sealed: string | null;
}

/** What survives of unflushed writes when their process is killed. */
export type Survival = 'none' | 'half' | 'all';

export class FakeStorage implements ImageStore {
  readonly files = new Map<string, Image>();
  /** What was rude so far; tests expect it to be empty. */
  readonly rudeness: string[] = [];
  /** Whether files of it can share blocks. */
  reflinks = false;
  private ticks = 0n;

  async create(request: Parameters<ImageStore['create']>[0]): Promise<void> {
    const { path, format, sizeBytes, backing, clusterSizeBytes = 65536 } = request;
    if (this.files.has(path)) throw failed('create', path, 'File exists');
    this.files.set(path, {
      ...this.newFile(),
      format,
      clusterBlocks: format === 'raw' ? 1 : clusterSizeBytes / blockBytes,
      virtualSizeBytes: sizeBytes,
      backing,
    });
  }

  private newFile() {
    const inode = ++this.ticks;
    return {
      inode,
      blocks: new Map(),
      unflushed: new Map(),
      rotten: new Map(),
      opens: new Map(),
      synced: false,
      writtenAt: inode,
      sealed: null,
    };
  }

  async info(path: string): Promise<ImageInfo | null> {
    const image = this.files.get(path);
    if (image === undefined) return null;
    return {
      path,
      format: image.format,
      virtualSizeBytes: image.virtualSizeBytes,
      actualSizeBytes: BigInt((image.blocks.size + 48) * blockBytes),
      backing: image.backing,
      clusterSizeBytes: image.format === 'raw' ? null : image.clusterBlocks * blockBytes,
    };
  }

  async remove(path: string): Promise<void> {
    const image = this.files.get(path);
    if (image === undefined) return;
    this.refuseOpen('remove', path, image, ['read', 'write']);
    this.files.delete(path);
  }

  async rename(from: string, to: string): Promise<void> {
    const image = this.at('rename', from);
    this.refuseOpen('rename', from, image, ['read', 'write']);
    const over = this.files.get(to);
    if (over !== undefined) this.refuseOpen('rename over', to, over, ['read', 'write']);
    if (!image.synced) this.rude(`rename ${from}: it was not synced before`);
    this.files.delete(from);
    this.files.set(to, image);
  }

  async copy({ from, to }: CopyRequest): Promise<void> {
    const source = this.at('copy', from);
    const target = this.beginCopy(from, to);
    for (const [block, value] of source.blocks) target.blocks.set(block, value);
    // A copy takes time: whoever waits for it sees the world go on.
    await new Promise<void>((resolve) => setImmediate(resolve));
  }

  /** A new file at `to`, whatever was there: the header of the source and nothing else. */
  beginCopy(from: string, to: string): Image {
    const source = this.at('copy', from);
    this.refuseOpen('copy', from, source, ['write']);
    const over = this.files.get(to);
    if (over !== undefined) this.refuseOpen('copy over', to, over, ['read', 'write']);
    const target: Image = { ...source, ...this.newFile() };
    this.files.set(to, target);
    return target;
  }

  async commitOffline(path: string, into: BackingRef | null = null): Promise<void> {
    const image = this.at('commit', path);
    this.refuseOpen('commit', path, image, ['read', 'write']);
    const below = present(into ?? image.backing, `commit ${path}: it has no backing file`);
    const base = this.at('commit', below.path);
    this.refuseOpen('commit', below.path, base, ['read', 'write']);
    if (base.virtualSizeBytes < image.virtualSizeBytes)
      base.virtualSizeBytes = image.virtualSizeBytes;
    for (const [block, value] of image.blocks) this.put(base, block, value, this.beneath(base));
    this.flush(base);
    if (into === null) image.blocks.clear();
    image.writtenAt = ++this.ticks;
    base.synced = false;
  }

  async isEmpty(path: string): Promise<boolean> {
    return this.at('map', path).blocks.size === 0;
  }

  async setBacking(path: string, backing: BackingRef | null): Promise<void> {
    const image = this.at('rebase', path);
    this.refuseOpen('rebase', path, image, ['read', 'write']);
    image.backing = backing;
    image.writtenAt = ++this.ticks;
  }

  async sync(path: string): Promise<void> {
    this.at('sync', path).synced = true;
  }

  /** From now on a write to the image is rude: it is a layer that others rely on. */
  seal(path: string, why: string): void {
    this.at('seal', path).sealed = why;
  }

  /** A process of the daemon's keeps writers off, and what was written before is on disk. */
  hold(by: string, paths: readonly string[]): void {
    for (const path of paths) {
      const image = this.at('hold', path);
      const refusal = this.open(image, `holder:${by}:${path}`, 'read');
      if (refusal !== null) throw failed('hold', path, refusal);
      this.flush(image);
    }
  }

  letGo(by: string): void {
    this.processDied(`holder:${by}`, 'all');
  }

  /** The path of an image, for messages: its first name. */
  pathOf(image: Image): string {
    for (const [path, one] of this.files) if (one === image) return path;
    return '(unlinked)';
  }

  rude(what: string): void {
    this.rudeness.push(what);
  }

  /** Writes one block; an unallocated cluster is filled from `beneath` first, as copy-on-write does. */
  put(image: Image, block: number, value: number, beneath: (block: number) => number): void {
    if (image.sealed !== null)
      this.rude(`write to ${this.pathOf(image)}, which is sealed: ${image.sealed}`);
    const first = block - (block % image.clusterBlocks);
    if (!image.blocks.has(block))
      for (let other = first; other < first + image.clusterBlocks; other++)
        this.set(image, other, image.format === 'raw' ? 0 : beneath(other));
    this.set(image, block, value);
  }

  flush(image: Image): void {
    image.unflushed.clear();
  }

  /** The end of a process: its locks go, and of its unflushed writes what `survival` leaves. */
  processDied(owner: string, survival: Survival): void {
    for (const image of this.files.values()) {
      const keys = [...image.opens.keys()].filter((key) => key.startsWith(`${owner}:`));
      const wrote = keys.some((key) => image.opens.get(key) === 'write');
      for (const key of keys) image.opens.delete(key);
      if (wrote) forgetUnflushed(image, survival);
    }
  }

  /** The host loses its power, after QEMU died with it: what nobody flushed is lost, all of it or half. */
  powerFailed(survival: Survival): void {
    for (const image of this.files.values()) {
      forgetUnflushed(image, survival);
      // Nothing is cached any more.
      for (const [block, value] of image.rotten) image.blocks.set(block, value);
      image.rotten.clear();
    }
  }

  /** Bytes that were said to be on disk, and are not. */
  loseHalf(image: Image): void {
    for (const block of image.blocks.keys())
      if (Math.floor(block / image.clusterBlocks) % 2 === 1) image.blocks.delete(block);
  }

  /** Takes or changes a lock; the text of QEMU's refusal, or null. */
  open(image: Image, key: string, mode: OpenMode): string | null {
    const others = [...image.opens].filter(([other]) => other !== key).map(([, theirs]) => theirs);
    if (mode === 'write' && others.length > 0) return 'Failed to get "write" lock';
    if (others.includes('write')) return 'Failed to get shared "write" lock';
    image.opens.set(key, mode);
    return null;
  }

  /** What a reader of the file at `path` sees in a block, following headers; or following `chain`, if given. */
  read(path: string, block: number, chain: readonly string[] | null = null): number {
    const image = this.at('read', path);
    const own = image.blocks.get(block);
    if (own !== undefined) return own;
    const [, ...below] = chain ?? [path];
    const next = chain === null ? (image.backing?.path ?? null) : (below[0] ?? null);
    return next === null ? 0 : this.read(next, block, chain === null ? null : below);
  }

  private beneath(image: Image): (block: number) => number {
    const below = image.backing;
    return (block) => (below === null ? 0 : this.read(below.path, block));
  }

  /** Writes one block of the file as it lies there; `undefined`: as if it had never been allocated. */
  set(image: Image, block: number, value: number | undefined): void {
    image.writtenAt = ++this.ticks;
    if (!image.unflushed.has(block)) image.unflushed.set(block, image.blocks.get(block));
    image.rotten.delete(block);
    if (value === undefined) image.blocks.delete(block);
    else image.blocks.set(block, value);
  }

  private at(verb: string, path: string): Image {
    const image = this.files.get(path);
    if (image === undefined) throw failed(verb, path, 'No such file or directory');
    return image;
  }

  private refuseOpen(verb: string, path: string, image: Image, modes: readonly OpenMode[]): void {
    const open = [...image.opens].find(([, mode]) => modes.includes(mode));
    if (open === undefined) return;
    this.rude(`${verb} ${path}: it is open as ${open[0]}`);
    throw failed(verb, path, `it is open as ${open[0]}`);
  }
}

/** Takes back unflushed writes, by cluster, so that what is left is what some crash could leave. */
function forgetUnflushed(image: Image, survival: Survival): void {
  for (const [block, before] of image.unflushed) {
    const cluster = Math.floor(block / image.clusterBlocks);
    if (survival === 'all' || (survival === 'half' && cluster % 2 === 0)) continue;
    if (before === undefined) image.blocks.delete(block);
    else image.blocks.set(block, before);
  }
  image.unflushed.clear();
}

const failed = (verb: string, path: string, why: string): SystemError =>
  new SystemError(`${verb} ${path}: ${why}`);
