// A plan whose rest becomes another while a background step of it is done, as a rotation does to a move.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Effect } from '../../src/job/effect.js';
import { resume } from '../../src/job/runner.js';
import type { Journal } from '../../src/journal/journal.js';
import type { Plan, Step } from '../../src/plan/step.js';
import { present } from '../../src/std/assert.js';
import { QemuError } from '../../src/std/errors.js';
import { journalOfToy } from './stage.js';
import { toyEffects, toyPlan, ToyWorld } from './toy.js';

const waitStep = toyPlan.steps.findIndex(({ kind }) => kind === 'wait-ready');

/** One more step in front of what is left, done already; the wait begins anew behind it. */
async function replan(journal: Journal): Promise<void> {
  const { steps } = toyPlan;
  const prepared = { kind: 'record' } as const;
  const plan: Plan = {
    ...toyPlan,
    steps: [...steps.slice(0, waitStep), prepared, ...steps.slice(waitStep)],
    commitAt: toyPlan.commitAt + 1,
  };
  const operation = present((await journal.openOperations())[0], 'it is under way').id;
  const other = await journal.begin({ ...toyPlan, steps: [prepared], commitAt: 1 });
  const change = { change: 'replan', operation, from: waitStep, done: 1, plan } as const;
  await journal.append(other, { type: 'done', step: 0 }, [change]);
  await journal.append(other, { type: 'end', outcome: 'committed' });
}

for (const end of ['fails', 'succeeds'] as const) {
  test(`a background step that ${end} counts for nothing when the plan has it no more`, async () => {
    const journal = await journalOfToy();
    const world = new ToyWorld();
    let waits = 0;
    const wait: Effect<Step, ToyWorld> = {
      ...toyEffects['wait-ready'],
      do: async () => {
        if (waits++ > 0) return await world.waitReady();
        await replan(journal);
        if (end === 'fails') throw new Error('its job is gone');
      },
    };
    const effects = { ...toyEffects, 'wait-ready': wait };
    const operation = await journal.begin(toyPlan);
    const outcome = await resume(operation, toyPlan, { journal, effects, world });
    assert.deepEqual(outcome, { outcome: 'committed' });
    assert.equal(waits, 2);
    assert.deepEqual(world.rude, []);
  });
}

for (const [name, isGone, want] of [
  ['is back', false, 'committed'],
  ['is gone still', true, 'waiting'],
] as const) {
  test(`a wait that failed with its QEMU, which ${name}: ${want}`, async () => {
    const journal = await journalOfToy();
    const world = new ToyWorld();
    let waits = 0;
    const wait: Effect<Step, ToyWorld> = {
      ...toyEffects['wait-ready'],
      do: async () => {
        if (waits++ > 0) return await world.waitReady();
        throw new QemuError('wait: QEMU is gone', { qmpClass: 'Gone' });
      },
    };
    const effects = { ...toyEffects, 'wait-ready': wait };
    const plan: Plan = { ...toyPlan, waitsFrom: 0 };
    const operation = await journal.begin(plan);
    const deps = { journal, effects, world, isGone: async () => isGone };
    const { outcome } = await resume(operation, plan, deps);
    assert.equal(outcome, want);
    assert.equal(waits, isGone ? 1 : 2);
  });
}
