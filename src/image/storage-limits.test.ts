// One budget for all that is written to a storage.

import assert from 'node:assert/strict';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import type { Pacing } from './pace.js';
import { StorageLimits } from './storage-limits.js';

const MiB = 1 << 20;
const { signal } = new AbortController();

test('what goes to one storage shares its limit; another storage, or none that is there, has no part in it', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ferry-limit-'));
  t.after(async () => await rm(folder, { recursive: true }));
  const limits = new StorageLimits([
    { folder, bytesPerSecond: BigInt(8 * MiB) },
    { folder: join(folder, 'not mounted yet'), bytesPerSecond: 1n },
  ]);
  const passed: number[] = [];
  const own: Pacing = { pass: async (bytes) => void passed.push(bytes) };
  const [one, other] = [
    await limits.for(join(folder, 'a'), own),
    await limits.for(join(folder, 'b'), undefined),
  ];
  const began = performance.now();
  await one?.pass(4 * MiB, signal);
  await other?.pass(4 * MiB, signal);
  await one?.pass(1, signal);
  const seconds = (performance.now() - began) / 1000;
  // What was passed is paid for before the next may pass.
  assert.ok(seconds >= 0.95, `${seconds} s for 8 MiB at 8 MiB a second`);
  assert.deepEqual(passed, [4 * MiB, 1], 'the limit of the operation holds as well');

  assert.notEqual((await stat('/proc')).dev, (await stat(folder)).dev);
  assert.equal(await limits.for('/proc/x', own), own);
  assert.equal(await limits.for('/proc/x', undefined), undefined);
});
