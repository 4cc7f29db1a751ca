// What the runner does, case by case.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Effect } from '../../src/job/effect.js';
import type { Resolution } from '../../src/job/resolve.js';
import type { RunnerDeps } from '../../src/job/runner.js';
import { perform, resolve, resume } from '../../src/job/runner.js';
import type { Entry } from '../../src/journal/entry.js';
import type { Journal } from '../../src/journal/journal.js';
import type { Plan, Step } from '../../src/plan/step.js';
import { Lock } from '../../src/std/queue.js';
import { NeedsOperatorError, StateError } from '../../src/std/errors.js';
import { crash, everyFault } from './faults.js';
import { live } from './lives.js';
import { allOrNothing, facts, journalOfToy, pivotStep, stageOf } from './stage.js';
import { toyEffects, toyPlan, ToyWorld, uuid } from './toy.js';

const pauseStep = pivotStep - 1;
const waitStep = 6;

/** Runs once, with nobody to say go on. */
async function once(
  journal: Journal,
  world: ToyWorld,
  more: Partial<RunnerDeps<ToyWorld>> = {},
  plan: Plan = toyPlan,
) {
  const [open] = await journal.openOperations();
  const operation = open?.id ?? (await journal.begin(plan));
  return await resume(operation, plan, { journal, effects: toyEffects, world, ...more });
}

/** The toy's effects with one of them changed. */
function effectsBut(
  kind: Step['kind'],
  change: Partial<Effect<Step, ToyWorld>>,
): typeof toyEffects {
  return { ...toyEffects, [kind]: { ...toyEffects[kind], ...change } };
}

const boom = async (): Promise<never> => {
  throw new Error('boom');
};

async function textOf(journal: Journal): Promise<string> {
  const [operation] = await journal.operations();
  const entries = await journal.entries(operation?.id ?? 0);
  return entries.map(({ entry }) => show(entry)).join(' ');
}

function show(entry: Entry): string {
  if ('step' in entry) return `${entry.type} ${entry.step},`;
  if ('from' in entry) return `replan ${entry.from}+${entry.done},`;
  if (entry.type === 'resolved') return `resolved ${entry.direction} by ${entry.by},`;
  return 'outcome' in entry ? `${entry.type}: ${entry.outcome}` : `${entry.type}: ${entry.reason},`;
}

test('a plan that meets no trouble leaves this journal', async () => {
  const journal = await journalOfToy();
  assert.deepEqual(await once(journal, new ToyWorld()), { outcome: 'committed' });
  const begun = [0, 1, 2, 3, 4, 5, 6].map((i) => `doing ${i}, done ${i},`).join(' ');
  const cleared = [10, 11, 12].map((i) => `doing ${i}, done ${i},`).join(' ');
  assert.equal(
    await textOf(journal),
    `${begun} done 7, doing 8, done 8, done 9, ${cleared} done 13, end: committed`,
  );
});

test('pauses come with the next entry, rounded, and cost no entry of their own', async () => {
  const journal = await journalOfToy();
  const effects = effectsBut('resume-guest', {
    do: async (_step, world, { notePause }) => {
      await world.cont();
      notePause('pivot', 12.345);
    },
  });
  await once(journal, new ToyWorld(), { effects });
  const entries = await journal.entries((await journal.operations())[0]?.id ?? 0);
  const told = entries.flatMap(({ entry }) => (entry.pauses === undefined ? [] : [entry]));
  assert.deepEqual(told, [{ type: 'done', step: 9, pauses: [{ what: 'pivot', ms: 12.3 }] }]);
  const plain = await journalOfToy();
  await once(plain, new ToyWorld());
  const [{ id } = { id: 0 }] = await plain.operations();
  assert.equal((await plain.entries(id)).length, entries.length);
});

test('a pause of a step that failed comes with what turns the operation round', async () => {
  const journal = await journalOfToy();
  const effects = effectsBut('open-node', {
    do: async (_step, _world, { notePause }) => {
      notePause('taken back', 1);
      throw new Error('boom');
    },
  });
  await once(journal, new ToyWorld(), { effects });
  const [operation] = await journal.operations();
  assert.deepEqual(operation?.pauses, [{ what: 'taken back', ms: 1 }]);
});

