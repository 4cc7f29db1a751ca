// Steps that are done side by side: which of them at once, what one that fails does to the others, and every fault. Copies of
// the toy are files that are made; the real ones go side by side in the moves of operations.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { EffectContext, Effect, Effects } from '../../src/job/effect.js';
import type { StepProgress } from '../../src/job/runner.js';
import { resolve, resume } from '../../src/job/runner.js';
import type { Journal } from '../../src/journal/journal.js';
import { MemoryJournal } from '../../src/journal/memory.js';
import type { Plan, Step, StepOf } from '../../src/plan/step.js';
import { NeedsOperatorError } from '../../src/std/errors.js';
import { crash, everyFault, trouble, type Striker } from './faults.js';
import { live } from './lives.js';

/** The files that are there, and what was done, in order. */
class World {
  readonly files = new Set<string>();

  async create(path: string): Promise<void> {
    this.files.add(path);
  }

  async remove(path: string): Promise<void> {
    this.files.delete(path);
  }

  async has(path: string): Promise<boolean> {
    return this.files.has(path);
  }
}

type Copy = StepOf<'copy-image'>;

const copyStep = (to: string, lane?: string): Copy => ({
  kind: 'copy-image',
  from: `/src/${to}`,
  to,
  format: 'raw',
  backing: null,
  ...(lane === undefined ? {} : { lane }),
});

const planOf = (...copies: readonly Copy[]): Plan => ({
  operation: 'move',
  domain: 'c0ffee00-0000-4000-8000-000000000001',
  domainName: 'vm1',
  steps: [...copies, { kind: 'record' }],
  commitAt: copies.length + 1,
});

/** Two of lane 1, one of lane 2, and one that is done alone. */
const plan = planOf(copyStep('a', '1'), copyStep('b', '1'), copyStep('c', '2'), copyStep('d'));

type Do = (step: Copy, world: World, context: EffectContext) => Promise<void>;

function effectsOf(make: Do): Effects<World> {
  const copy: Effect<Copy, World> = {
    background: true,
    lane: ({ lane }) => lane ?? null,
    do: make,
    undo: async ({ to }, world) => await world.remove(to),
    probe: async ({ to }, world) => ((await world.has(to)) ? 'done' : 'absent'),
  };
  const nothing: Effect<Step, World> = {
    repeatable: true,
    do: async () => undefined,
    undo: async () => undefined,
    probe: async () => 'unknown',
  };
  // The plan has no other kinds.
  return { 'copy-image': copy, record: nothing } as unknown as Effects<World>;
}

/** Done when somebody says so; what was begun and has not ended, by name. */
class Gates {
  readonly open = new Map<string, (error?: Error) => void>();
  private changed: () => void = () => undefined;

  readonly copy: Do = async ({ to }, world, { signal }) => {
    await new Promise<void>((resolve, reject) => {
      this.open.set(to, (error) => (error === undefined ? resolve() : reject(error)));
      signal.addEventListener('abort', () => reject(new Error(`${to} was stopped`)));
      this.changed();
    }).finally(() => {
      this.open.delete(to);
      this.changed();
    });
    await world.create(to);
  };

  /** Resolves when exactly these go on. */
  async until(...names: readonly string[]): Promise<void> {
    while ([...this.open.keys()].toSorted().join() !== names.join())
      await new Promise<void>((resolve) => (this.changed = resolve));
  }

  end(name: string, error?: Error): void {
    this.open.get(name)?.(error);
  }
}

interface Begun {
  readonly journal: Journal;
  readonly world: World;
  readonly gates: Gates;
  readonly told: StepProgress[];
  readonly ended: ReturnType<typeof resume>;
  readonly cancel: AbortController;
}

async function begin(of: Plan = plan): Promise<Begun> {
  const [journal, world, gates] = [new MemoryJournal({ nowMs: () => 0 }), new World(), new Gates()];
  const told: StepProgress[] = [];
  const cancel = new AbortController();
  const deps = {
    journal,
    world,
    effects: effectsOf(gates.copy),
    signal: cancel.signal,
    onProgress: (one: StepProgress) => void told.push(one),
  };
  const ended = resume(await journal.begin(of), of, deps);
  return { journal, world, gates, told, ended, cancel };
}

async function marksOf(journal: Journal): Promise<string> {
  const entries = (await journal.operations())[0]?.steps ?? [];
  return entries.map(({ mark }) => mark).join(' ');
}

