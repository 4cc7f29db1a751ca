// The two files of a copy, over the fake's storage. The first piece holds the header, as that of a real file does.

import type { Extent, FileIdentity } from '../../src/block/copy.js';
import type {
  CompareImages,
  Compared,
  Conversion,
  ConvertFiles,
  Going,
  StoredFile,
} from '../../src/image/convert.js';
import { readBackTarget } from '../../src/image/copy.js';
import type { CopyFiles, ReadBack } from '../../src/image/copying.js';
import type { Window } from '../../src/image/pieces.js';
import { emptyHash } from '../../src/image/pieces.js';
import type { Backing, Hashing } from '../../src/image/store.js';
import { present } from '../../src/std/assert.js';
import type { FakeStorage, Image } from './storage.js';
import { blockBytes } from './storage.js';

export class FakeCopyFiles implements CopyFiles {
  readonly key = 'key';
  readonly lanes = 2;
  private readonly storage: FakeStorage;
  private readonly from: string;
  private readonly to: string;

  constructor(storage: FakeStorage, from: string, to: string) {
    this.storage = storage;
    this.from = from;
    this.to = to;
  }

  async source(): Promise<FileIdentity> {
    return identityOf(this.imageOf('source'));
  }

  async target(): Promise<FileIdentity | null> {
    const image = this.storage.files.get(this.to);
    return image === undefined ? null : identityOf(image);
  }

  async extents(of: 'source' | 'target'): Promise<readonly Extent[]> {
    const blocks = [...this.imageOf(of).blocks.keys()].toSorted((a, b) => a - b);
    // The header.
    const all = blocks[0] === 0 ? blocks : [0, ...blocks];
    return all.map((block) => ({ start: block * blockBytes, length: blockBytes }));
  }

  async clone(): Promise<boolean> {
    if (!this.storage.reflinks) return false;
    const source = this.imageOf('source');
    const target = this.storage.beginCopy(this.from, this.to);
    for (const [block, value] of source.blocks) target.blocks.set(block, value);
    target.synced = true;
    return true;
  }

  async begin(): Promise<void> {
    this.storage.beginCopy(this.from, this.to);
  }

  async copy(piece: Window, used: readonly Extent[]): Promise<string> {
    const source = this.imageOf('source');
    const target = this.imageOf('target');
    const data = contentOf(source, piece.parts);
    if (piece.offset === 0) target.backing = source.backing;
    for (const [block, value] of data) this.storage.set(target, block, value);
    for (const [block] of contentOf(target, used))
      if (!data.has(block)) this.storage.set(target, block, undefined);
    // A copy takes time: whoever waits for it sees the world go on.
    await new Promise<void>((resolve) => setImmediate(resolve));
    return hashOf(source, piece, data);
  }

  async check(piece: Window, used: readonly Extent[]): Promise<string> {
    const target = this.imageOf('target');
    return hashOf(target, piece, contentOf(target, used));
  }

  async readBack(piece: Window, used: readonly Extent[]): Promise<ReadBack> {
    const target = this.imageOf('target');
    const data = new Map(contentOf(target, used));
    for (const [block, value] of target.rotten) if (data.has(block)) data.set(block, value);
    return { hash: hashOf(target, piece, data), storageBytes: data.size * blockBytes };
  }

  async sync(): Promise<void> {
    this.storage.flush(this.imageOf('target'));
  }

  async setBacking(backing: Backing): Promise<Extent> {
    await this.storage.setBacking(this.to, backing);
    return { start: 0, length: blockBytes };
  }

  async seal(): Promise<FileIdentity> {
    const target = this.imageOf('target');
    this.storage.flush(target);
    target.synced = true;
    return identityOf(target);
  }

  private imageOf(of: 'source' | 'target'): Image {
    const path = of === 'source' ? this.from : this.to;
    return present(this.storage.files.get(path), `copy: there is no file ${path}`);
  }
}