test('a failure before the commit step is undone in reverse order', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const outcome = await once(journal, world, { effects: effectsBut('open-node', { do: boom }) });
  assert.equal(outcome.outcome, 'rolled-back');
  assert.equal(
    await textOf(journal),
    'doing 0, done 0, doing 1, rollback: boom, undone 1, undone 0, end: rolled-back',
  );
});

test('a failure behind the commit step waits for a person, and is finished forward when told to go on', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const stopped = once(journal, world, { effects: effectsBut('dismiss-jobs', { do: boom }) });
  await assert.rejects(stopped, (error: unknown) => {
    assert.ok(error instanceof NeedsOperatorError);
    assert.match(error.message, /^boom; operation 1 \(toy-move of vm1\) stays open/);
    assert.equal((error.cause as Error).message, 'boom');
    return true;
  });
  const [open] = await journal.openOperations();
  assert.equal(open?.attention, 'boom');
  assert.equal(open?.direction, 'forward');
  assert.deepEqual(await once(journal, world), { outcome: 'committed' });
  assert.equal(await world.facts(), facts.after);
});

test('a failure of an undo waits for a person, and goes on backwards when told to', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const effects = {
    ...effectsBut('snapshot', { undo: boom }),
    'start-mirror': {
      ...toyEffects['start-mirror'],
      do: async () => await Promise.reject(new Error('first')),
    },
  };
  await assert.rejects(
    once(journal, world, { effects }),
    /first; then undoing step 3 \(snapshot\) failed: boom/,
  );
  assert.equal((await journal.openOperations())[0]?.direction, 'back');
  const outcome = await once(journal, world);
  assert.ok(outcome.outcome === 'rolled-back' && outcome.error.message === 'first');
  assert.equal(await world.facts(), facts.before);
});

test('a commit step that fails and did not happen is rolled back', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const outcome = await once(journal, world, { effects: effectsBut('pivot', { do: boom }) });
  assert.equal(outcome.outcome, 'rolled-back');
  assert.equal(await world.facts(), facts.before);
});

test('a commit step that cannot be told is never turned round', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const effects = effectsBut('pivot', { do: boom, probe: async () => 'unknown' });
  await assert.rejects(once(journal, world, { effects }), NeedsOperatorError);
  assert.equal((await journal.openOperations())[0]?.direction, 'forward');
  assert.deepEqual(await once(journal, world), { outcome: 'committed' });
});

test('what the world cannot tell is shown to a person, and nothing is touched', async () => {
  const blind = Object.fromEntries(
    Object.entries(toyEffects).map(([kind, effect]) => [
      kind,
      { ...effect, probe: async () => 'unknown' as const },
    ]),
  ) as unknown as typeof toyEffects;
  let asked = 0;
  await everyFault(crash, async (striker) => {
    const stage = await stageOf(striker);
    // Seen between the lives: the second is blind, the third is not.
    let lives = 0;
    let left = '';
    const effects = new Proxy(toyEffects, {
      get: (_, kind: Step['kind']) => (lives === 1 ? blind : toyEffects)[kind],
    });
    const holds = async (journal: Journal): Promise<void> => {
      await stage.holds?.(journal);
      lives++;
      const [open] = await journal.openOperations();
      const doubtful = open?.steps.some(({ mark }) => mark === 'doing') === true;
      if (lives === 1) left = doubtful ? await stage.world.facts() : '';
      if (lives !== 2 || left === '') return;
      asked++;
      assert.equal(await stage.world.facts(), left);
      assert.match(open?.attention ?? '', /it cannot be told whether step \d+ \(.*\) was done/);
      assert.equal(open?.direction, 'forward');
    };
    const story = await live({ ...stage, effects, holds });
    assert.equal(story.outcome, 'committed');
    await allOrNothing(stage, story);
  });
  assert.ok(asked >= 20, `only ${asked} times`);
});