test('lanes go on at once, what is in one lane comes one after the other, and the rest behind all of it', async () => {
  const { journal, gates, ended } = await begin();
  await gates.until('a', 'c');
  assert.equal(await marksOf(journal), 'doing doing doing none none');
  gates.end('a');
  await gates.until('b', 'c');
  gates.end('c');
  await gates.until('b');
  // The journal hears of all of them together.
  assert.equal(await marksOf(journal), 'doing doing doing none none');
  gates.end('b');
  await gates.until('d');
  assert.equal(await marksOf(journal), 'done done done doing none');
  gates.end('d');
  assert.deepEqual(await ended, { outcome: 'committed' });
});

test('one that fails stops the others, and is the reason of what is taken back', async () => {
  const { world, gates, ended } = await begin();
  await gates.until('a', 'c');
  gates.end('a');
  await gates.until('b', 'c');
  const full = new Error('no space left on device');
  gates.end('c', full);
  assert.deepEqual(await ended, { outcome: 'rolled-back', error: full });
  assert.deepEqual(world.files, new Set());
});

test('a cancel stops all of them', async () => {
  const { world, gates, ended, cancel } = await begin();
  await gates.until('a', 'c');
  cancel.abort();
  const outcome = await ended;
  assert.ok('error' in outcome);
  assert.match(outcome.error.message, /cancelled at step 1 /);
  assert.deepEqual(world.files, new Set());
});

test('what one says comes with what the others said last', async () => {
  const journal = new MemoryJournal({ nowMs: () => 0 });
  const told: StepProgress[] = [];
  const say: Do = async ({ to }, world, { progress }) => {
    progress({ doneBytes: BigInt(to.codePointAt(0) ?? 0), totalBytes: 200n });
    await world.create(to);
  };
  await resume(await journal.begin(plan), plan, {
    journal,
    world: new World(),
    effects: effectsOf(say),
    onProgress: (one) => void (one.report === null || told.push(one)),
  });
  const last = told.findLast(({ step }) => step < 3);
  const beside = [...(last?.beside ?? [])].map(([step, { doneBytes }]) => [step, doneBytes]);
  assert.deepEqual(beside.toSorted(), [
    [0, 97n],
    [1, 98n],
    [2, 99n],
  ]);
});

test('a person is asked of each of them in the order in which they are taken back', async () => {
  const [journal, world] = [new MemoryJournal({ nowMs: () => 0 }), new World()];
  const full: Do = async ({ to }, there) => {
    if (to === 'c') throw new Error('no space left on device');
    await there.create(to);
  };
  const known = effectsOf(full);
  const copy = { ...known['copy-image'], probe: async () => 'unknown' as const };
  const deps = { journal, world, effects: { ...known, 'copy-image': copy } };
  const operation = await journal.begin(plan);
  await assert.rejects(resume(operation, plan, deps), NeedsOperatorError);
  const say = async (was: 'done' | 'absent') => {
    const word = { direction: 'back', was, by: 'ann' } as const;
    return await (
      await resolve(operation, plan, word, deps)
    ).ended;
  };
  // Of c, then of b: of a the journal heard that it is done.
  await assert.rejects(say('absent'), NeedsOperatorError);
  assert.equal((await say('done')).outcome, 'rolled-back');
  assert.deepEqual(world.files, new Set());
});

for (const [what, error] of [
  ['a crash', crash],
  ['an error', trouble],
] as const) {
  test(`after ${what} at any call all of the copies are there or none`, async (t) => {
    const make: Do = async ({ to }, world) => await world.create(to);
    const tried = await everyFault(error, async (striker: Striker) => {
      const world = new World();
      const { outcome, journal } = await live<World>({
        plan,
        world,
        effects: effectsOf(make),
        striker,
        journal: new MemoryJournal({ nowMs: () => 0 }),
        reopen: async (dead) => (dead as MemoryJournal).crash(), // the one of above
      });
      const all = new Set(['a', 'b', 'c', 'd']);
      assert.deepEqual(world.files, outcome === 'committed' ? all : new Set());
      assert.deepEqual(await journal.openOperations(), []);
      if (error === crash) assert.equal(outcome, 'committed');
    });
    t.diagnostic(`${tried} faults`);
    assert.ok(tried >= 30, `only ${tried} faults`);
  });
}
