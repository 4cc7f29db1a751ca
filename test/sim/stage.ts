// The toy plan on its stage: what has to hold between the lives of the daemon, and at the end.

import assert from 'node:assert/strict';

import type { Journal } from '../../src/journal/journal.js';
import { MemoryJournal } from '../../src/journal/memory.js';
import type { Striker } from './faults.js';
import type { Stage, Story } from './lives.js';
import { live, namedImage } from './lives.js';
import { factsAfter, toyDefinition, toyEffects, toyPlan, ToyWorld, uuid } from './toy.js';

export const pivotStep = toyPlan.commitAt - 1;
const roleStep = 3;
export const facts = { before: await new ToyWorld().facts(), after: await factsAfter(toyPlan) };

export async function stageOf(
  striker: Striker,
  deps: Stage<ToyWorld>['deps'] = {},
): Promise<Stage<ToyWorld>> {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const reopen = async (dead: Journal): Promise<Journal> => {
    assert.ok(dead instanceof MemoryJournal);
    return dead.crash();
  };
  const holds = async (now: Journal): Promise<void> => {
    assert.deepEqual(world.rude, []);
    await knownWithItsEntry(now);
  };
  return { plan: toyPlan, world, effects: toyEffects, striker, journal, reopen, holds, deps };
}

export async function journalOfToy(): Promise<MemoryJournal> {
  const journal = new MemoryJournal({ nowMs: () => 0 });
  await journal.record(uuid, [{ change: 'define', definition: toyDefinition, chains: [] }]);
  return journal;
}

/** What is known changes with the entry that says so: neither before it nor after it. */
export async function knownWithItsEntry(journal: Journal): Promise<void> {
  const [operation] = await journal.operations();
  const mark = (step: number) => operation?.steps[step]?.mark ?? 'none';
  const pivoted = mark(pivotStep) === 'done';
  assert.equal(
    namedImage(await journal.domain(uuid), 'vda'),
    pivoted ? '/dst/dest.img' : '/src/base.img',
  );
  assert.equal((await journal.roles()).length, mark(roleStep) === 'done' && !pivoted ? 1 : 0);
}

/** All of the plan or none of it, and what was told of it. */
export async function allOrNothing(stage: Stage<ToyWorld>, story: Story): Promise<void> {
  const told = (await story.journal.events()).map(({ event }) =>
    event.type === 'monitor' ? event.event : '',
  );
  const tale = told.join(', ');
  if (story.outcome === 'committed') {
    assert.equal(await stage.world.facts(), facts.after);
    assert.equal(tale, 'began, pivoted to dest, ended');
  } else {
    assert.equal(await stage.world.facts(), facts.before);
    assert.ok(['', 'began, took it back'].includes(tale), tale);
  }
  assert.deepEqual(await story.journal.openOperations(), []);
}

export async function scenario(striker: Striker): Promise<Story> {
  const stage = await stageOf(striker);
  const story = await live(stage);
  await allOrNothing(stage, story);
  return story;
}
