// The two files of a copy, over the fake's storage. The first piece holds the header, as that of a real file does.

import type { Extent, FileIdentity } from '../../src/block/copy.js';
import type { CopyFiles, ReadBack } from '../../src/image/copying.js';
import type { Window } from '../../src/image/pieces.js';
import { emptyHash } from '../../src/image/pieces.js';
import type { Backing } from '../../src/image/store.js';
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
