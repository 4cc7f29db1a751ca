// Law 5 on real QEMU: 1 to 8 disks go over together, or stay together, when a command is refused or a job fails at one
// disk in one phase of the pivot; the guest is afterwards in the run state that it had. How long it stood is printed.

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { present } from '../../src/std/assert.js';
import { withLab } from '../lib/lab.js';
import type { Blow } from '../torture/blow.js';
import { strike } from '../torture/case.js';
import { checkLiving } from '../torture/living.js';
import { Rig } from '../torture/rig.js';
import { arrange, scenarioNamed, type Scenario } from '../torture/scenarios.js';
import { namedDisks, stateOf, topsOf, viewOf, type View } from '../torture/view.js';

/** What goes wrong, and at which point; `n` counts disks from 1. */
const phases: Readonly<Record<string, (n: number) => Omit<Blow, 'moment'>>> = {
  'job-complete is refused': (n) => ({ point: `qmp job-complete #${n}`, deed: 'refuse' }),
  'the job fails on its way to pending': (n) => ({
    point: `qmp job-complete #${n}`,
    deed: 'cancel',
  }),
  'job-finalize is refused': (n) => ({ point: `qmp job-finalize #${n}`, deed: 'refuse' }),
  'the job fails instead of its end': (n) => ({ point: `qmp job-finalize #${n}`, deed: 'cancel' }),
};
/** After all disks have switched. */
const afterwards = (disks: number): Omit<Blow, 'moment'> => ({
  point: `ask query-block @ qmp job-finalize #${disks}`,
  deed: 'refuse',
});

type Side = 'source' | 'destination';

interface Seen {
  readonly side: Side | 'both';
  /** The longest time without an acknowledged write around the pivot. */
  readonly gapMs: number;
}

/** Where the disks are, between what they were on and what they were to go to. */
function sideOf(before: View, after: View): Seen['side'] {
  const tops = topsOf(after);
  const sides = [...topsOf(before)].map(([target, top]) =>
    tops.get(target) === top ? 'source' : 'destination',
  );
  return sides.every((side) => side === sides[0]) ? (sides[0] ?? 'both') : 'both';
}

async function tryOne(
  rig: Rig,
  scenario: Scenario,
  state: 'running' | 'suspended',
  blow: Omit<Blow, 'moment'>,
): Promise<Seen> {
  await rig.ensureLife();
  await arrange(rig, scenario.from);
  const before = await viewOf(rig);
  if (state === 'suspended') await rig.suspend();
  const acked = rig.life.guest.serial.acked();
  const from = performance.now();
  const { struck, problems } = await strike(rig, scenario, { ...blow, moment: 'before' });
  const where = `${state}, ${blow.deed} ${blow.point}`;
  assert.deepEqual(problems, [], where);
  assert.ok(struck, `${where}: never came to it`);
  const after = await viewOf(rig);
  const { serial } = rig.life.guest;
  if (state === 'suspended') {
    assert.equal(serial.acked(), acked, `${where}: a suspended guest wrote`);
    await rig.resume();
    await serial.waitProgress(16);
  }
  return { side: sideOf(before, after), gapMs: serial.maxGapMs(from, performance.now()) };
}

/** All disks for few of them; the first, one in the middle and the last of many. */
const places = (disks: number): readonly number[] =>
  disks <= 2 ? Array.from({ length: disks }, (_, i) => i + 1) : [1, disks / 2, disks];

async function everyPhase(t: TestContext, rig: Rig, scenario: Scenario): Promise<void> {
  const { disks } = rig;
  for (const state of disks <= 2 ? (['running', 'suspended'] as const) : (['running'] as const)) {
    for (const [name, blowAt] of Object.entries(phases)) {
      const seen: Seen[] = [];
      for (const n of places(disks)) seen.push(await tryOne(rig, scenario, state, blowAt(n)));
      assert.deepEqual(
        seen.map(({ side }) => side),
        seen.map(() => 'source'),
        `${name}: all stay`,
      );
      t.diagnostic(
        `${state}, ${name}: ${seen.map(({ gapMs }) => `${gapMs.toFixed(0)} ms`).join(', ')}`,
      );
    }
    const { side, gapMs } = await tryOne(rig, scenario, state, afterwards(disks));
    assert.equal(
      side,
      'destination',
      'all have switched, and the answer to a question does not change that',
    );
    t.diagnostic(`${state}, the look at the roots is refused: ${gapMs.toFixed(0)} ms`);
  }
}

