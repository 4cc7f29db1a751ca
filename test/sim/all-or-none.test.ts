// Law 5: disks switch together or not at all, whatever QEMU refuses and whichever job fails, at each disk in turn, over the
// real planners and effects and the fake QEMU; and the guest is afterwards in the run state that it had.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { formatNode, localPath } from '../../src/block/layer.js';
import { resume } from '../../src/job/runner.js';
import { mirrorsOf, planLost } from '../../src/plan/mirror-end.js';
import { layersOf } from '../../src/plan/refuse.js';
import { CommandError, queryJobs } from '../../src/qmp/monitor.js';
import { present } from '../../src/std/assert.js';
import { BusyError, NeedsOperatorError } from '../../src/std/errors.js';
import { chainFrom } from '../fake/start-job.js';
import type { FerryBench, Meddle } from './ferry-bench.js';
import { before, checkFiles, checkRunning, checkStopped } from './ferry-checks.js';
import type { Scenario } from './ferry-scenarios.js';
import { prepared, scenarios } from './ferry-scenarios.js';

const targets = ['vda', 'vdb', 'vdc', 'vdd', 'vde', 'vdf', 'vdg', 'vdh'];
/** Beyond that number of disks, what lasts is only tried with all of them: it is the same for each. */
const few = 3;
const named = (name: string): Scenario =>
  present(
    scenarios.find((scenario) => scenario.name === name),
    name,
  );
const [reopen, move] = [named('reopen 3 mirrors'), named('move 3 disks')];
const states = ['running', 'suspended'] as const;

/** What goes wrong at the n-th command of a name; `lasting`: at those that follow, too, until somebody helps. */
interface Wrong {
  readonly name: string;
  readonly command: string;
  readonly lasting?: boolean;
  readonly instead: (
    bench: FerryBench,
    args: Readonly<Record<string, unknown>>,
  ) => Promise<unknown>;
}

const refuse: Wrong['instead'] = async (_, args) => {
  throw new CommandError('a command', JSON.stringify(args), {
    qmpClass: 'GenericError',
    message: 'refused by the test',
  });
};

/** Answered as if all were well, and the job has failed by itself. */
const fail: Wrong['instead'] = async ({ qemu }, { id }) => {
  qemu.machine.job(String(id)).fail('No space left on device');
  return {};
};

const wrongs: readonly Wrong[] = [
  { name: 'job-complete is refused', command: 'job-complete', instead: refuse },
  { name: 'the job fails on its way to pending', command: 'job-complete', instead: fail },
  { name: 'job-finalize is refused', command: 'job-finalize', instead: refuse },
  { name: 'the job fails instead of its end', command: 'job-finalize', instead: fail },
  { name: 'a look at the roots is refused', command: 'query-block', instead: refuse },
  { name: 'the header cannot be written', command: 'change-backing-file', instead: refuse },
  {
    name: 'no job-complete is taken any more',
    command: 'job-complete',
    lasting: true,
    instead: refuse,
  },
  {
    name: 'no job-finalize is taken any more',
    command: 'job-finalize',
    lasting: true,
    instead: refuse,
  },
  {
    name: 'no header can be written any more',
    command: 'change-backing-file',
    lasting: true,
    instead: refuse,
  },
  {
    name: 'nothing can be mirrored back',
    command: 'blockdev-mirror',
    lasting: true,
    instead: refuse,
  },
];

interface Story {
  /** Whether the command came at all. */
  readonly struck: boolean;
  readonly side: 'source' | 'destination' | 'mixed';
  /** How often a person was needed. */
  readonly asked: number;
}

async function story(
  scenario: Scenario,
  state: (typeof states)[number],
  wrong: Wrong,
  n: number,
): Promise<Story> {
  const bench = await prepared(scenario);
  const then = await before(bench);
  if (state === 'suspended') await bench.suspend();
  let count = 0;
  const meddle: Meddle = (command, args) => {
    if (command !== wrong.command) return null;
    const hit = wrong.lasting === true ? count >= n : count === n;
    count++;
    return hit ? async () => await wrong.instead(bench, args) : null;
  };
  bench.meddle = meddle;
  const asked = await untilOver(bench, scenario);
  await looked(bench);
  await checkRunning(bench);
  await checkFiles(bench, then);
  const side = await sideOf(bench);
  bench.kill();
  await bench.stop();
  await checkStopped(bench);
  return { struck: count > n, side, asked };
}

/** The operation, and whatever a person has to do: help, and start the daemon again. */
async function untilOver(bench: FerryBench, scenario: Scenario): Promise<number> {
  let asked = 0;
  const attempt = async (body: () => Promise<unknown>): Promise<void> => {
    try {
      await body();
    } catch (error) {
      if (!(error instanceof NeedsOperatorError)) return;
      asked++;
      await checkWaiting(bench);
    }
  };
  await attempt(async () => await bench.perform(async () => await scenario.plan(bench)));
  for (let lives = 0; lives < 3; lives++) {
    const open = await bench.journal.openOperations();
    if (open.length === 0) return asked;
    bench.meddle = () => null;
    await bench.restart();
    for (const { id, plan } of open)
      await attempt(async () => await resume(id, plan, bench.deps()));
  }
  throw new Error('the operation does not come to its end');
}

/** While a person is waited for the guest stands still, or runs on what is known. */
async function checkWaiting(bench: FerryBench): Promise<void> {
  const { live } = await bench.record();
  if (bench.qemu.machine.runState !== 'running') return;
  for (const disk of live?.definition.disks ?? []) {
    const root = present(bench.qemu.machine.graph.roots.get(disk.target), disk.target);
    const [top] = chainFrom(root).map(({ name }) => name);
    const known = formatNode(present(layersOf(disk)[0], 'a disk has an image'));
    assert.equal(top, known, 'the guest runs on what is not known');
  }
}

