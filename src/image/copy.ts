// The copier: what it does with the two files, in which order, and what it writes down meanwhile.
//
//   identity of the source, its data extents
//     │ saved pieces of the same source, and a target of its size?
//     ├─ yes: read them back; those that are not as they were saved are copied again ── 'resumed'
//     └─ no: 'begun'; reflink of the whole file, else an empty target
//   pieces in lanes; now and then sync the target, then 'pieces' (never the other way round)
//   the target read back from its storage, against the hashes of what was read (verify.ts)
//   header of the copy, sync, one root hash over all pieces
//
// Files are reached through `CopyFiles` alone, so that the fault enumerators run this very code over a fake.

import type { CopyVerified, CopyWhole, Extent, FileIdentity, Piece } from '../block/copy.js';
import { sameFile } from '../block/copy.js';
import { StateError } from '../std/errors.js';
import { Checkpoints } from './checkpoints.js';
import type { Going, StoredFile } from './convert.js';
import type { CopyFiles, CopyRequest, Copying, Tuning } from './copying.js';
import { dataOf, progressOf, throwIfAborted, usualTuning } from './copying.js';
import { inLanes } from './lanes.js';
import { Pace } from './pace.js';
import type { Window } from './pieces.js';
import { emptyHash, rootOf, windowsOf } from './pieces.js';
import type { Seen } from './verify.js';
import { notKept, nothingSeen, verify } from './verify.js';

/** What of an earlier life is at the target. */
interface Kept {
  readonly pieces: ReadonlyMap<number, Piece>;
  readonly brokenBytes: number;
  /** What of them was read back as the verification would. */
  readonly seen: Seen;
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
  const done = progressOf(windows, 'copying', request.onProgress);
  const { pace = new Pace(() => null) } = request;
  const copying = {
    files,
    request,
    tuning: { ...tuning, pieceBytes },
    source,
    windows,
    done,
    pace,
  };
  throwIfAborted(request);

  const kept = await keptOf(copying);
  if (kept === null) {
    const totalBytes = dataOf(windows);
    await request.save({ note: 'begun', source, pieceBytes, key: files.key, totalBytes });
    if (await files.clone()) return await finish(copying, null, null);
    await files.begin(Number(source.sizeBytes));
  } else {
    const { brokenBytes } = kept;
    await request.save({ note: 'resumed', keptBytes: dataOf(kept.pieces.values()), brokenBytes });
  }
  const pieces = await copyRest(copying, kept ?? nothingKept);
  await checkFrozen(copying);
  return await finish(copying, pieces, await verify(copying, pieces, (kept ?? nothingKept).seen));
}

const nothingKept: Kept = { pieces: new Map(), brokenBytes: 0, seen: nothingSeen, used: new Map() };

/** Null: start over. Source, target or what was saved is not what it has to be, so that nothing of it is worth a guess. */
async function keptOf(copying: Copying): Promise<Kept | null> {
  const { files, request, tuning, source, windows } = copying;
  const { saved } = request;
  if (saved === null || saved.pieces.length === 0 || saved.key !== files.key) return null;
  if (!sameFile(saved.source, source)) return null;
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
  const there = new Map(found.map((window) => [window.offset, window]));
  const { pieces, seen } = await provenOf(copying, claims, there);
  const claimed = windows.filter(({ offset }) => claims.has(offset));
  return {
    pieces,
    used,
    seen,
    brokenBytes: dataOf(claimed) - dataOf(claimed.filter(({ offset }) => pieces.has(offset))),
  };
}

/** Of what was saved, what the target holds. Where all is to be verified, this is the verification of these pieces. */
async function provenOf(
  { files, request, windows, done, pace }: Copying,
  claims: ReadonlyMap<number, Piece>,
  there: ReadonlyMap<number, Window>,
): Promise<Pick<Kept, 'seen'> & { readonly pieces: ReadonlyMap<number, Piece> }> {
  const isPass = (request.verify ?? 'full') === 'full';
  const pieces = new Map<number, Piece>();
  let [bytes, storageBytes] = [0, 0];
  await inLanes(files.lanes, windows, async (window) => {
    const claim = claims.get(window.offset);
    if (claim === undefined) return;
    const { parts: used, dataBytes } = there.get(window.offset) ?? { parts: [], dataBytes: 0 };
    await pace.pass(dataBytes, request.signal);
    throwIfAborted(request);
    const found = isPass
      ? await files.readBack(window, used)
      : { hash: await files.check(window, used), storageBytes: 0 };
    if (claim.hash !== found.hash) return;
    pieces.set(window.offset, claim);
    bytes += dataBytes;
    storageBytes += Math.min(found.storageBytes, dataBytes);
    done(window);
  });
  const seen = isPass ? { offsets: new Set(pieces.keys()), bytes, storageBytes } : nothingSeen;
  return { pieces, seen };
}

