// One operation and what strikes it, told to its end.

import assert from 'node:assert/strict';

import type { Outcome } from '../../src/job/runner.js';
import { showSource } from '../../src/block/layer.js';
import { resume } from '../../src/job/runner.js';
import { NeedsOperatorError } from '../../src/std/errors.js';
import type { Before } from './ferry-checks.js';
import {
  before,
  checkFiles,
  checkNothing,
  checkRunning,
  checkSaved,
  checkStopped,
} from './ferry-checks.js';
import type { Death, FerryBench } from './ferry-bench.js';
import type { Scenario } from './ferry-scenarios.js';
import { planClose, prepared } from './ferry-scenarios.js';
import { Striker } from './faults.js';

export interface Story {
  /** `nothing`: it was struck before it began. */
  readonly outcome: Outcome['outcome'] | 'nothing';
  /** How often a person was asked for. */
  readonly attention: readonly string[];
  readonly calls: number;
}

const longestStory = 8;

/**
 * What goes when the daemon is struck dead. `daemon`: it alone, QEMU lives through it. `power`: QEMU too, and what
 * nobody flushed. `lie`: as `power`, and half of each unfinished copy is not there although the storage said so.
 */
export type Cut = 'daemon' | 'power' | 'lie';

export async function story(
  scenario: Scenario,
  striker: Striker,
  cut: Cut = 'daemon',
): Promise<Story> {
  const bench = await prepared(scenario);
  const then = await before(bench);
  bench.striker = striker;
  const told = await lives(bench, scenario, cut);
  const { calls } = striker;
  // Past its end nothing is struck any more.
  bench.striker = new Striker();
  if (!bench.qemu.alive) await bench.stop();
  await checkFiles(bench, then);
  if (told.outcome === 'committed') await scenario.done?.(bench);
  if (bench.qemu.alive) {
    await checkRunning(bench);
    if (scenario.endsIn !== undefined)
      await checkWindow(bench, then, scenario.endsIn, told.outcome);
    else if (told.outcome === 'nothing' || told.outcome === 'rolled-back')
      await checkNothing(bench, then);
    bench.kill();
    await bench.stop();
  } else if (scenario.isOffline === true && told.outcome !== 'committed')
    await checkNothing(bench, then);
  await checkStopped(bench);
  return { ...told, calls };
}

/** What became of a way back. Where it was given up, what was written since the move goes into the copies, as the host has it. */
async function checkWindow(
  bench: FerryBench,
  then: Before,
  endsIn: '/src/' | '/dst/',
  outcome: Story['outcome'],
): Promise<void> {
  const sides = async (): Promise<readonly string[]> =>
    (await bench.record()).chains.flatMap(({ images }) =>
      images.map(({ source }) => showSource(source).slice(0, 5)),
    );
  if (outcome === 'committed')
    for (const side of await sides()) assert.equal(side, endsIn, 'where the disks are');
  const [window] = (await bench.record()).windows ?? [];
  if (window === undefined) return assert.equal(outcome, 'committed');
  // Not one step of it was done: the host begins it again.
  if (window.closing === null) await checkNothing(bench, then);
  await bench.perform(async () => await planClose(bench));
  await checkRunning(bench);
  for (const side of await sides()) assert.equal(side, '/dst/', 'there was no way back');
  assert.equal((await bench.record()).windows, undefined);
}

async function lives(
  bench: FerryBench,
  scenario: Scenario,
  cut: Cut,
): Promise<Omit<Story, 'calls'>> {
  const attention: string[] = [];
  let begin = true;
  for (let life = 0; life < longestStory; life++) {
    try {
      await go(bench, scenario, begin);
    } catch (error) {
      if (!(error instanceof Error) || error.name === 'AssertionError') throw error;
      const explained = bench.striker.dead || bench.striker.thrown.includes(error);
      // Who was killed says nothing to anybody.
      const says = error instanceof NeedsOperatorError && !bench.striker.dead;
      if (says) attention.push(error.message);
      else if (!explained && bench.qemu.alive) throw error;
    }
    begin = false;
    if (bench.striker.dead) {
      if (cut !== 'daemon') bench.powerCut(cut === 'lie' ? 'lies' : 'honest');
      await bench.restart();
      if (cut !== 'lie') await checkSaved(bench);
      // The restarted host finds a dead QEMU while it goes on with what was open: either may come first.
      if (cut !== 'daemon' && bench.striker.calls % 2 === 0) await bench.stop();
    }
    const [last] = await bench.journal.operations({ limit: 100 });
    const open = await bench.journal.openOperations();
    if (open.length > 0) continue;
    const operations = await bench.journal.operations();
    // A rotation is part of its move's story.
    const mine = operations.find(
      ({ kind }, i) =>
        !kind.startsWith('stop') &&
        kind !== 'rotate' &&
        i < operations.length - preparations(scenario),
    );
    const begun = operations.length > preparations(scenario) && last !== undefined;
    return { outcome: begun ? (mine?.outcome ?? 'nothing') : 'nothing', attention };
  }
  throw new Error(`no end after ${longestStory} lives; the last said: ${attention.at(-1)}`);
}

/** A move that waits: law 1 holds meanwhile, and its user starts the domain, whatever strikes. */
async function startAgain(bench: FerryBench): Promise<void> {
  await bench.stop();
  await checkStopped(bench);
  await bench.perform(async () => await bench.planStart());
}

const preparations = ({ before: kind }: Scenario): number =>
  kind === null || kind === 'files'
    ? 0
    : {
        moved: 1,
        'moved and rotated': 2,
        closing: 1,
        settled: 1,
        plain: 1,
        mirrored: 1,
        reuse: 1,
        owed: 2,
        off: 1,
        moving: 2,
        mirroring: 2,
      }[kind];

/** A first run, or whatever the daemon finds open when it starts or when a person says go on. */
async function go(bench: FerryBench, scenario: Scenario, begin: boolean): Promise<void> {
  if (begin) return await bench.perform(async () => await scenario.plan(bench));
  const open = await bench.journal.openOperations();
  // While another operation is open a start is refused.
  const waits = open.every(({ waiting }) => waiting !== null);
  if (waits && open.length > 0 && !bench.qemu.alive) await startAgain(bench);
  // As `recover` does: a move goes on in a QEMU whose start has come to its end.
  const last = open.filter(({ plan }) => plan.waitsFrom !== undefined);
  for (const { id, plan } of [...open.filter((one) => !last.includes(one)), ...last])
    await resume(id, plan, bench.deps());
}

/** QEMU dies at a call of the operation; the host stops the domain as soon as it gets the lock. */
export async function deathStory(
  scenario: Scenario,
  death: Death,
  striker: Striker,
): Promise<Story> {
  const bench = await prepared(scenario);
  const then = await before(bench);
  bench.striker = striker;
  bench.death = death;
  const told = await lives(bench, scenario, 'daemon');
  const { calls } = striker;
  bench.striker = new Striker();
  bench.death = null;
  if (bench.qemu.alive) bench.kill();
  await bench.stop();
  await checkFiles(bench, then);
  if (told.outcome === 'committed') await scenario.done?.(bench);
  await checkStopped(bench);
  assert.equal(bench.qemu.alive, false);
  return { ...told, calls };
}
