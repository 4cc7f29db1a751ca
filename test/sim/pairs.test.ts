// Every pair of faults over the toy plan: a fault, then another in the same process, in its rollback or in the recovery.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { crash, everyPair, trouble } from './faults.js';
import { scenario } from './stage.js';

for (const [name, first, second, atLeast] of [
  ['a crash, then another', crash, crash, 3900],
  ['an error, then a crash', trouble, crash, 2700],
  ['an error, then another', trouble, trouble, 2700],
  ['a crash, then an error', crash, trouble, 3900],
] as const) {
  test(`${name}: all of the plan is there or none of it`, async (t) => {
    const tried = await everyPair(first, second, async (striker) => {
      const { outcome } = await scenario(striker);
      if (first === crash && second === crash) assert.equal(outcome, 'committed');
    });
    t.diagnostic(`${tried} pairs`);
    assert.ok(tried >= atLeast, `only ${tried} pairs`);
  });
}
