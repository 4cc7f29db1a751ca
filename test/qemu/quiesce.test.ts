// `ferry move --quiesce --trim`: the guest's agent freezes its file systems for the switch and thaws them after it, and discards
// at the end what they do not use. A guest whose agent does not answer is refused before anything is touched. What faults do to
// it: test/sim.

import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import { present } from '../../src/std/assert.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { endsWell, resuming, sources } from '../lib/mirrored.js';
import { beginMove, operation } from '../lib/moves.js';
import { must } from '../lib/process.js';

const UNUSED_MIB = 16;
const channel =
  "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n";

/** Its disk has data behind what the guest writes to, which its agent discards when it trims. */
async function guestWith(lab: Lab, devices: string, agent: 0 | 1): Promise<LabGuest> {
  const writer = { ...resuming, agent, unused: UNUSED_MIB };
  const guest = await lab.guest({ name: 'vm1', writer, devices });
  const write = `write -P 165 64M ${UNUSED_MIB}M`;
  const image = present(guest.files[0], 'it has one disk');
  await must(join(dirname(lab.qemu.img), 'qemu-io'), ['-f', 'qcow2', '-c', write, image]);
  const discarding = guest.xml.replace("type='qcow2'", "type='qcow2' discard='unmap'");
  await writeFile(guest.xmlFile, discarding);
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(300);
  return guest;
}

/** What an image holds behind what the guest writes to. */
async function unusedBytes(lab: Lab, file: string): Promise<number> {
  const said = await lab.qemuImg('map', '-U', '--output=json', '-f', 'qcow2', file);
  // qemu-img's own words.
  return (JSON.parse(said) as { start: number; length: number; data: boolean }[])
    .filter(({ start, data }) => data && start >= 64 << 20)
    .reduce((sum, { length }) => sum + length, 0);
}

/** What the guest did between the words FROZEN and THAWED, each time. */
async function whileFrozen(lab: Lab): Promise<readonly string[]> {
  const said = await readFile(join(lab.directory, 'vm1.serial'), 'latin1');
  return [...said.matchAll(/FROZEN n=\d+\s+([\s\S]*?)THAWED n=\d+/g)].map(
    ([, lines = '']) => lines,
  );
}

test('the disks of a guest switch while its agent has its file systems frozen, and it trims them at the end', async () => {
  await withLab('quiesce', async (lab) => {
    await lab.ferryd();
    const guest = await guestWith(lab, channel, 1);
    assert.equal(await unusedBytes(lab, present(guest.files[0], 'one')), UNUSED_MIB << 20);
    const id = await beginMove(lab, '--quiesce', '--trim');
    await lab.mustFerry('watch', String(id), '--progress=none');
    assert.deepEqual(await sources(lab), [join(lab.b, 'vm1-vda.qcow2')]);
    const { pauses, steps } = await operation(lab, id);
    assert.ok(pauses.some(({ what }) => what === 'file systems frozen'));
    assert.match(steps.find(({ kind }) => kind === 'pivot')?.text ?? '', /frozen/);
    assert.deepEqual(await whileFrozen(lab), [''], 'once, and nothing was written meanwhile');
    const events = await lab.mustFerry('events');
    assert.match(events, new RegExp(`GUEST_TRIMMED .*"bytes":${UNUSED_MIB << 20}`));
    await endsWell(lab, guest);
    assert.equal(await unusedBytes(lab, join(lab.b, 'vm1-vda.qcow2')), 0, 'it was given back');
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
