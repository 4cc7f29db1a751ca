// `ferry move --pivot …` and `ferry pivot`: a move that is in step waits, whatever dies or is rotated meanwhile, and switches
// when it is told or when what was asked for has come.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import type { OperationView } from '../../src/host/ferry-host.js';
import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { withLab, type Lab } from '../lib/lab.js';
import { endsWell, killQemu, running, sources, writeMore } from '../lib/mirrored.js';
import { beginMove, operation } from '../lib/moves.js';

const moved = (lab: Lab): readonly string[] => [join(lab.b, 'vm1-vda.qcow2')];

/** It waits for a word, and says so. */
async function inStep(lab: Lab, id: number): Promise<OperationView> {
  return await until(
    async () => {
      const view = await operation(lab, id);
      assert.equal(view.status, 'running', view.reason ?? '');
      // Of the mirror of now: behind a rotation the one before is not what is waited for.
      const held = view.steps.findIndex(({ kind }) => kind === 'wait-pivot');
      const isReady = view.steps[held - 1]?.mark === 'done';
      const phase = `in step, waits for 'ferry pivot ${id}'`;
      return isReady && view.progress?.phase === phase ? view : null;
    },
    30_000,
    `operation ${id} is in step`,
  );
}

async function again(lab: Lab): Promise<void> {
  await present(lab.daemons.at(-1), 'it was started').kill9();
  await lab.ferryd();
}

async function refused(lab: Lab, id: number, why: RegExp): Promise<void> {
  const { code, stderr } = await lab.ferry('pivot', String(id));
  assert.equal(code, 4);
  assert.match(stderr, why);
}

test('a move waits in step over the death of ferryd, a rotation and the death of QEMU, until it is told', async () => {
  await withLab('pivot-when', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 1);
    const id = await beginMove(lab, '--pivot', 'manual');
    const { progress, story } = await inStep(lab, id);
    assert.ok(progress?.ready === true && progress.percent < 100 && progress.pivot === 'manual');
    assert.ok(story.commands.some(({ type }) => type === `ferry pivot ${id}`));
    assert.match(await lab.mustFerry('ops'), new RegExp(`in step, waits for 'ferry pivot ${id}'`));

    await again(lab);
    await inStep(lab, id);
    const [before = ''] = await sources(lab);
    await lab.mustFerry('ops', 'rotate', String(id));
    await inStep(lab, id);
    assert.deepEqual(await sources(lab), [`${before}.1`]);
    await writeMore(guest);

    await killQemu(lab);
    await until(
      async () => ((await operation(lab, id)).status === 'waiting' ? true : null),
      30_000,
      'the move waits for the next QEMU',
    );
    // Said before it is in step, to a ferryd that dies: it holds.
    await lab.mustFerry('pivot', String(id));
    await again(lab);
    await lab.mustVirsh('start', 'vm1');
    await lab.mustFerry('watch', String(id), '--progress=none');
    assert.deepEqual(await sources(lab), moved(lab));
    await refused(lab, id, /it has ended \(committed\)/);
    await endsWell(lab, guest);
  });
});

test('a move that waits can be cancelled; one with a condition switches when it holds', async () => {
  await withLab('pivot-lag', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 1);
    const id = await beginMove(lab, '--pivot', 'manual');
    await inStep(lab, id);
    await lab.mustFerry('cancel', String(id));
    await lab.ferry('watch', String(id), '--progress=none');
    assert.equal((await operation(lab, id)).status, 'rolled-back');
    assert.deepEqual(
      (await lab.leftovers()).files.filter((file) => file.startsWith('b/')),
      [],
    );
    await refused(lab, id, /it has ended \(rolled-back\)/);
    await refused(lab, 1, /it is no move/);

    const args = ['move', 'vm1', 'vda', '--to', lab.b, '--pivot', 'when', 'lag<64M for 2s'];
    const begun = performance.now();
    const told = await lab.mustFerry(...args);
    assert.ok(performance.now() - begun >= 2000, 'it was small for long enough');
    assert.match(told, /in step, waits for lag<64M for 2s, or 'ferry pivot \d+' 90 %.*, READY/);
    assert.deepEqual(await sources(lab), moved(lab));
    await endsWell(lab, guest);
  });
});
