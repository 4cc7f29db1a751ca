// Every single fault over the toy plan.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { crash, everyFault, trouble } from './faults.js';
import { scenario } from './stage.js';
import { toyPlan } from './toy.js';

test('after any crash the operation is finished forward', async (t) => {
  const tried = await everyFault(crash, async (striker) => {
    const { outcome } = await scenario(striker);
    assert.equal(outcome, 'committed');
  });
  t.diagnostic(`${tried} faults`);
  assert.ok(tried >= toyPlan.steps.length * 4, `only ${tried} faults`);
});

test('after any error all of the plan is there or none of it, and the error is the one that was thrown', async (t) => {
  const outcomes = { committed: 0, 'rolled-back': 0, waiting: 0 };
  const tried = await everyFault(trouble, async (striker) => {
    const { outcome, error, errors } = await scenario(striker);
    outcomes[outcome]++;
    if (outcome === 'rolled-back' && errors.length === 0) assert.equal(error, striker.thrown[0]);
    if (error !== null) assert.equal(error.message, 'no space left on device');
  });
  t.diagnostic(`${tried} faults: ${JSON.stringify(outcomes)}`);
  assert.ok(outcomes.committed > 20 && outcomes['rolled-back'] > 20);
});
