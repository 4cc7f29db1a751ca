// How long a guest's writes take, from QEMU's histograms (QAPI `block-latency-histogram-set`). Pure.

import type { LatencyHistogram } from '../../qapi/replies.js';
import type { LatencyView } from '../ferry-host.js';

/** Bins between boundaries in ns, one more than there are boundaries: below the first, …, at or above the last. */
export type Histogram = LatencyHistogram;

/** What the guest's writes took within some time. Of a few writes, the p99 is hardly more than the slowest. */
export type Latency = LatencyView;

const PER_DECADE = 8;
const FIRST_NS = 20_000;
const DECADES = 6;

/**
 * The boundaries that we set: 20 µs to 20 s, each a third above the one before, so that a p99 is never off by more. By
 * them we know our own histogram again after a restart.
 */
export const ourBoundaries: readonly bigint[] = Array.from(
  { length: PER_DECADE * DECADES + 1 },
  (_, i) => BigInt(Math.round(FIRST_NS * 10 ** (i / PER_DECADE))),
);

export const sameBoundaries = (a: readonly bigint[], b: readonly bigint[]): boolean =>
  a.length === b.length && a.every((boundary, i) => boundary === b[i]);

/** What came between two looks; null: the histogram was set anew between them. */
export function since(now: Histogram, before: Histogram): Histogram | null {
  if (!sameBoundaries(now.boundaries, before.boundaries)) return null;
  const bins = now.bins.map((count, i) => count - (before.bins[i] ?? 0n));
  return bins.some((count) => count < 0n) ? null : { boundaries: now.boundaries, bins };
}

/** Both together; null: they cannot be added. */
export function sumOf(histograms: readonly Histogram[]): Histogram | null {
  const [first, ...rest] = histograms;
  if (first === undefined) return null;
  if (rest.some((one) => !sameBoundaries(one.boundaries, first.boundaries))) return null;
  const bins = first.bins.map((count, i) =>
    rest.reduce((sum, one) => sum + (one.bins[i] ?? 0n), count),
  );
  return { boundaries: first.boundaries, bins };
}

export const countOf = ({ bins }: Histogram): number =>
  Number(bins.reduce((sum, count) => sum + count, 0n));

/** Null: nothing was written. */
export function latencyOf(histogram: Histogram | null): Latency | null {
  const writes = histogram === null ? 0 : countOf(histogram);
  if (histogram === null || writes === 0) return null;
  return {
    p50Ms: quantileMs(histogram, 0.5 * writes),
    p99Ms: quantileMs(histogram, 0.99 * writes),
    writes,
  };
}

/** Where so many writes were faster, in ms; even within its bin. What is above all boundaries is shown as the last. */
function quantileMs({ boundaries, bins }: Histogram, rank: number): number {
  let below = 0;
  for (const [i, bin] of bins.entries()) {
    const count = Number(bin);
    if (count > 0 && below + count >= rank) {
      const low = Number(boundaries[i - 1] ?? 0n);
      const high = Number(boundaries[i] ?? boundaries.at(-1) ?? 0n);
      return rounded((low + ((rank - below) / count) * Math.max(0, high - low)) / 1e6);
    }
    below += count;
  }
  return rounded(Number(boundaries.at(-1) ?? 0n) / 1e6);
}

/** Three digits after the point: µs. */
const rounded = (ms: number): number => Math.round(ms * 1000) / 1000;
