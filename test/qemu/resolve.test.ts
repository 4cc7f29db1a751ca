// An operation that waits for a person, on real QEMU: the storage of a move goes away in the middle of its copy, and
// ferryd is killed, so that nobody can tell what became of that step.

import assert from 'node:assert/strict';
import { readdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import type { OperationView } from '../../src/host/ferry-host.js';
import { until } from '../../src/std/deadline.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { must } from '../lib/process.js';
import { verifyChains } from '../lib/verify.js';

const writer = { resume: 1 };
/** Data behind what the guest writes to, so that a copy takes its time. */
const ballast = ['-c', 'write -P 165 64M 384M'];

async function running(lab: Lab): Promise<LabGuest> {
  const guest = await lab.guest({ name: 'vm1', disks: 1, sizeMiB: 512, writer });
  await must(join(dirname(lab.qemu.img), 'qemu-io'), [
    '-f',
    'qcow2',
    ...ballast,
    guest.files[0] ?? '',
  ]);
  await lab.ferryd({ args: ['--log-level', 'debug'] });
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(300);
  return guest;
}

async function show(lab: Lab, id: number): Promise<OperationView> {
  return JSON.parse(await lab.mustFerry('ops', 'show', String(id), '--json')) as OperationView; // our own CLI
}

/** A move to `folder` of which nobody can tell how far its copy came. */
async function stuckMove(lab: Lab, folder: string): Promise<number> {
  const daemon = lab.daemons.at(-1);
  assert.ok(daemon !== undefined);
  const since = daemon.log.length;
  const args = ['move', 'vm1', 'vda', '--to', folder, '--detach', '--json'];
  const { id } = JSON.parse(await lab.mustFerry(...args)) as { id: number }; // our own CLI
  await until(
    () =>
      daemon.log
        .slice(since)
        .some((line) => line['kind'] === 'copy-image' && line['state'] === 'doing')
        ? true
        : null,
    120_000,
    'the copy is under way',
    1,
  );
  await daemon.kill9();
  await away(folder);
  await lab.ferryd({ args: ['--log-level', 'debug'] });
  const waits = async (): Promise<true | null> =>
    (await show(lab, id)).status === 'attention' ? true : null;
  await until(waits, 60_000, 'the move waits for a person');
  return id;
}

/** The folder is not there, and something else is: as with a mount that failed. */
async function away(folder: string): Promise<void> {
  await rename(folder, `${folder}.away`);
  await writeFile(folder, '');
}

async function isBack(folder: string): Promise<void> {
  await rm(folder);
  await rename(`${folder}.away`, folder);
}

async function nothingLost(lab: Lab, guest: LabGuest, image: string): Promise<void> {
  await guest.serial.waitAcked(guest.serial.acked() + 200);
  await lab.mustVirsh('destroy', 'vm1');
  const acked = guest.serial.acked();
  const verdict = await verifyChains([image], { acked, state: 'crashed', writer });
  assert.ok(verdict.ok, JSON.stringify(verdict));
}

test('a move whose storage went away waits for a person, and goes on when he says so', async () => {
  await withLab('resolve-forward', async (lab) => {
    const guest = await running(lab);
    const id = await stuckMove(lab, lab.b);
    const stuck = await show(lab, id);
    assert.match(
      stuck.story.waitsFor ?? '',
      /cannot be told whether step \d+ \(copy-image\) was done/,
    );
    assert.equal(stuck.direction, 'forward');
    const doctor = await lab.ferry('doctor', 'vm1');
    assert.equal(doctor.code, 7);
    assert.match(doctor.stdout, new RegExp(`ferry ops resolve ${id} --forward --not-done`));
    // The guest is on its source, and does not care.
    assert.match(doctor.stdout, new RegExp(`LIVE ▶ ${lab.a}/vm1-vda\\.qcow2\\.move-`));
    await guest.serial.waitAcked(guest.serial.acked() + 100);

    // Nothing is mended, so nothing can be told: it stays as it is.
    const early = await lab.ferry('ops', 'resolve', String(id), '--forward');
    assert.equal(early.code, 7, early.stderr);
    assert.equal((await show(lab, id)).status, 'attention');

    await isBack(lab.b);
    const resolved = await lab.ferry('ops', 'resolve', String(id), '--forward');
    assert.equal(resolved.code, 0, resolved.stderr);
    const done = await show(lab, id);
    assert.equal(done.status, 'committed');
    assert.deepEqual(
      done.story.said.map(({ text }) => text),
      ['forward', 'forward'],
    );
    assert.match(done.story.said[0]?.by ?? '', /uid \d+/);
    assert.deepEqual(await readdir(lab.b), ['vm1-vda.qcow2']);
    const late = await lab.ferry('ops', 'resolve', String(id), '--back');
    assert.equal(late.code, 4);
    assert.match(late.stderr, /it has ended \(committed\)/);
    await nothingLost(lab, guest, join(lab.b, 'vm1-vda.qcow2'));
  });
});

test('the same move is taken back when a person says so, and leaves nothing', async () => {
  await withLab('resolve-back', async (lab) => {
    const guest = await running(lab);
    const id = await stuckMove(lab, lab.b);
    await isBack(lab.b);
    const resolved = await lab.ferry('ops', 'resolve', String(id), '--back');
    assert.equal(resolved.code, 0, resolved.stderr);
    const undone = await show(lab, id);
    assert.equal(undone.status, 'rolled-back');
    assert.match(undone.reason ?? '', /^rolled back by .*uid \d+/);
    assert.deepEqual(await readdir(lab.b), []);
    assert.deepEqual(await readdir(lab.a), ['vm1-vda.qcow2']);
    assert.equal((await lab.ferry('doctor')).code, 0);
    await nothingLost(lab, guest, guest.files[0] ?? '');
  });
});