for (const disks of [1, 2, 4, 8]) {
  test(`REOPEN of ${disks} disk(s): all go over or all stay, whatever fails`, async (t) => {
    await withLab(`all-or-none-${disks}`, async (lab) => {
      await using rig = await Rig.open(lab, disks);
      await everyPhase(t, rig, scenarioNamed('REOPEN'));
      assert.equal((await rig.endLife()).ok, true);
    });
  });
}

test('a move of two disks that is taken back after one has switched leaves both on the source', async (t) => {
  await withLab('all-or-none-move', async (lab) => {
    await using rig = await Rig.open(lab, 2);
    await everyPhase(t, rig, scenarioNamed('move'));
    assert.equal((await rig.endLife()).ok, true);
  });
});

test('mirrors of two disks are in step still after a pivot that failed before it told them anything', async () => {
  await withLab('all-or-none-again', async (lab) => {
    await using rig = await Rig.open(lab, 2);
    await rig.ensureLife();
    await arrange(rig, 'mirrored');
    const reopen = scenarioNamed('REOPEN');
    const { points } = await strike(rig, reopen, null);
    const look = points.find(({ point }) => /^ask query-jobs @ append doing .*pivot/.test(point));
    const early = [
      ['running', 'qmp stop #1'],
      ['suspended', present(look, 'jobs are looked at before the guest is stopped').point],
    ] as const;
    for (const [state, point] of early) {
      await tryOne(rig, reopen, state, { point, deed: 'refuse' });
      const disks = namedDisks((await viewOf(rig)).liveXml);
      assert.deepEqual(
        disks.map(({ ready }) => ready),
        [true, true],
        `${state}: what was refused costs nothing`,
      );
    }
    await reopen.run(rig);
    assert.equal((await rig.endLife()).ok, true);
  });
});

test('a pivot whose way back fails as well waits with the guest stopped, untouched, and the next ferryd brings it to an end', async () => {
  await withLab('all-or-none-stuck', async (lab) => {
    await using rig = await Rig.open(lab, 2);
    await rig.ensureLife();
    await arrange(rig, 'mirrored');
    const before = await viewOf(rig);
    await Promise.all([rig.newEvents(), rig.newOperations()]);
    await rig.arm({
      point: 'qmp job-finalize #2',
      moment: 'before',
      deed: 'refuse',
      lasting: true,
    });
    await assert.rejects(scenarioNamed('REOPEN').run(rig), /the way back failed/);
    await rig.disarm();

    // Each question makes the host look at QEMU.
    for (let n = 0; n < 3; n++) {
      const { status } = await rig.monitor.ask<{ status: string }>(rig.life, 'query-status');
      assert.equal(status, 'paused');
    }
    const stuck = await viewOf(rig);
    assert.equal(stuck.summary.state, 'running', 'it is not its user who stopped it');
    assert.deepEqual(
      (await rig.newOperations()).map(({ status }) => status),
      ['attention'],
    );
    assert.deepEqual(await rig.newEvents(), []);

    await rig.daemon.kill9();
    await rig.daemonAgain([]);
    await rig.life.guest.serial.waitProgress(16);
    await rig.until('the mirrors are gone', async () => {
      const view = await viewOf(rig);
      return stateOf(view) === 'plain' && view.summary.operations.length === 0 ? view : null;
    });
    assert.equal(sideOf(before, await viewOf(rig)), 'source');
    assert.deepEqual(await checkLiving(rig, await viewOf(rig)), []);
    assert.equal((await rig.endLife()).ok, true);
  });
});
