// The limit that moves by itself, on a storage that is simulated: the nearer it comes to its end, the longer all wait.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { AutoLimit } from './auto-limit.js';
import { LEAST_BYTES, defaultBoundMs, firstLimit, nextLimit } from './auto-limit.js';

const MiB = 1 << 20;

interface Storage {
  /** MiB a second. */
  readonly most: number;
  readonly idleP99Ms: number;
}

/** As a queue has it: waiting grows with what is left of the storage. */
function observe({ most, idleP99Ms }: Storage, limitMiB: number) {
  const rate = Math.min(limitMiB, most);
  const left = Math.max(0.02, 1 - rate / most);
  return { rate, p99Ms: idleP99Ms / left };
}

function simulate(storageAt: (step: number) => Storage, steps: number, boundMs: number) {
  let auto: AutoLimit = firstLimit(BigInt(storageAt(0).most * MiB));
  return Array.from({ length: steps }, (_, step) => {
    const seen = observe(storageAt(step), Number(auto.limitBytesPerSecond) / MiB);
    const copyBytesPerSecond = BigInt(Math.round(seen.rate * MiB));
    auto = nextLimit(auto, { p99Ms: seen.p99Ms, copyBytesPerSecond }, boundMs);
    return seen;
  });
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

for (const most of [40, 400, 4000]) {
  test(`a storage of ${most} MiB/s: writes stay within the bound nearly always, and the copy gets its part`, () => {
    // At a bound of 5 times the idle latency, 80 % of it may be used.
    const seen = simulate(() => ({ most, idleP99Ms: 2 }), 200, 10);
    const settled = seen.slice(20);
    const slow = settled.filter(({ p99Ms }) => p99Ms > 10).length;
    assert.ok(slow / settled.length < 0.2, `${slow} of ${settled.length} too slow`);
    const rate = mean(settled.map((one) => one.rate));
    assert.ok(rate > 0.5 * 0.8 * most && rate <= 0.8 * most, `${rate} MiB/s`);
  });
}

test('a storage that becomes ten times slower is left alone within a few decisions, and used again when it is well', () => {
  const slow: Storage = { most: 40, idleP99Ms: 2 };
  const quick: Storage = { most: 400, idleP99Ms: 2 };
  const seen = simulate((step) => (step >= 60 && step < 120 ? slow : quick), 200, 10);
  const bad = seen.slice(60, 120).findIndex(({ p99Ms }) => p99Ms <= 10);
  assert.ok(bad >= 0 && bad <= 5, `within the bound after ${bad} decisions`);
  assert.ok(mean(seen.slice(70, 120).map((one) => one.rate)) < 0.8 * 40);
  assert.ok(mean(seen.slice(160).map((one) => one.rate)) > 0.4 * 0.8 * 400);
});

test('a guest that is slow anyway leaves the copy at its least, never at nothing', () => {
  const seen = simulate(() => ({ most: 400, idleP99Ms: 50 }), 40, 10);
  assert.equal(seen.at(-1)?.rate, Number(LEAST_BYTES) / MiB);
});

test('a guest that does not write is not spared', () => {
  let auto = firstLimit(100n << 20n);
  for (let i = 0; i < 100; i++)
    auto = nextLimit(auto, { p99Ms: null, copyBytesPerSecond: auto.limitBytesPerSecond }, 5);
  assert.ok(auto.limitBytesPerSecond > 500n << 20n);
});

test('the limit does not run away from what the storage gives', () => {
  let auto = firstLimit(100n << 20n);
  for (let i = 0; i < 1000; i++)
    auto = nextLimit(auto, { p99Ms: 1, copyBytesPerSecond: 100n << 20n }, 5);
  assert.ok(auto.limitBytesPerSecond <= 210n << 20n, String(auto.limitBytesPerSecond));
});

for (const [before, want] of [
  [null, 5],
  [0.4, 5],
  [12, 24],
] as const) {
  test(`the default bound for a p99 of ${before} ms before the move is ${want} ms`, () =>
    assert.equal(defaultBoundMs(before), want));
}
