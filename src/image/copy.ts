// The copier: what it does with the two files, in which order, and what it writes down meanwhile.
//
//   identity of the source, its data extents
//     │ saved pieces of the same source, and a target of its size?
//     ├─ yes: read them back; those that are not as they were saved are copied again ── 'resumed'
//     └─ no: 'begun'; reflink of the whole file, else an empty target
//   pieces in lanes; now and then sync the target, then 'pieces' (never the other way round)
//   header of the copy, sync, one root hash over all pieces
//
// Files are reached through `CopyFiles` alone, so that the fault enumerators run this very code over a fake.

import type { CopyNote, CopyWhole, Extent, FileIdentity, Piece, SavedCopy } from '../block/copy.js';
import { sameFile } from '../block/copy.js';
import { StateError } from '../std/errors.js';
import { Checkpoints } from './checkpoints.js';
import { inLanes } from './lanes.js';
import { Pace } from './pace.js';
import type { Window } from './pieces.js';
import { emptyHash, rootOf, windowsOf } from './pieces.js';
import type { Backing } from './store.js';

/** The source and the target of one copy. The source is only read. */
export interface CopyFiles {
  /** How many pieces are worth being worked on at once. */
  readonly lanes: number;
  source(): Promise<FileIdentity>;
  /** Null: there is none. */
  target(): Promise<FileIdentity | null>;
  /** Where there may be data, in order. */
  extents(of: 'source' | 'target'): Promise<readonly Extent[]>;
  /** A durable target that shares all blocks with the source, in place of whatever was there. False: not on this storage. */
  clone(): Promise<boolean>;
  /** A durable target of that size without any data, in place of whatever was there. */
  begin(sizeBytes: number): Promise<void>;
  /** Copies the parts of a piece. `used`: where the target may hold something else. The hash of what was read. */
  copy(piece: Window, used: readonly Extent[]): Promise<string>;
  /** The hash of what the target holds of a piece, whose data lies in `used`. */
  check(piece: Window, used: readonly Extent[]): Promise<string>;
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
  /** In bytes of data; called some times a second. */
  readonly onProgress: (doneBytes: bigint, totalBytes: bigint) => void;
  readonly signal: AbortSignal;
  /** Asked again and again, so it may change. Null, or left out: as fast as it goes. */
  readonly limitBytesPerSecond?: () => number | null;
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

const progressMs = 200;

interface Copying {
  readonly files: CopyFiles;
  readonly request: CopyRequest;
  readonly tuning: Tuning;
  readonly source: FileIdentity;
  readonly windows: readonly Window[];
  readonly done: (window: Window) => void;
}

/** What of an earlier life is at the target. */
interface Kept {
  readonly pieces: ReadonlyMap<number, Piece>;
  readonly brokenBytes: number;
  /** Where in each piece the target may hold something already. */
  readonly used: ReadonlyMap<number, readonly Extent[]>;
}

/**
 * Copies the source, going on where an earlier life was if that can be proven piece by piece.
 *
 * The target is whole and durable when it resolves. On failure it stays, with what was written down of it.
 *
 * @throws {StateError} OPERATION_ABORTED: the signal was aborted. OPERATION_INVALID: the source is not frozen.
 */
export async function copyFrozen(
  files: CopyFiles,
  request: CopyRequest,
  tuning: Tuning = usualTuning,
): Promise<CopyWhole> {
  const source = await files.source();
  const pieceBytes = request.saved?.pieceBytes ?? tuning.pieceBytes;
  const windows = windowsOf(await files.extents('source'), Number(source.sizeBytes), pieceBytes);
  const done = progressOf(windows, request.onProgress);
  const copying = { files, request, tuning: { ...tuning, pieceBytes }, source, windows, done };
  throwIfAborted(request);

  const kept = await keptOf(copying);
  if (kept === null) {
    const totalBytes = dataOf(windows);
    await request.save({ note: 'begun', source, pieceBytes, totalBytes });
    if (await files.clone()) return await finish(copying, null);
    await files.begin(Number(source.sizeBytes));
  } else {
    const { brokenBytes } = kept;
    await request.save({ note: 'resumed', keptBytes: dataOf(kept.pieces.values()), brokenBytes });
  }
  return await finish(copying, await copyRest(copying, kept ?? nothingKept));
}

const nothingKept: Kept = { pieces: new Map(), brokenBytes: 0, used: new Map() };

const dataOf = (pieces: Iterable<{ readonly dataBytes: number }>): number =>
  [...pieces].reduce((sum, { dataBytes }) => sum + dataBytes, 0);

/** Null: start over. Source, target or what was saved is not what it has to be, so that nothing of it is worth a guess. */
async function keptOf({
  files,
  request,
  tuning,
  source,
  windows,
  done,
}: Copying): Promise<Kept | null> {
  const { saved } = request;
  if (saved === null || saved.pieces.length === 0 || !sameFile(saved.source, source)) return null;
  const target = await files.target();
  if (target?.sizeBytes !== source.sizeBytes) return null;

  const found = windowsOf(
    await files.extents('target'),
    Number(source.sizeBytes),
    tuning.pieceBytes,
  );
  const used = new Map(found.map(({ offset, parts }) => [offset, parts]));
  const expected = new Set(windows.map(({ offset }) => offset));
  const strangers = found.filter(({ offset }) => !expected.has(offset));
  let isClean = true;
  await inLanes(files.lanes, strangers, async (window) => {
    throwIfAborted(request);
    if ((await files.check(window, window.parts)) !== emptyHash) isClean = false;
  });
  if (!isClean) return null;

  const claims = new Map(saved.pieces.map((piece) => [piece.offset, piece]));
  const pieces = new Map<number, Piece>();
  const claimed = windows.filter(({ offset }) => claims.has(offset));
  await inLanes(files.lanes, claimed, async (window) => {
    throwIfAborted(request);
    const claim = claims.get(window.offset);
    const hash = await files.check(window, used.get(window.offset) ?? []);
    if (claim?.hash !== hash) return;
    pieces.set(window.offset, claim);
    done(window);
  });
  return {
    pieces,
    used,
    brokenBytes: dataOf(claimed) - dataOf(claimed.filter(({ offset }) => pieces.has(offset))),
  };
}

/** Copies what is not kept. All pieces, durable and written down. */
async function copyRest(copying: Copying, { pieces, used }: Kept): Promise<readonly Piece[]> {
  const { files, request, tuning, windows, done } = copying;
  const all = [...pieces.values()];
  const pace = new Pace(request.limitBytesPerSecond ?? (() => null));
  const checkpoints = new Checkpoints(files, request.save, tuning);
  const rest = windows.filter(({ offset }) => !pieces.has(offset));
  try {
    await inLanes(files.lanes, rest, async (window) => {
      await pace.pass(window.dataBytes, request.signal);
      throwIfAborted(request);
      const hash = await files.copy(window, used.get(window.offset) ?? []);
      const piece = {
        offset: window.offset,
        length: window.length,
        dataBytes: window.dataBytes,
        hash,
      };
      all.push(piece);
      done(window);
      await checkpoints.add(piece);
    });
    await checkpoints.finish();
  } catch (error) {
    // Should the step be done again, it goes on from here. When it was cancelled nobody waits for a slow storage.
    if (!request.signal.aborted) await checkpoints.finish().catch(() => undefined);
    throw error;
  }
  return all;
}

/** `pieces` null: it was cloned. */
async function finish(copying: Copying, pieces: readonly Piece[] | null): Promise<CopyWhole> {
  const { files, request, source } = copying;
  throwIfAborted(request);
  const written = request.backing === null ? null : await files.setBacking(request.backing);
  if (!sameFile(await files.source(), source)) {
    throw new StateError(
      'OPERATION_INVALID',
      `${request.doing}: the source was written to meanwhile, so the copy is worth nothing; end whatever writes to it, then try again`,
      { sourceIntact: null },
    );
  }
  const file = await files.seal();
  if (pieces === null) return { how: 'reflink', root: null, file };
  const now = written === null ? pieces : await lookedAtAgain(copying, pieces, written, file);
  return { how: 'data', root: rootOf(file.sizeBytes, now), file };
}

/** The pieces after their file was written to in `written`. */
async function lookedAtAgain(
  { files, tuning }: Copying,
  pieces: readonly Piece[],
  written: Extent,
  { sizeBytes }: FileIdentity,
): Promise<readonly Pick<Piece, 'offset' | 'hash'>[]> {
  const end = written.start + written.length;
  const isOld = ({ offset }: { readonly offset: number }): boolean =>
    offset + tuning.pieceBytes <= written.start || offset >= end;
  const windows = windowsOf(await files.extents('target'), Number(sizeBytes), tuning.pieceBytes);
  return [
    ...pieces.filter(isOld),
    ...(await hashesOf(
      files,
      windows.filter((window) => !isOld(window)),
    )),
  ];
}

async function hashesOf(
  files: CopyFiles,
  windows: readonly Window[],
  signal: AbortSignal | null = null,
): Promise<readonly Pick<Piece, 'offset' | 'hash'>[]> {
  const found: Pick<Piece, 'offset' | 'hash'>[] = [];
  await inLanes(files.lanes, windows, async (window) => {
    signal?.throwIfAborted();
    found.push({ offset: window.offset, hash: await files.check(window, window.parts) });
  });
  return found;
}

/** The root hash of the target as it is; what it has to be stands in its `CopyWhole`. */
export async function rootOfTarget(
  files: CopyFiles,
  { sizeBytes }: FileIdentity,
  pieceBytes: number,
  signal: AbortSignal,
): Promise<string> {
  const windows = windowsOf(await files.extents('target'), Number(sizeBytes), pieceBytes);
  return rootOf(sizeBytes, await hashesOf(files, windows, signal));
}

function throwIfAborted({ signal, doing }: CopyRequest): void {
  if (signal.aborted) throw new StateError('OPERATION_ABORTED', `${doing}: canceled`);
}

/** Tells of each piece that is there, but not too often. */
function progressOf(windows: readonly Window[], tell: CopyRequest['onProgress']): Copying['done'] {
  const totalBytes = BigInt(dataOf(windows));
  let doneBytes = 0n;
  let toldMs = -Infinity;
  return ({ dataBytes }) => {
    doneBytes += BigInt(dataBytes);
    const nowMs = performance.now();
    if (nowMs - toldMs < progressMs && doneBytes < totalBytes) return;
    toldMs = nowMs;
    tell(doneBytes, totalBytes);
  };
}
