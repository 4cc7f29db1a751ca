// The verification pass: what was copied is read back from the storage itself and compared with the hashes of what was
// read at the source. What differs is copied again, once. Nothing of it is written down: a life that dies in it does it
// anew, but for the pieces that it had to look at anyway when it went on.

import type { CopyVerified, Extent, Piece, VerifyMode } from '../block/copy.js';
import { SystemError } from '../std/errors.js';
import type { Copying } from './copying.js';
import { progressOf, throwIfAborted, usualTuning } from './copying.js';
import { inLanes } from './lanes.js';
import type { Window } from './pieces.js';
import { emptyHash, windowsOf } from './pieces.js';

/** What was read back so far. */
export interface Seen {
  /** Where the pieces begin. */
  readonly offsets: ReadonlySet<number>;
  readonly bytes: number;
  readonly storageBytes: number;
}

export const nothingSeen: Seen = { offsets: new Set(), bytes: 0, storageBytes: 0 };

/** A piece of the target and what it has to be. */
interface Due {
  /** As the source has it. */
  readonly window: Window;
  readonly hash: string;
  /** Where the target has data in it, and how much. */
  readonly used: readonly Extent[];
  readonly dataBytes: number;
}

interface Tally {
  bytes: number;
  storageBytes: number;
}

const leastSampled = 16;
const sampledShare = 0.05;

/** About what a verification of so much data reads, in bytes. */
export function readBackOf(dataBytes: bigint, how: VerifyMode): bigint {
  if (how !== 'sample') return how === 'full' ? dataBytes : 0n;
  const least = BigInt(leastSampled * usualTuning.pieceBytes);
  const share = (dataBytes * BigInt(sampledShare * 100)) / 100n;
  const sampled = share > least ? share : least;
  return sampled < dataBytes ? sampled : dataBytes;
}

/** All of `pieces` is durable. `seen`: what needs no second look. */
export async function verify(
  copying: Copying,
  pieces: readonly Piece[],
  seen: Seen,
): Promise<CopyVerified> {
  const { verify: how = 'full', seed = 0 } = copying.request;
  const began = performance.now();
  const tally: Tally = { bytes: seen.bytes, storageBytes: seen.storageBytes };
  let repairedBytes = 0;
  if (how !== 'none') {
    const all = await dueOf(copying, pieces);
    const chosen = how === 'full' ? all : sampleOf(all, seed);
    const rest = chosen.filter(({ window }) => !seen.offsets.has(window.offset));
    const done = progressOf(rest, 'verifying', copying.request.onProgress);
    const bad = await different(copying, rest, tally, done);
    if (bad.length > 0) await copyAgain(copying, pieces, bad);
    repairedBytes = bad.reduce((sum, { dataBytes }) => sum + dataBytes, 0);
  }
  return { how, ...tally, repairedBytes, seconds: (performance.now() - began) / 1000 };
}

/** Every piece that holds data at the source or at the target, in order. */
async function dueOf(
  { files, source, tuning, windows }: Copying,
  pieces: readonly Piece[],
): Promise<readonly Due[]> {
  const sizeBytes = Number(source.sizeBytes);
  const found = windowsOf(await files.extents('target'), sizeBytes, tuning.pieceBytes);
  const there = new Map(found.map((window) => [window.offset, window]));
  const hashes = new Map(pieces.map(({ offset, hash }) => [offset, hash]));
  const expected = new Set(windows.map(({ offset }) => offset));
  // Nothing of the source lies in these, so nothing may be in them.
  const strangers = found
    .filter(({ offset }) => !expected.has(offset))
    .map((window) => ({ ...window, parts: [] }));
  return [...windows, ...strangers].map((window) => {
    const target = there.get(window.offset);
    return {
      window,
      hash: hashes.get(window.offset) ?? emptyHash,
      used: target?.parts ?? [],
      dataBytes: target?.dataBytes ?? 0,
    };
  });
}

/** The first, the last, and some in between, the same for the same seed. */
export function sampleOf<T>(all: readonly T[], seed: number): readonly T[] {
  const many = Math.max(leastSampled, Math.ceil(all.length * sampledShare));
  if (all.length <= many) return all;
  const between = all.slice(1, -1);
  // A linear congruential generator (Numerical Recipes): nobody has to be surprised by it.
  let state = seed >>> 0;
  for (let i = 0; i < many - 2; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const j = i + Math.floor((state / 2 ** 32) * (between.length - i));
    [between[i], between[j]] = [between[j] as T, between[i] as T]; // i <= j < length
  }
  return [all[0] as T, ...between.slice(0, many - 2), all.at(-1) as T]; // longer than `many`
}

/** Those that are not what they have to be. */
async function different(
  { files, request, pace }: Copying,
  due: readonly Due[],
  tally: Tally,
  done: (one: Due) => void,
): Promise<readonly Due[]> {
  const bad: Due[] = [];
  await inLanes(files.lanes, due, async (one) => {
    await pace.pass(one.dataBytes, request.signal);
    throwIfAborted(request);
    const { hash, storageBytes } = await files.readBack(one.window, one.used);
    if (hash !== one.hash) bad.push(one);
    tally.bytes += one.dataBytes;
    // What else the thread read, of the file's own map, says nothing of the data.
    tally.storageBytes += Math.min(storageBytes, one.dataBytes);
    done(one);
  });
  return bad;
}

/** @throws {SystemError} they are not what they have to be then either. */
async function copyAgain(
  copying: Copying,
  pieces: readonly Piece[],
  bad: readonly Due[],
): Promise<void> {
  const { files, request, pace } = copying;
  await inLanes(files.lanes, bad, async ({ window, used, hash }) => {
    await pace.pass(window.dataBytes, request.signal);
    throwIfAborted(request);
    if ((await files.copy(window, used)) !== hash) throw unsteady(request.doing, window);
  });
  await files.sync();
  const offsets = new Set(bad.map(({ window }) => window.offset));
  const again = (await dueOf(copying, pieces)).filter(({ window }) => offsets.has(window.offset));
  // All of the pass has been told of as done by now.
  const still = await different(copying, again, { bytes: 0, storageBytes: 0 }, () => undefined);
  if (still.length > 0)
    throw notKept(
      request.doing,
      still.map(({ window }) => window),
      'and again after it was copied a second time',
    );
}

/** `windows` is not empty. */
export function notKept(
  doing: string,
  windows: readonly Pick<Window, 'offset' | 'length'>[],
  when: string,
): SystemError {
  const [first, ...others] = windows.toSorted((a, b) => a.offset - b.offset);
  const more = others.length === 0 ? '' : ` and in ${others.length} pieces after that`;
  return new SystemError(
    `${doing}: verification: the destination does not hold what was written to it, in the ${first?.length} bytes from offset ${first?.offset}${more}, ${when}; the guest stays on the source. Look into the kernel's log (dmesg), have that storage checked, and move to another one`,
  );
}

const unsteady = (doing: string, { offset, length }: Window): SystemError =>
  new SystemError(
    `${doing}: verification: the source gave other bytes when it was read a second time, in the ${length} bytes from offset ${offset}; the guest stays on it. Look into the kernel's log (dmesg), and have that storage and the host's memory checked before anything else`,
    { sourceIntact: null },
  );
