// Every pair of faults over the toy plan: a fault, then another in the same process, in its rollback or in the recovery.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { crash, everyPair, trouble } from './faults.js';
import { scenario } from './stage.js';

const rows = [
  ['a crash, then another', crash, crash, 2700],
  ['an error, then a crash', trouble, crash, 2200],
  ['an error, then another', trouble, trouble, 2200],
  ['a crash, then an error', crash, trouble, 2700],
] as const;

// Before the first `test`: inside one, node:test follows every promise, and this takes four times as long.
const found: PromiseSettledResult<number>[] = [];
for (const [, first, second] of rows) {
  const pairs = everyPair(first, second, async (striker) => {
    const { outcome } = await scenario(striker);
    if (first === crash && second === crash) assert.equal(outcome, 'committed');
  });
  found.push(...(await Promise.allSettled([pairs])));
}

for (const [i, [name, , , atLeast]] of rows.entries()) {
  test(`${name}: all of the plan is there or none of it`, (t) => {
    const result = found[i];
    if (result?.status !== 'fulfilled') throw result?.reason;
    t.diagnostic(`${result.value} pairs`);
    assert.ok(result.value >= atLeast, `only ${result.value} pairs`);
  });
}