export const identityOf = ({ inode, virtualSizeBytes, writtenAt }: Image): FileIdentity => ({
  inode,
  sizeBytes: virtualSizeBytes,
  mtimeNs: writtenAt,
});

/** What is allocated in those parts, by block. A block that is allocated and zero hides what is below it, so it is no hole. */
function contentOf(image: Image, parts: readonly Extent[]): ReadonlyMap<number, number> {
  const found = [...image.blocks].filter(([block]) => {
    const at = block * blockBytes;
    return parts.some(({ start, length }) => at >= start && at < start + length);
  });
  return new Map(found.toSorted(([a], [b]) => a - b));
}

function hashOf(image: Image, piece: Window, data: ReadonlyMap<number, number>): string {
  const header = piece.offset === 0 ? [image.format, image.backing] : null;
  return header === null && data.size === 0 ? emptyHash : JSON.stringify([header, ...data]);
}

/** What qemu-img does with them: the target is a new image, and its blocks are those that the chain holds. */
export class FakeConvertFiles implements ConvertFiles {
  private readonly storage: FakeStorage;

  constructor(storage: FakeStorage) {
    this.storage = storage;
  }

  async identity(path: string): Promise<FileIdentity | null> {
    const image = this.storage.files.get(path);
    return image === undefined ? null : identityOf(image);
  }

  async dataBytes(chain: readonly Backing[]): Promise<bigint> {
    const images = chain.map(({ path }) => this.storage.files.get(path));
    return images.reduce((sum, image) => sum + BigInt((image?.blocks.size ?? 0) * blockBytes), 0n);
  }

  async begin(path: string): Promise<void> {
    await this.storage.remove(path);
    await this.storage.create({ path, format: 'raw', sizeBytes: 0n, backing: null });
    await this.storage.sync(path);
  }

  async convert(to: string, { chain, format, clusterSizeBytes, below }: Conversion): Promise<void> {
    const paths = chain.map(({ path }) => path);
    const top = present(this.storage.files.get(paths[0] ?? ''), 'the source is there');
    await this.storage.remove(to);
    await this.storage.create({
      path: to,
      format,
      sizeBytes: top.virtualSizeBytes,
      backing: below[0] ?? null,
      ...(clusterSizeBytes === null ? {} : { clusterSizeBytes }),
    });
    const target = present(this.storage.files.get(to), 'just made');
    const under = below.map(({ path }) => path);
    const beneath = (block: number): number =>
      under[0] === undefined ? 0 : this.storage.read(under[0], block, under);
    const blocks = Number(top.virtualSizeBytes) / blockBytes;
    for (let block = 0; block < blocks; block++) {
      const value = this.storage.read(paths[0] ?? '', block, paths);
      if (value !== beneath(block)) this.storage.put(target, block, value, beneath);
    }
    await new Promise<void>((resolve) => setImmediate(resolve));
  }

  async compare({ source, target }: CompareImages): Promise<Compared> {
    const [ours, theirs] = [source, target].map((chain) => chain.map(({ path }) => path));
    const top = present(this.storage.files.get(ours?.[0] ?? ''), 'the source is there');
    for (let block = 0; block < Number(top.virtualSizeBytes) / blockBytes; block++) {
      const [a, b] = [ours, theirs].map((paths = []) =>
        this.storage.read(paths[0] ?? '', block, paths),
      );
      if (a !== b) return { differsAt: BigInt(block * blockBytes) };
    }
    return { differsAt: null };
  }

  async readBack(path: string, { pieceBytes }: Hashing, going: Going): Promise<StoredFile> {
    return await readBackTarget(new FakeCopyFiles(this.storage, path, path), pieceBytes, going);
  }

  async seal(path: string): Promise<FileIdentity> {
    const image = present(this.storage.files.get(path), `seal ${path}: it is not there`);
    this.storage.flush(image);
    image.synced = true;
    return identityOf(image);
  }
}
