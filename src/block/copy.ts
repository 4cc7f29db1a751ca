// The byte copy of one frozen image, as it is remembered between the lives of a daemon. Plain data.
// Positions and lengths inside a file are numbers here: no file comes near 2^53 bytes.

/** Which file it was, and that nobody has written to it since. */
export interface FileIdentity {
  readonly inode: bigint;
  readonly sizeBytes: bigint;
  readonly mtimeNs: bigint;
}

export const sameFile = (a: FileIdentity, b: FileIdentity): boolean =>
  a.inode === b.inode && a.sizeBytes === b.sizeBytes && a.mtimeNs === b.mtimeNs;

/** A part of a file: where it begins, and how long it is. */
export interface Extent {
  readonly start: number;
  readonly length: number;
}

/** One aligned piece of the file that lies on the destination's disk. */
export interface Piece {
  readonly offset: number;
  readonly length: number;
  /** How much of it is data; the rest is holes. */
  readonly dataBytes: number;
  /** In hex, by the copy's own key, of what was read from the source. The same for the same bytes, wherever their holes are. */
  readonly hash: string;
}

/**
 * How much of a copy is read back before it is taken for whole. `sample`: its first and its last piece, and some between
 * them that follow from the operation's number.
 */
export const verifyModes = ['full', 'sample', 'none'] as const;
export type VerifyMode = (typeof verifyModes)[number];

/** What the verification pass of a copy did. */
export interface CopyVerified {
  readonly how: VerifyMode;
  /** Data that was read back at the destination and compared with the hashes of what was read at the source. */
  readonly bytes: number;
  /** Of those: what came from the storage itself by the kernel's accounts; the rest may have come from the page cache. */
  readonly storageBytes: number;
  /** What was found different, was copied a second time, and then was right. */
  readonly repairedBytes: number;
  readonly seconds: number;
}

/** A copy that is finished: nothing will write to its file before it has its name. */
export interface CopyWhole {
  /** `reflink`: the file system shares the blocks, nothing was read. `convert`: qemu-img made another image of it. */
  readonly how: 'data' | 'reflink' | 'convert';
  /** SHA-256 over the hashes of the finished file's pieces; null: it was never read as such. */
  readonly root: string | null;
  readonly file: FileIdentity;
  /** Null: nothing to compare, no byte was copied. Left out: written by a ferryd that did not verify. */
  readonly verified?: CopyVerified | null;
}

/** Another life went on with what was there. */
export interface CopyResume {
  readonly atMs: number;
  /** Data that was found as it had been saved. */
  readonly keptBytes: number;
  /** Data that was not, and was copied again. */
  readonly brokenBytes: number;
}

/** How far a copy is, without its pieces. */
export interface CopyState {
  readonly source: FileIdentity;
  /** The length of a piece. */
  readonly pieceBytes: number;
  /** Of the hashes of its pieces, in hex. Left out: written by a ferryd that hashed otherwise. */
  readonly key?: string;
  /** How much data the source holds. */
  readonly totalBytes: number;
  readonly resumes: readonly CopyResume[];
  readonly whole: CopyWhole | null;
}

export interface SavedCopy extends CopyState {
  /** By offset. */
  readonly pieces: readonly Piece[];
}

/** What a copy writes down about itself. */
export type CopyNote =
  /** From the start; what was saved before is of no use. */
  | {
      readonly note: 'begun';
      readonly source: FileIdentity;
      readonly pieceBytes: number;
      readonly key: string;
      readonly totalBytes: number;
    }
  | { readonly note: 'resumed'; readonly keptBytes: number; readonly brokenBytes: number }
  /** These lie on the destination's disk, whatever happens to this host. */
  | { readonly note: 'pieces'; readonly pieces: readonly Piece[] }
  | { readonly note: 'whole'; readonly whole: CopyWhole };