test('a failed rollback of what the world cannot tell is shown to a person', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const effects = effectsBut('start-mirror', { do: boom, probe: async () => 'unknown' });
  await assert.rejects(
    once(journal, world, { effects }),
    /^NeedsOperatorError: boom; it cannot be told whether step 6/,
  );
  assert.equal((await journal.openOperations())[0]?.direction, 'back');
  assert.equal((await once(journal, world)).outcome, 'rolled-back');
  assert.equal(await world.facts(), facts.before);
});

/** Brought to a stop in step 2 (snapshot), of which the world cannot tell anything; `did`: what is asked of it then. */
async function blindInStep2(half: 'done' | 'absent') {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const did: string[] = [];
  const { snapshot } = toyEffects;
  const blind = effectsBut('snapshot', {
    do: async (step, w, context) => {
      did.push('do');
      await snapshot.do(step as never, w, context); // The toy's own step.
    },
    undo: async (step, w, context) => {
      did.push('undo');
      await snapshot.undo(step as never, w, context);
    },
    probe: async () => await Promise.reject(new Error('no answer')),
  });
  const operation = await journal.begin(toyPlan);
  const broken = effectsBut('snapshot', {
    do: async (step, w, context) => {
      if (half === 'done') await snapshot.do(step as never, w, context);
      throw new Error('the process is gone');
    },
  });
  // A crash: nothing is written after the `doing`.
  const until = Object.create(journal) as Journal;
  until.append = async (id, entry, ...rest) => {
    if (entry.type === 'rollback') throw new Error('the process is gone');
    if (entry.type === 'attention') throw new Error('the process is gone');
    return await journal.append(id, entry, ...rest);
  };
  await resume(operation, toyPlan, { journal: until, effects: broken, world }).catch(() => null);
  const deps = { journal, effects: blind, world };
  await assert.rejects(resume(operation, toyPlan, deps), NeedsOperatorError);
  const settle = async (word: Omit<Resolution, 'by'>) => {
    const { ended } = await resolve(operation, toyPlan, { ...word, by: 'ann' }, deps);
    return await ended;
  };
  return { journal, world, did, settle, deps };
}

for (const [was, direction, asked] of [
  ['done', 'forward', []],
  ['absent', 'forward', ['do']],
  ['done', 'back', ['undo']],
  ['absent', 'back', []],
] as const) {
  test(`a person who says that the doubtful step is ${was} lets the operation go ${direction}`, async () => {
    const { journal, world, did, settle } = await blindInStep2(was);
    const { outcome } = await settle({ direction, was });
    assert.equal(outcome, direction === 'forward' ? 'committed' : 'rolled-back');
    assert.deepEqual(did, asked);
    assert.equal(await world.facts(), direction === 'forward' ? facts.after : facts.before);
    assert.deepEqual(world.rude, []);
    // Who said it is on record, and his word was used up before anybody acted on it.
    assert.match(await textOf(journal), new RegExp(`resolved ${direction} by ann, doing 2,`));
  });
}

test('told to go on without a word, the world is asked once more, and a person waited for again', async () => {
  const { journal, did, settle } = await blindInStep2('done');
  await assert.rejects(
    settle({ direction: 'forward', was: null }),
    /cannot be told whether step 3 \(snapshot\) was done/,
  );
  assert.deepEqual(did, []);
  assert.match((await journal.openOperations())[0]?.attention ?? '', /cannot be told/);
});

test("a person's word is used once: when the step fails after it, it is asked for anew", async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const effects = effectsBut('pivot', { do: boom, probe: async () => 'unknown' });
  const deps = { journal, effects, world };
  await assert.rejects(once(journal, world, { effects }), NeedsOperatorError);
  const answer = { direction: 'forward', was: 'absent', by: 'ann' } as const;
  const { ended } = await resolve(1, toyPlan, answer, deps);
  await assert.rejects(ended, /boom/);
  const entries = await journal.entries(1);
  assert.equal(entries.at(-1)?.entry.type, 'attention');
  await assert.rejects(resume(1, toyPlan, deps), /cannot be told whether step 9/);
});

