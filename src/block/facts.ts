// What was seen on storage at one moment, read once before a plan is made. Plain data.

import type { Format, Image } from './layer.js';

/** What the file system says of a path. */
export interface FileFacts {
  readonly kind: 'file' | 'block' | 'folder' | 'other';
  readonly sizeBytes: bigint;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly modifiedNs: bigint;
  /** The file system that it is on, as this host numbers it. */
  readonly device: bigint;
  /** When it came to be at this path; null where the file system does not say. */
  readonly bornMs: number | null;
}

/** What `qemu-img info` says of an image whose format we were told (law 7). */
export interface ImageInfo {
  readonly path: string;
  readonly format: Format;
  readonly virtualSizeBytes: bigint;
  /** What it takes on its storage. */
  readonly actualSizeBytes: bigint;
  readonly clusterSizeBytes: number | null;
  /** What the header names, as written there; `format` null when the header does not say. */
  readonly backing: { readonly filename: string; readonly format: string | null } | null;
  /** An external data file, an encrypted payload and the like, in words; refused where it matters. */
  readonly special: readonly string[];
  readonly snapshots: number;
}

/** Everything that a planner may ask of one path. */
export interface PathFacts {
  readonly file: FileFacts | null;
  /** Null: not there, or nothing in it. */
  readonly info: ImageInfo | null;
  /** No allocated cluster of its own (law 3). */
  readonly empty: boolean;
  /** The images that the headers name below this one, nearest first. */
  readonly below: readonly Image[];
}

export const nothingThere: PathFacts = { file: null, info: null, empty: true, below: [] };

/** Size and cluster size of a disk as its guest has it. */
export interface DiskFacts {
  readonly sizeBytes: bigint;
  readonly clusterSizeBytes: number | null;
}
