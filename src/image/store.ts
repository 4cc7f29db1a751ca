// Files on storage: created, looked at, copied, made durable. Everything about their inside is QEMU's own tools';
// nothing here decides, and nothing here opens an image that a guest writes.

import type { CopyWhole, FileIdentity } from '../block/copy.js';
import type { FileFacts, ImageInfo } from '../block/facts.js';
import type { Format } from '../block/layer.js';
import type { CompareImages, Compared, Conversion, ConvertImage } from './convert.js';
import type { CopyRequest } from './copying.js';

/** Who images are made for, when QEMU runs as another user. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export interface Backing {
  readonly path: string;
  readonly format: Format;
}

export interface CreateImage {
  readonly path: string;
  readonly format: Format;
  readonly sizeBytes: bigint;
  readonly backing: Backing | null;
  readonly clusterSizeBytes: number | null;
}

/** What the kernel says of a block device. */
export interface DeviceInfo {
  readonly sizeBytes: bigint;
  /** `MAJOR:MINOR`, the same by whatever path it is called. */
  readonly number: string;
  /** Who has it for himself, as the end of a sentence; null: nobody. */
  readonly heldBy: string | null;
}

/** How the hashes of a copy were made. */
export interface Hashing {
  readonly pieceBytes: number;
  readonly key: string;
}

/** A byte copy of a frozen image; `to` is what it is called until it is whole. */
export interface CopyImage extends Omit<CopyRequest, 'doing'> {
  readonly from: string;
  readonly to: string;
}

export interface ImageStore {
  /** Null: there is nothing at that path. Throws SystemError when it cannot be told (no permission, not a folder). */
  stat(path: string): Promise<FileFacts | null>;
  /** Of a block device. Throws SystemError for what is none. */
  device(path: string): Promise<DeviceInfo>;
  /** Gives what is there to the user that QEMU runs as, where that is another. */
  own(path: string): Promise<void>;
  /** Null: there is nothing at that path. Looks at the header without taking locks. */
  info(path: string, format: Format): Promise<ImageInfo | null>;
  create(image: CreateImage): Promise<void>;
  /** True when the image has no allocated cluster of its own (law 3). */
  isEmpty(path: string, format: Format): Promise<boolean>;
  /**
   * Byte copy that keeps holes and goes on where an earlier life of it was (`copy.ts`); whole and durable when it
   * resolves. What is at `to` and is not of use is overwritten.
   */
  copy(copy: CopyImage): Promise<CopyWhole>;
  /**
   * An image made by qemu-img from a chain, from the beginning each time (`convert.ts`); whole and durable when it resolves.
   * What is at `to` is replaced.
   */
  convert(convert: ConvertImage): Promise<CopyWhole>;
  /** Where two chains that nobody writes to differ for a guest, read past the page cache where the storage lets us. */
  compare(images: CompareImages): Promise<Compared>;
  /** What the result of a conversion takes at most on its storage. Looks at the images without taking locks. */
  measure(conversion: Conversion): Promise<bigint>;
  /** A copy comes soon: what takes time to start is started. Nothing comes of it if none comes. */
  expectCopy(): void;
  /** Null: there is nothing at that path. */
  identity(path: string): Promise<FileIdentity | null>;
  /** The root hash of a file as it lies there (`CopyWhole.root`), by the key of that copy. Reads all of it. */
  rootOf(path: string, by: Hashing, signal: AbortSignal): Promise<string>;
  /** Writes what the header names, without looking at data (`qemu-img rebase -u`). */
  setBacking(path: string, backing: Backing | null): Promise<void>;
  /** Brings the data of an overlay that nobody has open down into its backing image (`qemu-img commit`). */
  commitOffline(overlay: string, base: Backing): Promise<void>;
  /** Renames and makes both names durable. */
  rename(from: string, to: string): Promise<void>;
  /** Gone already is fine. Durable when it resolves. */
  remove(path: string): Promise<void>;
  /** Cuts a file back to nothing, as it was before we used it. Durable when it resolves. */
  truncate(path: string): Promise<void>;
  /**
   * Keeps everybody from writing to images that nobody has open, and those durable that wrote before; until `letGo`, or
   * until this process is no more. Held already by the same is fine.
   *
   * @throws {StateError} somebody has one of them open for writing.
   */
  hold(by: string, paths: readonly string[]): Promise<void>;
  /** All that is held by it; none is fine. */
  letGo(by: string): Promise<void>;
  /** fsync of the file and its folder. */
  sync(path: string): Promise<void>;
  /**
   * fsync of a file whose storage may hang, in a process of its own: a thread that hangs with it is lost to the daemon.
   *
   * @throws {BusyError} no answer within `timeoutMs`.
   */
  answer(path: string, timeoutMs: number): Promise<void>;
  freeBytes(folder: string): Promise<bigint>;
  /** Bytes that `path` gives in a second, by a short look; null: it cannot be told. */
  readRate(path: string): Promise<bigint | null>;
  /** Bytes that `folder` takes in a second, durable ones, by a short look; null: it cannot be told. */
  writeRate(folder: string): Promise<bigint | null>;
}