test("a person's word that was not needed does not count the next time", async () => {
  const { journal, deps } = await blindInStep2('absent');
  // By now the world can tell, but the step fails, and after a crash the world is blind again.
  const failing = effectsBut('snapshot', {
    do: async () => await Promise.reject(new Error('no room')),
    undo: boom,
    probe: async () => 'partial',
  });
  const answer = { direction: 'forward', was: 'done', by: 'ann' } as const;
  const { ended } = await resolve(1, toyPlan, answer, { ...deps, effects: failing });
  await assert.rejects(ended, /no room/);
  assert.equal((await journal.openOperations())[0]?.direction, 'back');
  await assert.rejects(resume(1, toyPlan, deps), /cannot be told whether step 3/);
});

test('what the world knows by now counts more than a word, and a commit step that is done is not undone', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  const blind = effectsBut('pivot', {
    do: async (step, w, context) => {
      await toyEffects.pivot.do(step as never, w, context); // The toy's own step.
      throw new Error('no answer');
    },
    probe: async () => 'unknown',
  });
  await assert.rejects(once(journal, world, { effects: blind }), NeedsOperatorError);
  const deps = { journal, effects: toyEffects, world };
  await assert.rejects(
    resolve(1, toyPlan, { direction: 'back', was: 'absent', by: 'ann' }, deps),
    /step 9 is its commit step: if that is done, the operation is finished and not undone/,
  );
  const forward = { direction: 'forward', was: 'absent', by: 'ann' } as const;
  const { ended } = await resolve(1, toyPlan, forward, deps);
  assert.deepEqual(await ended, { outcome: 'committed' });
  assert.equal(await world.facts(), facts.after);
});

test('half of a step is finished on the way forward and undone on the way back', async () => {
  for (const way of ['forward', 'back'] as const) {
    const journal = await journalOfToy();
    const world = new ToyWorld();
    const half: string[] = [];
    const effects = effectsBut('snapshot', {
      do: async () => void half.push('do'),
      undo: async () => void half.push('undo'),
      probe: async () => 'partial',
    });
    const operation = await journal.begin(toyPlan);
    await world.create('/src/overlay.img');
    await world.open('overlay', '/src/overlay.img');
    for (const step of [0, 1]) await journal.append(operation, { type: 'done', step });
    await journal.append(operation, { type: 'doing', step: 2 });
    if (way === 'back') await journal.append(operation, { type: 'rollback', reason: 'boom' });
    await once(journal, world, { effects }).catch(() => undefined);
    assert.equal(half[0], way === 'back' ? 'undo' : 'do');
  }
});

for (const cancelAt of toyPlan.steps.keys()) {
  const late = cancelAt >= pivotStep;
  test(`cancelled in step ${cancelAt} (${toyPlan.steps[cancelAt]?.kind}), it is ${late ? 'finished' : 'rolled back'}`, async () => {
    const journal = await journalOfToy();
    const world = new ToyWorld();
    const cancel = new AbortController();
    const outcome = await once(journal, world, {
      signal: cancel.signal,
      onProgress: ({ step, state }) => {
        if (step === cancelAt && state === 'doing') cancel.abort();
      },
    });
    assert.equal(outcome.outcome, late ? 'committed' : 'rolled-back');
    assert.equal(await world.facts(), late ? facts.after : facts.before);
    if (!('error' in outcome)) return;
    assert.ok(outcome.error instanceof StateError && outcome.error.code === 'OPERATION_ABORTED');
  });
}

test('only a background step before the commit step sees the cancel, and its failure is called one', async () => {
  const signals = new Map<string, AbortSignal>();
  const cancel = new AbortController();
  const effects = Object.fromEntries(
    Object.entries(toyEffects).map(([kind, effect]) => {
      const known = effect as Effect<Step, ToyWorld>;
      const seen: Effect<Step, ToyWorld> = {
        ...known,
        do: async (step, world, context) => {
          signals.set(kind, context.signal);
          if (kind === 'wait-ready') {
            cancel.abort();
            context.signal.throwIfAborted();
          }
          await known.do(step, world, context);
        },
      };
      return [kind, seen];
    }),
  ) as unknown as typeof toyEffects;
  const outcome = await once(await journalOfToy(), new ToyWorld(), {
    effects,
    signal: cancel.signal,
  });
  assert.ok('error' in outcome && outcome.error instanceof StateError);
  assert.match(outcome.error.message, /cancelled at step 7 \(wait-ready\)/);
  assert.equal(signals.get('wait-ready')?.aborted, true);
  assert.equal(signals.get('start-mirror')?.aborted, false);
});