/** As the host looks: mirrors whose job is over are dropped. */
async function looked(bench: FerryBench): Promise<void> {
  const record = await bench.record();
  const jobs = await queryJobs(await bench.monitor());
  const lost = mirrorsOf(record)
    .filter(({ mirror }) => (jobs.get(mirror.jobId)?.info.status ?? 'concluded') === 'concluded')
    .map((mirrored) => ({ ...mirrored, error: 'the job ended' }));
  if (lost.length === 0) return;
  await bench.perform(async () =>
    planLost({ record: await bench.record(), files: new Map(), nowSeconds: 9 }, lost),
  );
}

async function sideOf(bench: FerryBench): Promise<Story['side']> {
  const { live } = await bench.record();
  const tops = (live?.definition.disks ?? []).map(({ source }) =>
    source === null ? null : localPath(source),
  );
  if (tops.every((path) => path?.startsWith('/src/') === true)) return 'source';
  return tops.every((path) => path?.startsWith('/dst/') === true) ? 'destination' : 'mixed';
}

interface Tally {
  tried: number;
  source: number;
  destination: number;
  asked: number;
  readonly failures: string[];
}

async function everyDisk(disks: number, operation: Scenario): Promise<Tally> {
  const scenario = { ...operation, targets: targets.slice(0, disks) };
  const tally: Tally = { tried: 0, source: 0, destination: 0, asked: 0, failures: [] };
  const all = disks <= few || disks === targets.length;
  for (const state of states) {
    for (const wrong of wrongs.filter(({ lasting }) => all || lasting !== true)) {
      for (let n = 0, more = true; more; n++) more = await one(tally, scenario, state, wrong, n);
    }
  }
  return tally;
}

/** False: the operation was over before its n-th command of that name. */
async function one(
  tally: Tally,
  scenario: Scenario,
  state: (typeof states)[number],
  wrong: Wrong,
  n: number,
): Promise<boolean> {
  try {
    const { struck, side, asked } = await story(scenario, state, wrong, n);
    if (!struck) return false;
    tally.tried++;
    tally.asked += asked;
    if (side === 'mixed')
      tally.failures.push(`${state}, ${wrong.name} (${n}): disks on both sides`);
    else tally[side]++;
    return true;
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    tally.failures.push(`${state}, ${wrong.name} (${n}): ${text}`);
    return tally.failures.length < 20;
  }
}

// Before the first `test`: inside one, node:test follows every promise, and this takes four times as long.
const results = new Map<string, PromiseSettledResult<Tally>>();
for (const operation of [reopen, move]) {
  for (const disks of targets.keys()) {
    const [result] = await Promise.allSettled([everyDisk(disks + 1, operation)]);
    results.set(operation.name.replace('3', String(disks + 1)), result);
  }
}

for (const [name, result] of results) {
  test(`${name}: whatever fails at whichever disk, all switch or none, and the guest is as it was`, (t) => {
    if (result.status === 'rejected') throw result.reason;
    const { failures, ...counts } = result.value;
    t.diagnostic(JSON.stringify(counts));
    assert.deepEqual(failures.slice(0, 8), [], `${failures.length} failures`);
    assert.ok(counts.source > 0 && counts.destination > 0, 'both ends were seen');
  });
}

test('a job that failed before its end takes the others with it: nothing is finalized, nothing has to be mirrored back', async () => {
  const scenario = { ...reopen, targets: targets.slice(0, 3) };
  for (let n = 0; n < 3; n++) {
    const bench = await prepared(scenario);
    const sent: string[] = [];
    bench.meddle = (command, args) => {
      sent.push(command);
      const completes = sent.filter((one) => one === 'job-complete').length;
      if (command !== 'job-complete' || completes !== n + 1) return null;
      return async () => await fail(bench, args);
    };
    await bench.perform(async () => await scenario.plan(bench));
    const [last] = await bench.journal.operations();
    assert.match(last?.reason ?? '', /No space left/);
    assert.deepEqual(
      sent.filter((command) => command === 'job-finalize' || command === 'blockdev-mirror'),
      [],
    );
    assert.equal(bench.qemu.machine.runState, 'running');
  }
});

test('a QEMU that takes its time to answer does not end a wait for READY', async () => {
  const bench = await prepared({ ...move, targets: targets.slice(0, 1) });
  let late = 0;
  bench.meddle = (command, args) => {
    if (command !== 'query-jobs' || late > 0) return null;
    late++;
    return async () => {
      const message = 'no answer within 250 ms';
      throw new CommandError(command, JSON.stringify(args), { qmpClass: 'NoAnswer', message });
    };
  };
  await bench.perform(async () => await move.plan(bench));
  const [last] = await bench.journal.operations();
  assert.equal(late, 1);
  assert.equal(last?.outcome, 'committed');
});

test('a storage that is late once is asked again, and pivoted to when it answers in time', async () => {
  const bench = await prepared({ ...reopen, targets: targets.slice(0, 2) });
  const sent: string[] = [];
  bench.meddle = (command) => (sent.push(command), null);
  let late = 0;
  for (const [name, ask] of Object.entries(bench.images)) {
    if (name !== 'sync' && name !== 'answer') continue;
    const slow = async (path: string, ms: number): Promise<void> => {
      if (sent.includes('query-status') && late++ === 0) throw new BusyError(`${path}: late`);
      await (ask as (path: string, ms: number) => Promise<void>)(path, ms); // both take a path first
    };
    Object.assign(bench.images, { [name]: slow });
  }
  await bench.perform(async () => await reopen.plan(bench));
  const [last] = await bench.journal.operations();
  assert.ok(late > 1, 'asked again');
  assert.equal(last?.outcome, 'committed', last?.reason ?? '');
});
