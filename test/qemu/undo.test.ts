// `ferry move --undo-window` and `ferry undo`: the old side is kept exact after the switch, over deaths, and the disks
// switch back in one pause with everything that was written since; or the window closes and nothing is left of it.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import type { Lab } from '../lib/lab.js';
import { withLab } from '../lib/lab.js';
import { endsWell, killQemu, running, sources, untilReady, writeMore } from '../lib/mirrored.js';
import { beginMove } from '../lib/moves.js';

/** Moved, and in step with the old side again; the number of the move. */
async function moved(lab: Lab, disks: number, ...options: readonly string[]): Promise<number> {
  const id = await beginMove(lab, ...options);
  await lab.mustFerry('watch', String(id), '--progress=none');
  assert.equal(
    (await sources(lab)).every((path) => path.startsWith(lab.b)),
    true,
  );
  await untilReady(lab, disks);
  return id;
}

const chainsOf = async (lab: Lab): Promise<string> =>
  (await lab.mustVirsh('dumpxml', 'vm1'))
    .replaceAll(/ (index|id)='\d+'/g, '')
    .match(/<disk .*<\/disk>/s)?.[0] ?? '';

const filesIn = async (lab: Lab, side: 'a' | 'b'): Promise<readonly string[]> =>
  (await lab.leftovers()).files.filter((file) => file.startsWith(`${side}/`));

test('a move is undone: over the death of ferryd and of QEMU nothing is lost, and all is as it was before', async () => {
  await withLab('undo', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 2);
    const before = await chainsOf(lab);
    const files = await filesIn(lab, 'a');
    const id = await moved(lab, 2, 'vdb', '--undo-window', '2h');
    await writeMore(guest);

    await present(lab.daemons.at(-1), 'it was started').kill9();
    await lab.ferryd();
    await killQemu(lab);
    await lab.mustVirsh('start', 'vm1');
    await untilReady(lab, 2);
    await writeMore(guest);

    await lab.mustFerry('undo', String(id), '--progress=none');
    assert.equal(await chainsOf(lab), before);
    assert.deepEqual(await filesIn(lab, 'a'), files);
    await endsWell(lab, guest);
  });
});

test('a way back ends by itself: when its time is over, and when its mirror is lost; the chain is that of any move', async () => {
  await withLab('undo-window', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 1);
    const id = await beginMove(lab, '--undo-window', '2h');
    await lab.mustFerry('watch', String(id), '--progress=none');
    await untilReady(lab, 1);
    await writeMore(guest);
    const [job] = /copy-vda-\d+/.exec(await lab.mustFerry('ops', 'show', String(id + 1))) ?? [];
    const cancel = { execute: 'block-job-cancel', arguments: { device: job, force: true } };
    await lab.mustVirsh('qemu-monitor-command', 'vm1', JSON.stringify(cancel));
    assert.match(await closedWindow(lab, id), /its mirror was lost/);
    assert.deepEqual(await sources(lab), [join(lab.b, 'vm1-vda.qcow2')]);
    const refused = await lab.ferry('undo', String(id));
    assert.equal(refused.code, 4);
    assert.match(refused.stderr, /its undo window is closed: its source is a copy of the moment/);

    const left = (await filesIn(lab, 'a')).map((file) => join(lab.directory, file));
    await lab.mustFerry('gc', '--yes', ...left);
    const back = ['move', 'vm1', 'vda', '--to', lab.a, '--detach', '--json', '--undo-window', '1s'];
    const second = (JSON.parse(await lab.mustFerry(...back)) as { readonly id: number }).id; // our own CLI
    assert.match(await closedWindow(lab, second), /its time is over/);
    assert.deepEqual(await sources(lab), [join(lab.a, 'vm1-vda.qcow2')]);
    assert.deepEqual(await filesIn(lab, 'a'), ['a/vm1-vda.qcow2']);
    await endsWell(lab, guest);
  });
});

/** Why the way back of a move was closed, once nothing is left of it. */
async function closedWindow(lab: Lab, id: number): Promise<string> {
  const told = new RegExp(`UNDO_WINDOW_CLOSED {"operation":${id},.*`);
  return await until(
    async () => told.exec(await lab.mustFerry('events'))?.[0] ?? null,
    30_000,
    `the way back of operation ${id} is closed`,
  );
}
