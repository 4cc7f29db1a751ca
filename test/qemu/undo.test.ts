// `ferry move --undo-window` and `ferry undo`: the old side is kept exact after the switch, over deaths, and the disks
// switch back in one pause with everything that was written since; or the window closes and nothing is left of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { present } from '../../src/std/assert.js';
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
