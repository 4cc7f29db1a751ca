// Random operations and deaths on writing guests, for a time. A seed gives the same sequence of choices again; where
// two things run side by side inside the daemon, a point may be another one all the same.

import { messageOf } from '../../src/std/errors.js';
import { withLab } from '../lib/lab.js';
import type { Verdict } from '../lib/verify.js';
import type { Blow, Deed, Moment } from './blow.js';
import { strike, type CaseResult } from './case.js';
import { pickOf, randomOf, type Random } from './random.js';
import { checkLiving } from './living.js';
import { Rig } from './rig.js';
import { say } from './say.js';
import { openOperations, untilSettled } from './settle.js';
import { scenarios, type Scenario } from './scenarios.js';
import { stateOf, viewOf } from './view.js';

export interface Randomly {
  readonly minutes: number;
  readonly seed: number;
  readonly disks: number;
  readonly lanes: number;
}

/** Each as often as it stands here. */
const deeds: readonly [Deed | null, ...(Deed | null)[]] = [
  null,
  ...(['daemon', 'daemon', 'daemon', 'daemon', 'daemon'] as const),
  ...(['qemu', 'both', 'host', 'refuse'] as const),
];
const laterDeeds: readonly [Deed, ...Deed[]] = ['daemon', 'both', 'host'];
const moments: readonly [Moment, ...Moment[]] = ['before', 'after'];

class Tally {
  operations = 0;
  deaths = 0;
  acknowledged = 0;
  lostWrites = 0;
  leftovers = 0;
  hangs = 0;
  other = 0;

  get isClean(): boolean {
    return this.lostWrites + this.leftovers + this.hangs + this.other === 0;
  }

  take({ problems, struck, blow }: CaseResult): void {
    this.operations++;
    if (struck && blow?.deed !== 'refuse') this.deaths++;
    const count = (kind: string): number => problems.filter((one) => one.kind === kind).length;
    this.lostWrites += count('lost');
    this.leftovers += count('leftover');
    this.hangs += count('hang');
    this.other += count('wrong');
  }

  lifeEnded({ ok, acked, lostAcked }: Verdict): void {
    this.acknowledged += acked;
    if (!ok) this.lostWrites += Math.max(1, lostAcked);
  }
}

/** False: something was lost, left over, or did not come to its end. */
export async function randomly(options: Randomly): Promise<boolean> {
  const { minutes, seed, disks, lanes } = options;
  say(`seed ${seed}: ${minutes} minutes on ${lanes} guests with ${disks} disks`);
  const tally = new Tally();
  const endMs = performance.now() + minutes * 60_000;
  await Promise.all(
    Array.from({ length: lanes }, async (_, lane) => {
      const random = randomOf(seed * 64 + lane);
      while (performance.now() < endMs) await untilFailure(options, random, tally, endMs, lane);
    }),
  );
  const { operations, deaths, acknowledged, lostWrites, leftovers, hangs, other } = tally;
  say(
    `seed ${seed}: ${operations} operations, ${deaths} deaths, ${acknowledged} writes acknowledged, ` +
      `${lostWrites} lost, ${leftovers} leftovers, ${hangs} hangs, ${other} other faults`,
  );
  return tally.isClean;
}

async function untilFailure(
  { disks, seed }: Randomly,
  random: Random,
  tally: Tally,
  endMs: number,
  lane: number,
): Promise<void> {
  await withLab(`random-${seed}-${lane}`, async (lab) => {
    await using rig = await Rig.open(lab, disks);
    /** How many points each operation had. */
    const reach = new Map<string, number>();
    while (performance.now() < endMs) {
      const verdict = await rig.ensureLife();
      if (verdict !== null) tally.lifeEnded(verdict);
      const choice = choose(stateOf(await viewOf(rig)), random, reach);
      const result = await attempt(rig, choice);
      tally.take(result);
      tell(lane, choice, result);
      const { length } = result.points;
      reach.set(result.scenario, Math.max(reach.get(result.scenario) ?? 0, length));
      if (result.problems.length > 0) return;
    }
    tally.lifeEnded(await rig.endLife());
  });
}

interface Choice {
  readonly scenario: Scenario;
  readonly blow: Blow | null;
  /** Strikes the daemon that recovers from the first one. */
  readonly again: Blow | null;
}

/** Draws the same number of times whatever comes out. */
function choose(at: string, random: Random, reach: ReadonlyMap<string, number>): Choice {
  const [first, ...rest] = scenarios.filter(({ from }) => from === at || at === 'copies');
  if (first === undefined) throw new Error(`no operation begins in state ${at}`);
  const scenario = pickOf([first, ...rest], random);
  const deed = pickOf(deeds, random);
  const point = 1 + Math.floor((random(1000) / 1000) * (reach.get(scenario.name) ?? 20));
  const moment = pickOf(moments, random);
  const twice = random(4) === 0;
  const second = { point: 1 + random(20), moment, deed: pickOf(laterDeeds, random) };
  const blow = deed === null ? null : { point, moment, deed };
  const again = twice && blow !== null && blow.deed !== 'refuse' ? second : null;
  return { scenario, blow, again };
}

async function attempt(rig: Rig, { scenario, blow, again }: Choice): Promise<CaseResult> {
  try {
    const result = await strike(rig, scenario, blow, again);
    return blow?.deed === 'refuse' ? await resolved(rig, result) : result;
  } catch (error) {
    const text = `the harness gave up: ${messageOf(error)}`;
    return {
      scenario: scenario.name,
      disks: rig.disks,
      blow,
      struck: true,
      outcome: 'nothing',
      problems: [{ kind: 'hang', text }],
      points: [],
    };
  }
}

/**
 * An operation past its commit step whose QEMU refused something waits for a person (docs/operations.md): he says
 * that it shall go on.
 */
async function resolved(rig: Rig, result: CaseResult): Promise<CaseResult> {
  const stuck = (await openOperations(rig)).filter(({ status }) => status === 'attention');
  if (stuck.length === 0) return result;
  for (const { id } of stuck)
    await rig.client.resolveOperation(id, { direction: 'forward', was: null, by: 'torture' });
  const problems = await checkLiving(rig, await untilSettled(rig));
  return { ...result, outcome: 'committed', problems };
}

function tell(lane: number, { scenario, blow, again }: Choice, result: CaseResult): void {
  const at = result.points.at(-1)?.point ?? '';
  const what = blow === null ? 'unharmed' : `${blow.deed} ${blow.moment} ${blow.point} (${at})`;
  const then = again === null ? '' : `, then ${again.deed} ${again.moment} ${again.point}`;
  say(`${lane}: ${scenario.name}: ${what}${then}: ${result.outcome}`);
  for (const { kind, text } of result.problems) say(`  !! ${kind}: ${text}`);
}
