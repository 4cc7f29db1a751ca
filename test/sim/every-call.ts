// The real planners and the real effects over the fake QEMU, with every call of theirs struck. Two files share the kinds of
// faults, because one alone takes minutes: operations.test.ts and operation-deaths.test.ts.

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { present } from '../../src/std/assert.js';
import type { Scenario } from './ferry-scenarios.js';
import { scenarios } from './ferry-scenarios.js';
import type { Cut, Story } from './ferry-stories.js';
import { deathStory, story } from './ferry-stories.js';
import type { Moment } from './faults.js';
import { crash, Striker, trouble } from './faults.js';

/** Why an operation may wait for a person: what struck it, or that the very question was struck which would have told. */
const explained =
  /no space left on device|power cut|the connection ended|QEMU is gone|it cannot be told whether/;
const moments: readonly Moment[] = ['before', 'after'];
const longest = 5000;

interface Tally {
  tried: number;
  committed: number;
  'rolled-back': number;
  nothing: number;
  waiting: number;
  attention: number;
  readonly failures: string[];
  readonly reasons: Map<string, number>;
}

type Run = (scenario: Scenario, call: number, moment: Moment) => Promise<Story>;

const struckBy =
  (error: () => Error, cut: Cut = 'daemon'): Run =>
  async (scenario, call, moment) =>
    await story(scenario, new Striker({ call, moment, error }), cut);

/** By what happens at the call. */
export const kinds = {
  'an error': struckBy(trouble),
  'a crash of the daemon': struckBy(crash),
  'a power cut': struckBy(crash, 'power'),
  'a power cut, and a storage that lied': struckBy(crash, 'lie'),
  'the death of QEMU': async (scenario, call, moment) =>
    await deathStory(scenario, { call, moment }, new Striker()),
} as const satisfies Readonly<Record<string, Run>>;

export type Kind = keyof typeof kinds;

/** Strikes every call of `scenario`, until a whole run is over before its call comes. */
async function everyCall(scenario: Scenario, run: Run): Promise<Tally> {
  const tally = newTally();
  await run(scenario, Infinity, 'before');
  for (let call = 0; call < longest; call++) {
    for (const moment of moments) {
      const calls = await count(tally, `${moment} call ${call}`, run(scenario, call, moment));
      if (calls !== null && calls <= call) return tally;
      tally.tried++;
    }
    if (tally.failures.length > 50) return tally;
  }
  throw new Error('the operation never came to its end');
}

const newTally = (): Tally => ({
  tried: 0,
  committed: 0,
  'rolled-back': 0,
  nothing: 0,
  waiting: 0,
  attention: 0,
  failures: [],
  reasons: new Map(),
});

/** A fault, then a crash or a death in the recovery from it, at random calls that a fixed seed gives. */
async function somePairs(scenario: Scenario, pairs: number): Promise<Tally> {
  const tally = newTally();
  const { calls } = await story(scenario, new Striker());
  const random = randomOf(calls);
  for (let n = 0; n < pairs; n++) {
    const first = {
      call: random(calls),
      moment: pick(moments, random),
      error: pick(errors, random),
    };
    const second = { call: first.call + 1 + random(40), moment: pick(moments, random) };
    const name = `${first.error().name} ${first.moment} call ${first.call}, then`;
    const isDeath = n % 2 === 0;
    const running = isDeath
      ? deathStory(scenario, second, new Striker(first))
      : story(scenario, new Striker(first, { ...second, error: crash }));
    const what = isDeath ? 'the death of QEMU' : 'a crash';
    await count(tally, `${name} ${what} ${second.moment} call ${second.call}`, running);
    tally.tried++;
  }
  return tally;
}

const errors = [trouble, crash] as const;
const pick = <T>(from: readonly T[], random: (below: number) => number): T =>
  present(from[random(from.length)], 'within the list');

/** Numbers below a limit, the same ones each time (a linear congruential generator). */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** How many calls there were; null when the story failed. */
async function count(tally: Tally, name: string, running: Promise<Story>): Promise<number | null> {
  try {
    const { outcome, attention, calls } = await running;
    tally[outcome]++;
    tally.attention += attention.length;
    for (const reason of attention) tally.reasons.set(reason, (tally.reasons.get(reason) ?? 0) + 1);
    return calls;
  } catch (error) {
    tally.failures.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
    return null;
  }
}

const pairsEach = 40;

export interface Floors {
  /** How many faults there are at least; a run with fewer has struck nothing. */
  readonly tried: number;
  readonly rolledBack: number;
  readonly attention: number;
}

/** Strikes every call of every scenario by each of `wanted`, and by pairs of faults if asked; then a test tells how each went. */
export async function strikeAll(
  wanted: readonly Kind[],
  pairs: boolean,
  floors: Floors,
): Promise<void> {
  // Before the first `test`: inside one, node:test follows every promise, and this takes four times as long.
  const results = new Map<string, PromiseSettledResult<Tally>>();
  const only = process.env['FERRY_SCENARIO'];
  for (const scenario of scenarios.filter(({ name }) => only === undefined || name === only)) {
    for (const kind of wanted) {
      // Only unfinished copies are lied about.
      if (kind.includes('lied') && !scenario.name.startsWith('move')) continue;
      const [result] = await Promise.allSettled([everyCall(scenario, kinds[kind])]);
      results.set(`${scenario.name}: ${kind}`, result);
    }
    if (!pairs) continue;
    const [result] = await Promise.allSettled([somePairs(scenario, pairsEach)]);
    results.set(`${scenario.name}: two faults`, result);
  }
  for (const [name, result] of results)
    void test(`${name}: every write is there, nothing is left over`, (t) => told(t, result));
  void test('the faults really struck: many of them, and they turned operations round', (t) => {
    if (only === undefined) enough(t, [...results.values()], floors);
  });
}

function told(t: TestContext, result: PromiseSettledResult<Tally>): void {
  if (result.status === 'rejected') throw result.reason;
  const { failures, reasons, ...counts } = result.value;
  t.diagnostic(JSON.stringify(counts));
  assert.deepEqual(failures.slice(0, 5), [], `${failures.length} failures`);
  for (const reason of reasons.keys()) assert.match(reason, explained);
}

function enough(
  t: TestContext,
  results: readonly PromiseSettledResult<Tally>[],
  floors: Floors,
): void {
  const tallies = results.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const sum = (of: (tally: Tally) => number): number =>
    tallies.reduce((total, tally) => total + of(tally), 0);
  const tried = sum((tally) => tally.tried);
  const rolledBack = sum((tally) => tally['rolled-back']);
  const attention = sum((tally) => tally.attention);
  t.diagnostic(`${tried} faults, ${rolledBack} rolled back, ${attention} asked`);
  assert.ok(tried >= floors.tried, `${tried} faults`);
  assert.ok(rolledBack >= floors.rolledBack, `${rolledBack} rolled back`);
  assert.ok(attention >= floors.attention, `${attention} asked`);
}
