// `ferry move` on real QEMU with a writing guest, and what happens to it when somebody dies. Design §5.

import assert from 'node:assert/strict';
import { mkdir, readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { until } from '../../src/std/deadline.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { killNow } from '../lib/process.js';
import { verifyChains } from '../lib/verify.js';

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
  await guest.serial.waitAcked(400);
  return guest;
}

const sources = async (lab: Lab): Promise<readonly string[]> =>
  (await lab.mustVirsh('domblklist', 'vm1')).match(/\/\S+/g) ?? [];

/** Writes on, ends the guest, and asks the verifier about the images that the domain names. */
async function nothingLost(
  lab: Lab,
  guest: LabGuest,
  format: 'qcow2' | 'raw' = 'qcow2',
): Promise<void> {
  await guest.serial.waitAcked(guest.serial.acked() + 300);
  const live = await sources(lab);
  await lab.mustVirsh('destroy', 'vm1');
  const images = live.map((file) => ({ file, format }));
  const verdict = await verifyChains(images, {
    acked: guest.serial.acked(),
    state: 'crashed',
    writer,
  });
  assert.ok(verdict.ok, JSON.stringify(verdict));
}

test('two disks move together, keep their names, and nothing of the move stays on the destination', async () => {
  await withLab('move', async (lab) => {
    const guest = await running(lab, 2);
    const { code, stdout, stderr } = await lab.ferry('move', 'vm1', 'vda', 'vdb', '--to', lab.b);
    assert.equal(code, 0, stderr);
    assert.doesNotMatch(stdout, /100 %.*not ready/);
    assert.deepEqual(await sources(lab), [
      join(lab.b, 'vm1-vda.qcow2'),
      join(lab.b, 'vm1-vdb.qcow2'),
    ]);
    assert.deepEqual((await readdir(lab.b)).toSorted(), ['vm1-vda.qcow2', 'vm1-vdb.qcow2']);
    assert.match(
      await lab.mustVirsh('dumpxml', 'vm1', '--inactive'),
      new RegExp(`file='${lab.b}/vm1-vdb.qcow2'`),
    );
    const nodes = await lab.mustVirsh(
      'qemu-monitor-command',
      'vm1',
      '{"execute":"query-named-block-nodes","arguments":{"flat":true}}',
    );
    assert.equal(nodes.match(/ferry-\d+-format/g)?.length, 2, 'no node is left behind');
    await nothingLost(lab, guest);
    // And a cold start from there.
    await lab.mustVirsh('start', 'vm1');
    await nothingLost(lab, guest);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('a raw disk below a snapshot moves with its whole chain', async () => {
  await withLab('move-chain', async (lab) => {
    const guest = await running(lab, 1, 'raw');
    await lab.mustVirsh('snapshot-create-as', 'vm1', 's1', '--disk-only');
    await guest.serial.waitAcked(guest.serial.acked() + 200);
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b);
    assert.deepEqual((await readdir(lab.b)).toSorted(), ['vm1-vda.raw', 'vm1-vda.s1']);
    assert.match(
      await lab.mustVirsh('snapshot-dumpxml', 'vm1', 's1'),
      new RegExp(`<source file='${lab.b}/vm1-vda.s1'/>`),
    );
    await nothingLost(lab, guest);
  });
});

test('moves that cannot work are refused with what to do, and nothing is touched', async () => {
  await withLab('move-refused', async (lab) => {
    const guest = await running(lab, 1);
    await lab.createImage(join(lab.directory, 'taken.qcow2'));
    await mkdir(join(lab.directory, 'c'));
    await lab.createImage(join(lab.directory, 'c', 'vm1-vda.qcow2'));
    const rows = [
      [
        ['vda', '--to', join(lab.directory, 'nowhere')],
        2,
        /no such folder; create it or mount the storage/,
      ],
      [
        ['vda', '--to', join(lab.directory, 'taken.qcow2')],
        2,
        /taken\.qcow2 exists already and is not overwritten/,
      ],
      [['vda', '--to', join(lab.directory, 'c')], 2, /exists already and is not overwritten/],
      [['vda', '--to', lab.a], 2, /exists already and is not overwritten/],
      [['vdx', '--to', lab.b], 2, /vdx/],
    ] as const;
    for (const [args, exit, expected] of rows) {
      const { code, stderr } = await lab.ferry('move', 'vm1', ...args);
      assert.match(stderr, expected);
      assert.equal(code, exit, stderr);
    }
    assert.deepEqual(await readdir(lab.b), []);
    assert.deepEqual(await readdir(lab.a), ['vm1-vda.qcow2']);
    await nothingLost(lab, guest);
  });
});

test('the daemon is killed during a move, and the next one finishes it', async () => {
  await withLab('move-daemon-dies', async (lab) => {
    const guest = await running(lab, 2);
    const started = JSON.parse(
      await lab.mustFerry('move', 'vm1', 'vda', 'vdb', '--to', lab.b, '--detach', '--json'),
    ) as { id: number }; // our own CLI
    await lab.daemons.at(-1)?.kill9();
    await guest.serial.waitAcked(guest.serial.acked() + 100);
    await lab.ferryd();
    await lab.mustFerry('ops', 'wait', String(started.id));
    assert.deepEqual(await sources(lab), [
      join(lab.b, 'vm1-vda.qcow2'),
      join(lab.b, 'vm1-vdb.qcow2'),
    ]);
    assert.deepEqual((await readdir(lab.b)).toSorted(), ['vm1-vda.qcow2', 'vm1-vdb.qcow2']);
    await nothingLost(lab, guest);
  });
});

test('QEMU dies during a move: whichever side is live has everything, and the domain starts again', async () => {
  await withLab('move-qemu-dies', async (lab) => {
    const guest = await running(lab, 1);
    const uuid = (await lab.mustVirsh('domuuid', 'vm1')).trim();
    const pid = Number(await readFile(join(lab.runDir, 'qemu', `${uuid}.pid`), 'utf8'));
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b, '--detach');
    killNow(pid);
    await until(
      async () => ((await lab.mustVirsh('domstate', 'vm1')).includes('shut off') ? true : null),
      20_000,
      'death is noticed',
    );
    await until(
      async () => ((await lab.mustFerry('ops', '--json')).trim() === '[]' ? true : null),
      20_000,
      'the move is settled',
    );
    await lab.mustVirsh('start', 'vm1');
    await nothingLost(lab, guest);
    assert.deepEqual(guest.serial.setbacks, []);
    const there = await readdir(lab.b);
    assert.ok(
      there.every((file) => !file.endsWith('.part') && !file.includes('.move-')),
      there.join(' '),
    );
  });
});

test('a cancelled move leaves everything as it was', async () => {
  await withLab('move-cancelled', async (lab) => {
    const guest = await running(lab, 1);
    const started = JSON.parse(
      await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b, '--detach', '--json'),
    ) as { id: number }; // our own CLI
    const cancelled = await lab.ferry('ops', 'cancel', String(started.id));
    await lab.ferry('ops', 'wait', String(started.id));
    // It may have been too fast for us: then it says so, and the move is whole.
    if (cancelled.code === 0 && (await sources(lab))[0]?.startsWith(lab.a) === true) {
      assert.deepEqual(await readdir(lab.b), []);
      assert.deepEqual(await readdir(lab.a), ['vm1-vda.qcow2']);
    }
    await nothingLost(lab, guest);
  });
});

test('a transient domain dies during a move: one side has everything, and nothing is half done', async () => {
  await withLab('move-transient-dies', async (lab) => {
    await lab.ferryd();
    const uuid = '0b0c6f0e-6f5b-4a87-9a63-3f1f4a3c7d21';
    const guest = await lab.guest({ name: 'vm1', uuid, disks: 1, writer });
    await lab.mustVirsh('create', guest.xmlFile);
    await guest.serial.waitAcked(400);
    const pid = Number(await readFile(join(lab.runDir, 'qemu', `${uuid}.pid`), 'utf8'));
    const move = JSON.parse(
      await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b, '--detach', '--json'),
    ) as { id: number }; // our own CLI
    killNow(pid);
    await lab.ferry('ops', 'wait', String(move.id));
    const shown = await lab.mustFerry('ops', 'show', String(move.id), '--json');
    const { status } = JSON.parse(shown) as { status: string }; // our own CLI
    const overlay = (await readdir(lab.a)).find((file) => file.includes('.move-')) ?? '';
    // Waiting: for the domain to be created again on the live image.
    const live = {
      committed: join(lab.b, 'vm1-vda.qcow2'),
      waiting: join(lab.a, overlay),
      'rolled-back': guest.files[0],
    }[status];
    assert.ok(live !== undefined, shown);
    const verdict = await verifyChains([live], {
      acked: guest.serial.acked(),
      state: 'crashed',
      writer,
    });
    assert.ok(verdict.ok, JSON.stringify(verdict));
    assert.equal((await lab.mustVirsh('list', '--all', '--name')).trim(), '');
  });
});