test('the lock is held all the time, except while a background step is done', async () => {
  const lock = new Lock();
  const free: string[] = [];
  const world = new Proxy(new ToyWorld(), {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]) => {
        if (!lock.busy) free.push(String(key));
        return (await Reflect.apply(value, target, args)) as unknown;
      };
    },
  });
  assert.deepEqual(await once(await journalOfToy(), world, { lock }), { outcome: 'committed' });
  assert.deepEqual(free, ['waitReady']);
  assert.equal(lock.busy, false);
});

test('a step is reported as it begins, goes on and ends', async () => {
  const seen: string[] = [];
  const effects = effectsBut('wait-ready', {
    do: async (_, world, { progress }) => {
      progress({ doneBytes: 1n, totalBytes: 2n });
      await world.waitReady();
    },
  });
  const onProgress: RunnerDeps<ToyWorld>['onProgress'] = ({ step, state, report }) => {
    if (step === waitStep || step === pauseStep)
      seen.push(`${step} ${state} ${report?.doneBytes ?? '-'}`);
  };
  await once(await journalOfToy(), new ToyWorld(), { effects, onProgress });
  assert.deepEqual(seen, ['6 doing -', '6 doing 1', '6 done -', '7 doing -', '7 done -']);
});

test('an operation that has ended is not run again', async () => {
  const journal = await journalOfToy();
  const world = new ToyWorld();
  await once(journal, world);
  const [operation] = await journal.operations();
  assert.deepEqual(
    await resume(operation?.id ?? 0, toyPlan, { journal, effects: toyEffects, world }),
    { outcome: 'committed' },
  );
  assert.deepEqual(world.rude, []);
});

test('a journal that fails for good leaves the operation open and says so', async () => {
  const journal = await journalOfToy();
  const broken = Object.create(journal) as Journal;
  const operation = await journal.begin(toyPlan);
  broken.append = boom;
  const deps = { journal: broken, effects: toyEffects, world: new ToyWorld() };
  await assert.rejects(resume(operation, toyPlan, deps), NeedsOperatorError);
  assert.equal((await journal.openOperations()).length, 1);
});

test('planning, beginning and the first steps happen under one hold of the lock', async () => {
  const lock = new Lock();
  const journal = await journalOfToy();
  const deps = { journal, effects: toyEffects, world: new ToyWorld(), lock };
  const order: string[] = [];
  const planned = async (): Promise<Plan> => {
    order.push('planned');
    void lock.run(async () => void order.push(await textOf(journal)));
    return toyPlan;
  };
  const { outcome } = await perform(planned, deps);
  assert.deepEqual(outcome, { outcome: 'committed' });
  // Who waited for the lock got it when the background step was begun.
  assert.match(order[1] ?? '', /doing 6,$/);
});

test('a refusal is thrown and leaves no operation', async () => {
  const journal = await journalOfToy();
  const refusal = new StateError('OPERATION_INVALID', 'not now');
  const deps = { journal, effects: toyEffects, world: new ToyWorld() };
  await assert.rejects(
    perform(async () => ({ refusal }), deps),
    refusal,
  );
  assert.deepEqual(await journal.operations(), []);
});

test('a plan of records only is committed at once', async () => {
  const journal = await journalOfToy();
  const plan: Plan = {
    ...toyPlan,
    operation: 'autostart',
    steps: [{ kind: 'record', changes: [{ change: 'autostart', on: true }] }],
    commitAt: 1,
  };
  const deps = { journal, effects: toyEffects, world: new ToyWorld() };
  const { operation } = await perform(async () => plan, deps);
  assert.equal((await journal.domain(uuid))?.autostart, true);
  assert.equal((await journal.operation(operation))?.outcome, 'committed');
});