/** Copies what is not kept. All pieces, durable and written down. */
async function copyRest(copying: Copying, { pieces, used }: Kept): Promise<readonly Piece[]> {
  const { files, request, tuning, windows, done, pace } = copying;
  const all = [...pieces.values()];
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

/** `pieces` and `verified` null: it was cloned. */
async function finish(
  copying: Copying,
  pieces: readonly Piece[] | null,
  verified: CopyVerified | null,
): Promise<CopyWhole> {
  const { files, request } = copying;
  throwIfAborted(request);
  const written = request.backing === null ? null : await files.setBacking(request.backing);
  await checkFrozen(copying);
  const file = await files.seal();
  if (pieces === null) return { how: 'reflink', root: null, file, verified };
  const now = written === null ? pieces : await lookedAtAgain(copying, pieces, written, file);
  return { how: 'data', root: rootOf(file.sizeBytes, now), file, verified };
}

async function checkFrozen({ files, request, source }: Copying): Promise<void> {
  if (sameFile(await files.source(), source)) return;
  throw new StateError(
    'OPERATION_INVALID',
    `${request.doing}: the source was written to meanwhile, so the copy is worth nothing; end whatever writes to it, then try again`,
    { sourceIntact: null },
  );
}

/** The pieces after their file was written to in `written`. */
async function lookedAtAgain(
  copying: Copying,
  pieces: readonly Piece[],
  written: Extent,
  { sizeBytes }: FileIdentity,
): Promise<readonly Pick<Piece, 'offset' | 'hash'>[]> {
  const { files, tuning } = copying;
  const end = written.start + written.length;
  const isOld = ({ offset }: { readonly offset: number }): boolean =>
    offset + tuning.pieceBytes <= written.start || offset >= end;
  const windows = windowsOf(await files.extents('target'), Number(sizeBytes), tuning.pieceBytes);
  const again = windows.filter((window) => !isOld(window));
  const found = await hashesOf(files, again);
  await checkRewritten(copying, pieces, again, found);
  return [...pieces.filter(isOld), ...found];
}

/** What its header's change made of these pieces is known from the page cache alone: the storage has to say the same. */
async function checkRewritten(
  { files, request }: Copying,
  pieces: readonly Piece[],
  windows: readonly Window[],
  found: readonly Pick<Piece, 'offset' | 'hash'>[],
): Promise<void> {
  if (request.verify === 'none') return;
  const before = new Map(pieces.map(({ offset, hash }) => [offset, hash]));
  const now = new Map(found.map(({ offset, hash }) => [offset, hash]));
  const changed = windows.filter(({ offset }) => before.get(offset) !== now.get(offset));
  await inLanes(files.lanes, changed, async (window) => {
    throwIfAborted(request);
    const { hash } = await files.readBack(window, window.parts);
    if (hash !== now.get(window.offset))
      throw notKept(request.doing, [window], 'after its header was rewritten');
  });
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

/** What the target holds on its storage, read past the page cache where that lets us. */
export async function readBackTarget(
  files: CopyFiles,
  pieceBytes: number,
  { signal, limitBytesPerSecond, onProgress }: Going,
): Promise<StoredFile> {
  const { sizeBytes } = await files.source();
  const windows = windowsOf(await files.extents('target'), Number(sizeBytes), pieceBytes);
  const done = progressOf(windows, 'verifying', onProgress);
  const pace = new Pace(limitBytesPerSecond);
  const found: Pick<Piece, 'offset' | 'hash'>[] = [];
  let storageBytes = 0;
  await inLanes(files.lanes, windows, async (window) => {
    await pace.pass(window.dataBytes, signal);
    signal.throwIfAborted();
    const read = await files.readBack(window, window.parts);
    found.push({ offset: window.offset, hash: read.hash });
    storageBytes += Math.min(read.storageBytes, window.dataBytes);
    done(window);
  });
  return { root: rootOf(sizeBytes, found), bytes: dataOf(windows), storageBytes };
}
