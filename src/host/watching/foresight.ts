// When a move will be READY, as a band, and whether it ever will. Arithmetic of rates only: READY itself is QEMU's word
// (law 12). Pure.

import { usualTuning } from '../../image/copying.js';
import { carriedRate, dirtyRate, lagOf, rateOf, sameJob } from './meter.js';
import type { Look } from './meter.js';

/** Seconds from now on. `most` null: it may be any time. */
export interface Band {
  readonly least: number;
  readonly most: number | null;
}

export interface Course {
  /** What of the frozen images is still to be copied; null: it cannot be told yet. */
  readonly leftBytes: bigint | null;
  /** Looks at all copies together, of the time that counts. */
  readonly copies: readonly Pick<Look, 'atMs' | 'copiedBytes'>[];
  /** By target: looks at each disk, of the time that counts. */
  readonly disks: ReadonlyMap<string, readonly Look[]>;
  /** What the copies may read in a second; null: no limit. */
  readonly limitBytesPerSecond: bigint | null;
  /** A person let them stand still. */
  readonly isPaused: boolean;
}

export type Convergence =
  | { readonly state: 'converges' | 'unknown'; readonly why: null; readonly of: null }
  /** `of`: what falls behind. */
  | { readonly state: 'diverges'; readonly why: string; readonly of: 'mirror' | 'copy' };

export const unknown: Convergence = { state: 'unknown', why: null, of: null };
const converges: Convergence = { state: 'converges', why: null, of: null };

/** Shorter ones end before anything can be said of them. */
const TREND_MS = 10_000;
const SPANS_MS = [5000, 15_000, 60_000];
/** So much is written between two looks anyway. */
const NOISE_BYTES = 2n << 20n;
/** What two measurements of the same differ by. */
const DOUBT = 0.1;

/** Null: it cannot be told. */
export function readyBand(course: Course): Band | null {
  const bands = [copyBand(course), ...[...course.disks.values()].map(mirrorBand)];
  let [least, most]: [number, number | null] = [0, 0];
  for (const band of bands) {
    if (band === null) return null;
    least = Math.max(least, band.least);
    most = most === null || band.most === null ? null : Math.max(most, band.most);
  }
  return { least: tenths(least), most: most === null ? null : tenths(most) };
}

/** From how fast the copies were, over shorter and longer times. */
function copyBand({ leftBytes, copies, limitBytesPerSecond, isPaused }: Course): Band | null {
  if (leftBytes === 0n) return { least: 0, most: 0 };
  const now = copies.at(-1)?.atMs ?? 0;
  const rates = SPANS_MS.flatMap((ms) => {
    const looks = copies.filter(({ atMs }) => now - atMs <= ms);
    return copyRate(looks, limitBytesPerSecond) ?? [];
  });
  const fastest = Math.max(0, ...rates);
  if (leftBytes === null || isPaused || fastest === 0) return null;
  const slowest = Math.min(...rates);
  const left = Number(leftBytes);
  return {
    least: (left / fastest) * (1 - DOUBT),
    most: slowest === 0 ? null : (left / slowest) * (1 + DOUBT),
  };
}

/** Mirrors run beside the copies: what one is behind melts by what it carries beyond what the guest adds. */
function mirrorBand(looks: readonly Look[]): Band | null {
  const job = looks.at(-1)?.job ?? null;
  if (job === null) return { least: 0, most: 0 };
  const lag = lagOf(job);
  if (lag <= NOISE_BYTES) return { least: 0, most: 0 };
  const net = netOf(looks);
  if (net === null || net <= 0) return null;
  const seconds = Number(lag) / net;
  return { least: seconds * (1 - DOUBT), most: seconds * (1 + DOUBT) * 2 };
}

/** Bytes a second that a mirror comes nearer by; negative: it falls behind. */
function netOf(looks: readonly Look[]): number | null {
  const [carried, dirty] = [carriedRate(looks), dirtyRate(looks)];
  return carried === null || dirty === null ? null : Number(carried - dirty);
}

