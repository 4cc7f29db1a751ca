// Moves whose QEMU dies before they switched: the guest is on its source, the base copy goes on, and the next start
// takes the mirror up and lets the move finish. Laws 1, 2 and 13.

import assert from 'node:assert/strict';
import { readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import type { Lab } from '../lib/lab.js';
import { withLab } from '../lib/lab.js';
import {
  endsWell,
  killQemu,
  nothingLost,
  qemuPid,
  running,
  sources,
  untilOff,
  writeMore,
} from '../lib/mirrored.js';
import { operation } from '../lib/moves.js';
import { killNow } from '../lib/process.js';

const chatty = { args: ['--log-level', 'debug'] };

/** Begins a move, and kills QEMU while the base is copied. The daemon's own log tells when: everything else is too slow. */
async function moveAndKill(lab: Lab, disks: readonly string[]): Promise<number> {
  const daemon = present(lab.daemons.at(-1), 'it was started');
  const since = daemon.log.length;
  const pid = await qemuPid(lab);
  const copying = until(
    () => (daemon.log.slice(since).some((line) => line['kind'] === 'copy-image') ? true : null),
    60_000,
    'the move copies',
    1,
  ).then(() => killNow(pid));
  const move = JSON.parse(
    await lab.mustFerry('move', 'vm1', ...disks, '--to', lab.b, '--detach', '--json'),
  ) as { id: number }; // our own CLI
  await copying;
  await untilOff(lab);
  return move.id;
}

async function untilStatus(lab: Lab, id: number, wanted: RegExp): Promise<string> {
  const look = async (): Promise<string | null> => {
    const { status } = await operation(lab, id);
    return wanted.test(status) ? status : null;
  };
  return await until(look, 60_000, `operation ${id} is ${wanted.source}`);
}

const arrived = (lab: Lab, disks: number): readonly string[] =>
  ['vda', 'vdb'].slice(0, disks).map((target) => join(lab.b, `vm1-${target}.qcow2`));

test('QEMU dies during a move of two disks: the move waits, and the next start finishes it', async () => {
  await withLab('parked', async (lab) => {
    await lab.ferryd(chatty);
    const guest = await running(lab, 2);
    const id = await moveAndKill(lab, ['vda', 'vdb']);
    await untilStatus(lab, id, /waiting|committed/);
    await nothingLost(guest, await sources(lab));
    assert.match(await lab.mustFerry('ops'), /the next start: ferry start vm1/);

    await lab.mustVirsh('start', 'vm1');
    await lab.mustFerry('ops', 'wait', String(id));
    assert.deepEqual(await sources(lab), arrived(lab, 2));
    assert.deepEqual((await readdir(lab.b)).toSorted(), ['vm1-vda.qcow2', 'vm1-vdb.qcow2']);
    await endsWell(lab, guest);
  });
});

test('QEMU and the daemon die during a move, twice: it still arrives, and nothing of it is left over', async () => {
  await withLab('parked-both', async (lab) => {
    await lab.ferryd(chatty);
    const guest = await running(lab, 1);
    const id = await moveAndKill(lab, ['vda']);
    await lab.daemons.at(-1)?.kill9();
    await lab.ferryd(chatty);
    await untilStatus(lab, id, /waiting|committed/);
    await lab.mustVirsh('start', 'vm1');
    await killQemu(lab);
    await lab.daemons.at(-1)?.kill9();
    await lab.ferryd(chatty);
    await untilStatus(lab, id, /waiting|committed/);
    await lab.mustVirsh('start', 'vm1');
    await lab.mustFerry('ops', 'wait', String(id));
    assert.deepEqual(await sources(lab), arrived(lab, 1));
    assert.deepEqual(await readdir(lab.b), ['vm1-vda.qcow2']);
    await endsWell(lab, guest);
  });
});

test('a move that waits can be cancelled, and everything is as it was', async () => {
  await withLab('parked-cancel', async (lab) => {
    await lab.ferryd(chatty);
    const guest = await running(lab, 1);
    const id = await moveAndKill(lab, ['vda']);
    const status = await untilStatus(lab, id, /waiting|committed/);
    assert.equal(status, 'waiting', 'it was met before it switched');
    await lab.mustFerry('ops', 'cancel', String(id));
    await untilStatus(lab, id, /rolled-back/);
    assert.deepEqual(await readdir(lab.b), []);
    assert.deepEqual(await readdir(lab.a), ['vm1-vda.qcow2']);
    assert.match(await lab.mustFerry('list', '--all'), /vm1 +shut off +vda *$/m);
    await nothingLost(guest, guest.files);
    await lab.mustVirsh('start', 'vm1');
    await endsWell(lab, guest);
  });
});

test('the destination of a move that waits is gone: start is refused, or runs and goes on later', async () => {
  await withLab('parked-gone', async (lab) => {
    await lab.ferryd({ args: [...chatty.args, '--mirror-retry', '0.3'] });
    const guest = await running(lab, 1);
    const id = await moveAndKill(lab, ['vda']);
    await untilStatus(lab, id, /waiting/);
    await rename(lab.b, `${lab.b}.away`);
    const refused = await lab.virsh('start', 'vm1');
    assert.match(refused.stderr, /mirror of vda cannot be taken up: .* is not there/);
    await lab.mustFerry('start', 'vm1', '--mirror-later');
    await writeMore(guest);
    assert.equal((await operation(lab, id)).status, 'waiting');
    const again = await lab.ferry('move', 'vm1', 'vda', '--to', lab.b);
    assert.notEqual(again.code, 0, 'one move of a disk at a time');
    await rename(`${lab.b}.away`, lab.b);
    await untilStatus(lab, id, /committed/);
    assert.deepEqual(await sources(lab), arrived(lab, 1));
    await endsWell(lab, guest);
  });
});

test('a transient domain that is created again on its live image takes its move up', async () => {
  await withLab('parked-transient', async (lab) => {
    await lab.ferryd(chatty);
    const guest = await running(lab, 1, 'transient');
    const before = guest.files[0] ?? '';
    const id = await moveAndKill(lab, ['vda']);
    await untilStatus(lab, id, /waiting/);
    assert.equal((await lab.mustVirsh('list', '--all', '--name')).trim(), '');
    const overlay = (await readdir(lab.a)).find((file) => file.includes('.move-')) ?? '';

    const create = async (image: string, uuid = '') => {
      const xml = guest.xml
        .replace(before, image)
        .replace('<name>vm1</name>', `<name>vm1</name>${uuid}`);
      await writeFile(guest.xmlFile, xml);
      return await lab.virsh('create', guest.xmlFile);
    };
    assert.match((await create(before)).stderr, /lies below the live image.*\.move-/);
    const copy = await create(join(lab.b, 'vm1-vda.qcow2'));
    assert.match(copy.stderr, /is the unfinished destination/);
    const other = await create(
      join(lab.a, overlay),
      '<uuid>0b0c6f0e-6f5b-4a87-9a63-3f1f4a3c7d21</uuid>',
    );
    assert.match(other.stderr, /is being moved \(operation \d+\); give that domain's uuid/);

    const live = await create(join(lab.a, overlay));
    assert.equal(live.code, 0, live.stderr);
    await lab.mustFerry('ops', 'wait', String(id));
    assert.deepEqual(await sources(lab), arrived(lab, 1));
    await endsWell(lab, guest);
  });
});
