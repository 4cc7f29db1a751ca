// `ferry move --quiesce`: the guest's agent freezes its file systems for the switch and thaws them after it. A guest whose
// agent does not answer is refused before anything is touched. What faults do to it: test/sim.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { endsWell, resuming, sources } from '../lib/mirrored.js';
import { beginMove, operation } from '../lib/moves.js';

const channel =
  "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n";

async function guestWith(lab: Lab, devices: string, agent: 0 | 1): Promise<LabGuest> {
  const guest = await lab.guest({ name: 'vm1', writer: { ...resuming, agent }, devices });
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(300);
  return guest;
}

/** What the guest did between the words FROZEN and THAWED, each time. */
async function whileFrozen(lab: Lab): Promise<readonly string[]> {
  const said = await readFile(join(lab.directory, 'vm1.serial'), 'latin1');
  return [...said.matchAll(/FROZEN n=\d+\s+([\s\S]*?)THAWED n=\d+/g)].map(
    ([, lines = '']) => lines,
  );
}

test('the disks of a guest switch while its agent has its file systems frozen', async () => {
  await withLab('quiesce', async (lab) => {
    await lab.ferryd();
    const guest = await guestWith(lab, channel, 1);
    const id = await beginMove(lab, '--quiesce');
    await lab.mustFerry('watch', String(id), '--progress=none');
    assert.deepEqual(await sources(lab), [join(lab.b, 'vm1-vda.qcow2')]);
    const { pauses, steps } = await operation(lab, id);
    assert.ok(pauses.some(({ what }) => what === 'file systems frozen'));
    assert.match(steps.find(({ kind }) => kind === 'pivot')?.text ?? '', /frozen/);
    assert.deepEqual(await whileFrozen(lab), [''], 'once, and nothing was written meanwhile');
    await endsWell(lab, guest);
  });
});

test('a guest without an agent that answers is refused, and nothing is touched', async () => {
  await withLab('no-agent', async (lab) => {
    await lab.ferryd();
    const guest = await guestWith(lab, channel, 0);
    const refused = async (why: RegExp): Promise<void> => {
      const { code, stderr } = await lab.ferry('move', 'vm1', 'vda', '--to', lab.b, '--quiesce');
      assert.equal(code, 4);
      assert.match(stderr, why);
      assert.deepEqual(await readdir(lab.b), []);
      assert.ok(!(await lab.mustFerry('ops', '--all')).includes('move'));
    };
    const begun = performance.now();
    await refused(/its agent does not answer .*no answer within 5000 ms.*start qemu-guest-agent/);
    assert.ok(performance.now() - begun < 20_000);
    await endsWell(lab, guest);
  });
});
