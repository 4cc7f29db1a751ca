// Quantiles from histograms, within the width of a bin.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Histogram } from './latency.js';
import { countOf, latencyOf, ourBoundaries, since, sumOf } from './latency.js';

/** As QEMU counts: a value goes into the bin whose upper boundary is the first above it. */
function histogramOf(ns: readonly number[], boundaries = ourBoundaries): Histogram {
  const bins = Array.from({ length: boundaries.length + 1 }, () => 0n);
  for (const value of ns) {
    const found = boundaries.findIndex((boundary) => value < boundary);
    const bin = found < 0 ? boundaries.length : found;
    bins[bin] = (bins[bin] ?? 0n) + 1n;
  }
  return { boundaries, bins };
}

test('boundaries rise from 20 µs to 20 s, each by at most 34 %', () => {
  assert.equal(ourBoundaries[0], 20_000n);
  assert.equal(ourBoundaries.at(-1), 20_000_000_000n);
  for (const [i, boundary] of ourBoundaries.entries()) {
    const before = ourBoundaries[i - 1];
    if (before === undefined) continue;
    assert.ok(boundary > before && Number(boundary) / Number(before) < 1.34);
  }
});

test('p50 and p99 are right to within a bin', () => {
  // 1000 writes of 0.1 ms to 100 ms.
  const all = Array.from({ length: 1000 }, (_, i) => (i + 1) * 100_000);
  const { p50Ms, p99Ms, writes } = latencyOf(histogramOf(all)) ?? assert.fail();
  assert.equal(writes, 1000);
  assert.ok(Math.abs(p50Ms - 50) < 50 * 0.34, `${p50Ms}`);
  assert.ok(Math.abs(p99Ms - 99) < 99 * 0.34, `${p99Ms}`);
});

for (const [name, histogram, want] of [
  ['no histogram', null, null],
  ['no writes', histogramOf([]), null],
  [
    'one write, below the first boundary',
    histogramOf([5], [1000n, 2000n]),
    { p50Ms: 0.001, p99Ms: 0.001, writes: 1 },
  ],
  [
    'writes above all boundaries, which are shown as the last one',
    histogramOf([3000, 9e9], [1000n, 2000n]),
    { p50Ms: 0.002, p99Ms: 0.002, writes: 2 },
  ],
] as const) {
  test(`latency of ${name}`, () => {
    const found = latencyOf(histogram);
    // 500 and 990 ns, in µs.
    assert.deepEqual(found, want);
  });
}

test('what came between two looks is their difference, unless the histogram was set anew', () => {
  const before = histogramOf([30_000, 40_000]);
  const now = histogramOf([30_000, 40_000, 1e6, 2e6, 3e6]);
  assert.equal(countOf(since(now, before) ?? assert.fail()), 3);
  assert.equal(since(before, now), null);
  assert.equal(since(now, histogramOf([], [1n])), null);
});

test('histograms of one shape add up, others do not', () => {
  const sum = sumOf([histogramOf([30_000]), histogramOf([1e6, 2e6])]);
  assert.equal(countOf(sum ?? assert.fail()), 3);
  assert.equal(sumOf([histogramOf([1]), histogramOf([1], [5n])]), null);
  assert.equal(sumOf([]), null);
});
