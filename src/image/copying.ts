// What the copier and the verification share: the two files, what is asked of a copy, and how far it is.

import type { CopyNote, Extent, FileIdentity, SavedCopy, VerifyMode } from '../block/copy.js';
import { StateError } from '../std/errors.js';
import type { Pacing } from './pace.js';
import type { Window } from './pieces.js';
import type { Backing } from './store.js';

export interface ReadBack {
  readonly hash: string;
  /** How much was read from the storage itself, by the kernel's accounts. */
  readonly storageBytes: number;
}

/** What is done with the data, and how much of it. */
export interface CopyReport {
  readonly phase: 'copying' | 'verifying';
  readonly doneBytes: bigint;
  readonly totalBytes: bigint;
}

/** The source and the target of one copy. The source is only read. */
export interface CopyFiles {
  /** Of all hashes, in hex. */
  readonly key: string;
  /** How many pieces are worth being worked on at once. */
  readonly lanes: number;
  source(): Promise<FileIdentity>;
  /** Null: there is none. */
  target(): Promise<FileIdentity | null>;
  /** Where there may be data, in order. */
  extents(of: 'source' | 'target'): Promise<readonly Extent[]>;
  /** A durable target that shares all blocks with the source, in place of whatever was there. False: not on this storage. */
  clone(): Promise<boolean>;
  /** A target of that size without any data, in place of whatever was there; durable with the next `sync`. */
  begin(sizeBytes: number): Promise<void>;
  /** Copies the parts of a piece. `used`: where the target may hold something else. The hash of what was read. */
  copy(piece: Window, used: readonly Extent[]): Promise<string>;
  /** The hash of what the target holds of a piece, whose data lies in `used`. */
  check(piece: Window, used: readonly Extent[]): Promise<string>;
  /** The same past the page cache, where the storage lets us. */
  readBack(piece: Window, used: readonly Extent[]): Promise<ReadBack>;
  /** What was copied before this call is durable when it resolves. */
  sync(): Promise<void>;
  /** Rewrites what the header of the target names; durable. Where in the file that may have written. */
  setBacking(backing: Backing): Promise<Extent>;
  /** All of the target is durable, its times too. */
  seal(): Promise<FileIdentity>;
}

export interface CopyRequest {
  /** `copy A to B`, for errors. */
  readonly doing: string;
  /** What the header of the copy is made to name. Null: what it names already. */
  readonly backing: Backing | null;
  /** What earlier lives of this copy wrote down; null: nothing. */
  readonly saved: SavedCopy | null;
  /** Durable when it resolves. */
  readonly save: (note: CopyNote) => Promise<void>;
  /** Called some times a second. */
  readonly onProgress: (report: CopyReport) => void;
  readonly signal: AbortSignal;
  /** Left out: full. */
  readonly verify?: VerifyMode;
  /** What the sample follows from. */
  readonly seed?: number;
  /** Of all that is read, at the source or at the target; other copies may share it. Left out: as fast as it goes. */
  readonly pace?: Pacing;
}

export interface Tuning {
  readonly pieceBytes: number;
  /** After so much data, or so long, what was copied is made durable and written down. */
  readonly checkpointBytes: number;
  readonly checkpointMs: number;
}

/** Measured (bench/copy.ts): smaller pieces cost messages, larger ones caches; with rarer syncs the storage idles first. */
export const usualTuning: Tuning = {
  pieceBytes: 8 << 20,
  checkpointBytes: 64 << 20,
  checkpointMs: 1000,
};

/** One life of a copy. */
export interface Copying {
  readonly files: CopyFiles;
  readonly request: CopyRequest;
  readonly tuning: Tuning;
  readonly source: FileIdentity;
  readonly windows: readonly Window[];
  readonly done: (window: Window) => void;
  /** Of all that is read, at the source or at the target. */
  readonly pace: Pacing;
}

interface Sized {
  readonly dataBytes: number;
}

export const dataOf = (pieces: Iterable<Sized>): number =>
  [...pieces].reduce((sum, { dataBytes }) => sum + dataBytes, 0);

export function throwIfAborted({ signal, doing }: CopyRequest): void {
  if (signal.aborted) throw new StateError('OPERATION_ABORTED', `${doing}: canceled`);
}

const progressMs = 200;

/** Tells of each piece that is there, but not too often. */
export function progressOf(
  pieces: readonly Sized[],
  phase: CopyReport['phase'],
  tell: CopyRequest['onProgress'],
): (piece: Sized) => void {
  const totalBytes = BigInt(dataOf(pieces));
  let doneBytes = 0n;
  let toldMs = -Infinity;
  return ({ dataBytes }) => {
    doneBytes += BigInt(dataBytes);
    const nowMs = performance.now();
    if (nowMs - toldMs < progressMs && doneBytes < totalBytes) return;
    toldMs = nowMs;
    tell({ phase, doneBytes, totalBytes });
  };
}