export function convergenceOf(course: Course): Convergence {
  const mirrored = [...course.disks].filter(([, looks]) => looks.at(-1)?.job != null);
  const long = mirrored.filter(([, looks]) => spanOf(sameJob(looks)) >= TREND_MS);
  const behind = long.find(([, looks]) => fallsBehind(sameJob(looks)));
  if (behind !== undefined) return mirrorDiverges(behind[0], behind[1]);
  if (spanOf(course.copies) < TREND_MS || long.length < mirrored.length) return unknown;
  return copyDiverges(course) ?? converges;
}

/** Its lag grew from the first half of the time to the second, and was never gone. */
function fallsBehind(looks: readonly Look[]): boolean {
  const lags = looks.flatMap(({ job }) => (job === null ? [] : [lagOf(job)]));
  const half = Math.floor(lags.length / 2);
  const [before, after] = [meanOf(lags.slice(0, half)), meanOf(lags.slice(half))];
  const grown = after - before;
  const isGone = lags.slice(half).some((lag) => lag <= NOISE_BYTES);
  return half > 1 && !isGone && grown > Number(NOISE_BYTES) && grown > before * DOUBT;
}

function mirrorDiverges(target: string, looks: readonly Look[]): Convergence {
  const [carried, dirty] = [carriedRate(looks) ?? 0n, dirtyRate(looks) ?? 0n];
  const why = `${target}: its mirror carries ${perSecond(carried)} and the guest changes ${perSecond(dirty)}, so it falls behind`;
  return { state: 'diverges', why, of: 'mirror' };
}

/** The copy ends some day, frozen as it is; but what the guest writes meanwhile has to be merged behind it. */
function copyDiverges({
  leftBytes,
  copies,
  disks,
  limitBytesPerSecond,
  isPaused,
}: Course): Convergence | null {
  const rate = copyRate(copies, limitBytesPerSecond);
  if (leftBytes === null || leftBytes === 0n || rate === null || isPaused) return null;
  const guest = [...disks.values()]
    .map((looks) => Number(rateOf(looks, ({ writtenBytes }) => writtenBytes) ?? 0n))
    .reduce((sum, one) => sum + one, 0);
  if (guest <= rate * (1 + DOUBT)) return null;
  const limit = limitBytesPerSecond === null ? '' : ` (at most ${perSecond(limitBytesPerSecond)})`;
  const why = `the frozen images are copied at ${perSecond(BigInt(Math.round(rate)))}${limit} and the guest writes ${perSecond(BigInt(Math.round(guest)))}: what is to be merged afterwards may grow faster than what is left to copy shrinks`;
  return { state: 'diverges', why, of: 'copy' };
}

/** Bytes a second; null: too little was seen. */
function copyRate(looks: Course['copies'], limit: bigint | null): number | null {
  const [first, last] = [looks[0], looks.at(-1)];
  const ms = spanOf(looks);
  if (first === undefined || last === undefined || ms < 1000) return null;
  const seen = Math.max(0, Number(last.copiedBytes - first.copiedBytes) * 1000) / ms;
  // Under a low limit it goes by a piece now and then: between two of them it does not stand still.
  const isBetween = limit !== null && (Number(limit) * ms) / 1000 < 2 * usualTuning.pieceBytes;
  return isBetween ? Number(limit) : seen;
}

const spanOf = (looks: readonly Pick<Look, 'atMs'>[]): number =>
  (looks.at(-1)?.atMs ?? 0) - (looks[0]?.atMs ?? 0);

const meanOf = (values: readonly bigint[]): number =>
  values.reduce((sum, value) => sum + Number(value), 0) / Math.max(1, values.length);

const tenths = (seconds: number): number => Math.round(seconds * 10) / 10;

const perSecond = (bytes: bigint): string =>
  bytes < 1n << 20n
    ? `${(Number(bytes) / 1024).toFixed(0)} KiB/s`
    : `${(Number(bytes) / (1 << 20)).toFixed(1)} MiB/s`;
