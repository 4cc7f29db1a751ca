// A journal that cannot be written from some append on, until it is mended: nobody is asked, nothing turns round, and the
// operation goes on from where it was.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { RunnerDeps } from '../../src/job/runner.js';
import { resume } from '../../src/job/runner.js';
import type { Journal } from '../../src/journal/journal.js';
import type { StepKind } from '../../src/plan/step.js';
import { JournalError } from '../../src/std/errors.js';
import { facts, journalOfToy } from './stage.js';
import { toyEffects, toyPlan, ToyWorld } from './toy.js';

/** `lost`: the first refused write is on the disk all the same, as after a failed fsync. */
function brokenFrom(journal: Journal, n: number, first: 'refused' | 'lost'): Journal {
  const broken = Object.create(journal) as Journal;
  let calls = 0;
  broken.append = async (...args) => {
    const call = calls++;
    if (call < n || (call === n && first === 'lost')) {
      const applied = await journal.append(...args);
      if (call < n) return applied;
    }
    throw new JournalError('failing', 'journal: cannot write');
  };
  return broken;
}

for (const first of ['refused', 'lost'] as const) {
  test(`interrupted at every append, its write ${first}, an operation goes on once it can be written`, async () => {
    for (let n = 0; ; n++) {
      const journal = await journalOfToy();
      const world = new ToyWorld();
      const operation = await journal.begin(toyPlan);
      const told: JournalError[] = [];
      const deps: RunnerDeps<ToyWorld> = {
        journal: brokenFrom(journal, n, first),
        effects: toyEffects,
        world,
        onInterrupted: (error) => void told.push(error),
      };
      const ended = await resume(operation, toyPlan, deps).catch((error: unknown) => error);
      if (ended instanceof JournalError) {
        assert.deepEqual(told, [ended], `append ${n}`);
        assert.equal(ended.operation, operation);
        assert.match(
          ended.message,
          /^journal: cannot write; operation 1 .* goes on by itself then$/,
        );
      }
      const [open] = await journal.openOperations();
      assert.equal(open?.attention ?? null, null, `append ${n}: nobody is asked`);
      if (open !== undefined) {
        const outcome = await resume(operation, toyPlan, { journal, effects: toyEffects, world });
        assert.deepEqual(outcome, { outcome: 'committed' }, `append ${n}`);
      }
      assert.equal(await world.facts(), facts.after, `append ${n}`);
      assert.deepEqual(world.rude, [], `append ${n}`);
      if (ended instanceof JournalError) continue;
      const entries = (await journal.entries(operation)).map(({ entry }) => entry.type);
      // What begins a step is written with what ends the one before.
      const together = entries.filter((type, i) => type === 'doing' && entries[i - 1] === 'done');
      assert.equal(n, entries.length - together.length, 'every append was one of them');
      break;
    }
  });
}

test('an operation waits for its turn before each step, and not once it may go', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const operation = await journal.begin(toyPlan);
  const turns: StepKind[] = [];
  const turn = async (kind: StepKind): Promise<void> => {
    const [open] = await journal.openOperations();
    assert.equal(open?.steps[turns.length]?.mark, 'none', `step ${turns.length} is not begun yet`);
    turns.push(kind);
  };
  await resume(operation, toyPlan, { journal, effects: toyEffects, world, turn });
  assert.deepEqual(
    turns,
    toyPlan.steps.map(({ kind }) => kind),
  );
});

test('a step that the journal stopped is done again; nothing turns round', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const operation = await journal.begin(toyPlan);
  const effect = toyEffects.pivot;
  let refusals = 1;
  const stopped: typeof effect = {
    ...effect,
    do: async (plan, on, context) => {
      if (refusals-- > 0) throw new JournalError('full', 'journal: cannot write a piece');
      await effect.do(plan, on, context);
    },
  };
  const effects: typeof toyEffects = { ...toyEffects, pivot: stopped };
  const deps = { journal, effects, world };
  await assert.rejects(resume(operation, toyPlan, deps), JournalError);
  const [open] = await journal.openOperations();
  assert.equal(open?.direction, 'forward');
  assert.equal(open?.attention, null);
  assert.deepEqual(await resume(operation, toyPlan, deps), { outcome: 'committed' });
  assert.equal(await world.facts(), facts.after);
});
