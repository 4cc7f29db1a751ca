// `ferry limit N auto`: how fast the copies of a move may go so that the guest's writes stay quick enough. Pure.
//
// AIMD, as TCP has it: while the p99 of the guest's writes is within the bound the limit is raised by a step, and as soon
// as it is not the limit is halved. A storage near its end makes everybody wait at once, so going back has to be quicker
// than going on; and a step that is the same at every speed leaves storages that others use too a fair part.

export interface Observed {
  /** Of the guest's writes since the last decision; null: it wrote nothing, so nothing of it suffers. */
  readonly p99Ms: number | null;
  /** What the copies read in a second just now; null: not known yet. */
  readonly copyBytesPerSecond: bigint | null;
}

export interface AutoLimit {
  readonly limitBytesPerSecond: bigint;
  /** The most that was seen: the measure of a step. */
  readonly peakBytesPerSecond: bigint;
}

/** Below that a copy would not come to its end. */
export const LEAST_BYTES = 1n << 20n;
/** Where nothing is known of the storage. */
const FIRST_BYTES = 16n << 20n;
/** From a standstill to the full speed in so many decisions. */
const STEPS = 16n;

/** Half of what goes now: from there it is felt for. */
export const firstLimit = (copyBytesPerSecond: bigint | null): AutoLimit => ({
  limitBytesPerSecond: most(LEAST_BYTES, (copyBytesPerSecond ?? 2n * FIRST_BYTES) / 2n),
  peakBytesPerSecond: copyBytesPerSecond ?? 0n,
});

export function nextLimit(
  { limitBytesPerSecond: limit, peakBytesPerSecond }: AutoLimit,
  { p99Ms, copyBytesPerSecond: rate }: Observed,
  boundMs: number,
): AutoLimit {
  const peak = most(peakBytesPerSecond, rate ?? 0n);
  if (p99Ms !== null && p99Ms > boundMs) {
    // A limit above what really goes would take several halvings before anybody felt it.
    const now = rate !== null && rate > 0n && rate < limit ? rate : limit;
    return { limitBytesPerSecond: most(LEAST_BYTES, now / 2n), peakBytesPerSecond: peak };
  }
  // The storage is what slows them down: a limit far above that could not be felt when it has to be.
  const isIdle = rate !== null && limit > most(2n * rate, FIRST_BYTES);
  const step = most(LEAST_BYTES, peak / STEPS);
  return { limitBytesPerSecond: isIdle ? limit : limit + step, peakBytesPerSecond: peak };
}

/** Ms. Twice what it was before the move; on a quick storage a few ms are nobody's grief. */
export const defaultBoundMs = (beforeP99Ms: number | null): number =>
  Math.max(5, 2 * (beforeP99Ms ?? 0));

const most = (a: bigint, b: bigint): bigint => (a > b ? a : b);
