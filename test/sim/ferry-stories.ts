// One operation and what strikes it, told to its end.

import type { Outcome } from '../../src/job/runner.js';
import { resume } from '../../src/job/runner.js';
import { NeedsOperatorError } from '../../src/std/errors.js';
import {
  before,
  checkFiles,
  checkManners,
  checkNothing,
  checkRunning,
  checkStopped,
} from './ferry-checks.js';
import type { Health } from '../fake/job.js';
import type { FerryBench } from './ferry-bench.js';
import type { Scenario } from './ferry-scenarios.js';
import { prepared } from './ferry-scenarios.js';
import type { Moment } from './faults.js';
import { Striker } from './faults.js';

export interface Story {
  /** `nothing`: it was struck before it began. */
  readonly outcome: Outcome['outcome'] | 'nothing';
  /** How often a person was asked for. */
  readonly attention: readonly string[];
  readonly calls: number;
}

/** What befalls an operation besides what strikes the daemon's own calls. */
export interface Fate {
  /** Who dies with a daemon that is struck dead. */
  readonly cut?: 'daemon' | 'power';
  readonly event?:
    | { readonly call: number; readonly moment: Moment; readonly is: 'death of QEMU' }
    | {
        readonly call: number;
        readonly moment: Moment;
        readonly is: Exclude<Health, 'ok'>;
        readonly folder: string;
      };
}

const longestStory = 8;

/** What a storage that hangs makes rude, when it began to between the question to it and what followed. */
const lateHang = /\(law 9\)/;

/** An operation from its plan to its end, and then the death of the QEMU that is left. */
export async function story(
  scenario: Scenario,
  striker: Striker,
  { cut = 'daemon', event }: Fate = {},
): Promise<Story> {
  const bench = await prepared(scenario);
  const then = await before(bench);
  bench.striker = striker;
  if (event !== undefined) {
    const { call, moment } = event;
    const act =
      event.is === 'death of QEMU' ? () => bench.kill() : () => bench.ail(event.folder, event.is);
    bench.trigger = { call, moment, act };
  }
  const told = await lives(bench, scenario, cut);
  const { calls } = striker;
  // Past its end nothing is struck any more.
  bench.striker = new Striker();
  bench.trigger = null;
  bench.heal();
  checkManners(bench, event?.is === 'hung' && event.call > 0 ? lateHang : null);
  if (!bench.qemu.alive) await bench.stop();
  await checkFiles(bench, then);
  if (bench.qemu.alive) {
    await checkRunning(bench, then);
    if (told.outcome === 'nothing' || told.outcome === 'rolled-back')
      await checkNothing(bench, then);
    bench.kill();
    await bench.stop();
  }
  await checkStopped(bench, then);
  return { ...told, calls };
}

async function lives(
  bench: FerryBench,
  scenario: Scenario,
  cut: 'daemon' | 'power',
): Promise<Omit<Story, 'calls'>> {
  const attention: string[] = [];
  let begin = true;
  for (let life = 0; life < longestStory; life++) {
    try {
      await bench.healedWhenStuck(go(bench, scenario, begin));
    } catch (error) {
      if (!(error instanceof Error) || error.name === 'AssertionError') throw error;
      const explained = bench.striker.dead || bench.striker.thrown.includes(error) || bench.wasIll;
      // Who was killed says nothing to anybody.
      const says = error instanceof NeedsOperatorError && !bench.striker.dead;
      if (says) attention.push(error.message);
      else if (!explained && bench.qemu.alive) throw error;
    }
    begin = false;
    // A person who is asked for mends the cause first.
    if (attention.length > 0) bench.heal();
    if (bench.striker.dead) {
      if (cut === 'power') bench.kill();
      await bench.restart();
      // The restarted host finds a dead QEMU while it goes on with what was open: either may come first.
      if (cut === 'power' && bench.striker.calls % 2 === 0) await bench.stop();
    }
    const [last] = await bench.journal.operations({ limit: 100 });
    const open = await bench.journal.openOperations();
    if (open.length > 0) continue;
    const operations = await bench.journal.operations();
    const mine = operations.find(({ kind }) => !kind.startsWith('stop'));
    const begun = operations.length > preparations(scenario) && last !== undefined;
    return { outcome: begun ? (mine?.outcome ?? 'nothing') : 'nothing', attention };
  }
  throw new Error(`no end after ${longestStory} lives; the last said: ${attention.at(-1)}`);
}

const preparations = ({ before: kind }: Scenario): number =>
  kind === null || kind === 'files' ? 0 : 1;

/** A first run, or whatever the daemon finds open when it starts or when a person says go on. */
async function go(bench: FerryBench, scenario: Scenario, begin: boolean): Promise<void> {
  if (begin) return await bench.perform(async () => await scenario.plan(bench));
  for (const { id, plan } of await bench.journal.openOperations())
    await resume(id, plan, bench.deps());
}
