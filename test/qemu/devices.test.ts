// `ferry move` by full mirrors, to files and block devices and from them, on real QEMU with a writing guest.

import assert from 'node:assert/strict';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { nothingLostIn, sourcesOf } from '../lib/places.js';

const writer = { resume: 1 };

async function running(
  lab: Lab,
  disks: number,
  format: 'qcow2' | 'raw' = 'qcow2',
): Promise<LabGuest> {
  await lab.ferryd();
  const guest = await lab.guest({ name: 'vm1', disks, format, writer });
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(300);
  return guest;
}

const nodesLeft = async (lab: Lab): Promise<number> =>
  (
    await lab.mustVirsh(
      'qemu-monitor-command',
      'vm1',
      '{"execute":"query-named-block-nodes","arguments":{"flat":true}}',
    )
  ).match(/ferry-\d+-format/g)?.length ?? 0;

test('a chain of two becomes one file by a full mirror, sparse, and the domain starts from it', async () => {
  await withLab('full-file', async (lab) => {
    const guest = await running(lab, 1, 'raw');
    await lab.mustVirsh('snapshot-create-as', 'vm1', 's1', '--disk-only');
    await guest.serial.waitAcked(guest.serial.acked() + 100);
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b, '--strategy', 'full');
    const copy = join(lab.b, 'vm1-vda.s1');
    assert.deepEqual(await sourcesOf(lab), [copy]);
    assert.deepEqual(await readdir(lab.b), ['vm1-vda.s1']);
    assert.equal(await nodesLeft(lab), 1);
    assert.ok((await stat(copy)).blocks * 512 < 64 << 20, 'what is zero takes no room');
    await nothingLostIn(lab, guest, [{ file: copy, format: 'qcow2' }]);
    await lab.mustVirsh('start', 'vm1');
    await nothingLostIn(lab, guest, [{ file: copy, format: 'qcow2' }]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});
