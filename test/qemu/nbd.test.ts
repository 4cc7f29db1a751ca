// `ferry move` to NBD servers, with TLS and without, on real QEMU with a writing guest; and servers that die and hang.

import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { until } from '../../src/std/deadline.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { qemuPid } from '../lib/mirrored.js';
import { operation } from '../lib/moves.js';
import { certificates, NbdServer } from '../lib/nbd-server.js';
import { nothingLostIn, sourcesOf } from '../lib/places.js';
import { killNow, must } from '../lib/process.js';

const writer = { resume: 1 };
const sizeMiB = 128;

async function running(lab: Lab): Promise<LabGuest> {
  await lab.ferryd();
  const guest = await lab.guest({ name: 'vm1', disks: 1, sizeMiB, writer });
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(300);
  return guest;
}

async function served(lab: Lab, options: { readonly creds?: string } = {}): Promise<NbdServer> {
  const file = join(lab.b, 'export.raw');
  await must('/usr/bin/truncate', ['-s', `${sizeMiB}M`, file]);
  return await NbdServer.start({ qemu: lab.qemu, file, name: 'disk', ...options });
}

async function begin(lab: Lab, to: string, ...options: readonly string[]): Promise<number> {
  const args = ['move', 'vm1', 'vda', '--to', to, '--detach', '--json', ...options];
  const { id } = JSON.parse(await lab.mustFerry(...args)) as { id: number }; // our own CLI
  return id;
}

const fusesLeft = async (lab: Lab): Promise<readonly string[]> =>
  (await readdir(join(lab.runDir, 'qemu'))).filter((name) => name.includes('.fuse-'));

/** Until it waits in step, or copies. */
const untilAt = async (lab: Lab, id: number, kind: string): Promise<unknown> =>
  await until(
    async () => {
      const { steps, progress } = await operation(lab, id);
      const at = steps.find(({ mark }) => mark === 'none' || mark === 'doing')?.kind;
      return at === kind && (kind !== 'wait-pivot' || progress?.ready === true) ? true : null;
    },
    20_000,
    `operation ${id} is at ${kind}`,
  );

async function untilEnded(lab: Lab, id: number, timeoutMs: number): Promise<string> {
  const look = async (): Promise<string | null> => {
    const { status, reason } = await operation(lab, id);
    return status === 'running' ? null : `${status}: ${reason ?? ''}`;
  };
  return await until(look, timeoutMs, `end of operation ${id}`);
}

test('a disk moves to an NBD server while QEMU and ferryd die, outlives the next one there, starts from it, and moves away', async () => {
  await withLab('nbd', async (lab) => {
    await using server = await served(lab);
    const guest = await running(lab);
    const plan = await lab.mustFerry('plan', 'move', 'vm1', 'vda', '--to', server.uri);
    assert.match(plan, /full-mirror: an overlay over NBD would have no backing there/);
    const id = await begin(lab, server.uri, '--bandwidth', '64K');
    await untilAt(lab, id, 'wait-ready');
    killNow(await qemuPid(lab));
    const waits = async (): Promise<true | null> =>
      (await operation(lab, id)).status === 'waiting' ? true : null;
    await until(waits, 20_000, 'it waits for the next QEMU');
    await lab.mustVirsh('start', 'vm1');
    await untilAt(lab, id, 'wait-ready');
    await lab.daemons.at(-1)?.kill9();
    await guest.serial.waitAcked(guest.serial.acked() + 50);
    await lab.ferryd();
    await lab.mustFerry('limit', String(id), 'none');
    await lab.mustFerry('ops', 'wait', String(id));
    assert.deepEqual(await sourcesOf(lab), ['disk']);
    const source = `<source protocol='nbd' name='disk'[^>]*>\\s*<host name='localhost' port='${server.port}'/>`;
    assert.match(await lab.mustVirsh('dumpxml', 'vm1'), new RegExp(source));
    assert.match(
      await lab.mustVirsh('dumpxml', 'vm1', '--inactive'),
      new RegExp(`<disk type='network'[^]*type='raw'[^]*${source}`),
    );
    await lab.daemons.at(-1)?.kill9();
    await guest.serial.waitAcked(guest.serial.acked() + 100);
    await lab.ferryd();
    const again = await lab.ferry('move', 'vm1', 'vda', '--to', server.uri);
    assert.match(again.stderr, /domain 'vm1' has this export/);
    const image = { file: join(lab.b, 'export.raw'), format: 'raw' } as const;
    await nothingLostIn(lab, guest, [image]);
    assert.deepEqual(await fusesLeft(lab), []);
    await lab.mustVirsh('start', 'vm1');
    await guest.serial.waitAcked(guest.serial.acked() + 50);
    // And away from there, from a QEMU that has no fuse and from one that has.
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.a);
    await lab.mustFerry('move', 'vm1', 'vda', '--to', server.uri);
    assert.equal((await fusesLeft(lab)).length, 3);
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.directory);
    assert.deepEqual(await fusesLeft(lab), []);
    const file = join(lab.directory, 'vm1-vda.raw');
    assert.deepEqual(await sourcesOf(lab), [file]);
    await nothingLostIn(lab, guest, [{ file, format: 'raw' }]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('with TLS: who is not known is refused, who is moves there and starts from it', async () => {
  await withLab('nbds', async (lab) => {
    const creds = await certificates(join(lab.directory, 'pki'));
    const strangers = await certificates(join(lab.directory, 'other'));
    await using server = await served(lab, { creds: creds.server });
    const guest = await running(lab);
    const image = guest.files[0] ?? '';
    const none = await lab.ferry('move', 'vm1', 'vda', '--to', server.uri);
    assert.match(none.stderr, /name their folder with '--tls-creds DIR'/);
    const move = ['move', 'vm1', 'vda', '--to', server.uri, '--tls-creds'];
    const empty = await lab.ferry(...move, lab.a);
    assert.match(empty.stderr, /finds no .*ca-cert\.pem/);
    const strange = await lab.ferry(...move, strangers.client);
    assert.match(strange.stderr, /connect to nbds:.*certificate/i);
    assert.deepEqual(await sourcesOf(lab), [image]);
    assert.deepEqual(await fusesLeft(lab), []);
    await lab.mustFerry(...move, creds.client);
    assert.equal((await fusesLeft(lab)).length, 3);
    assert.match(await lab.mustVirsh('dumpxml', 'vm1'), /protocol='nbd' name='disk' tls='yes'/);
    const moved = { file: join(lab.b, 'export.raw'), format: 'raw' } as const;
    await nothingLostIn(lab, guest, [moved]);
    await lab.mustVirsh('start', 'vm1');
    await nothingLostIn(lab, guest, [moved]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('a server that dies, one that comes back and one that hangs are lost mirrors, and the guest runs on', async () => {
  await withLab('nbd-dies', async (lab) => {
    await using server = await served(lab);
    const guest = await running(lab);
    const image = guest.files[0] ?? '';

    const dead = await begin(lab, server.uri, '--bandwidth', '64K');
    await untilAt(lab, dead, 'wait-ready');
    await server.die();
    assert.match(await untilEnded(lab, dead, 20_000), /^rolled-back: .*mirror is lost/);

    // In step, and back before anybody could have missed it.
    await server.again();
    const back = await begin(lab, server.uri, '--pivot', 'manual');
    await untilAt(lab, back, 'wait-pivot');
    await server.again();
    // Whether it is found out before or by the pivot.
    await lab.ferry('pivot', String(back));
    assert.match(await untilEnded(lab, back, 20_000), /^rolled-back: .*mirror is lost/);

    const hung = await begin(lab, server.uri, '--pivot', 'manual');
    await untilAt(lab, hung, 'wait-pivot');
    const from = performance.now();
    server.hang();
    assert.match(await untilEnded(lab, hung, 15_000), /^rolled-back: .*mirror is lost/);
    const seconds = (performance.now() - from) / 1000;
    assert.ok(seconds < 14, `the limit is 10 s and two more: ${seconds}`);
    server.heal();

    assert.deepEqual(await sourcesOf(lab), [image]);
    assert.deepEqual(await fusesLeft(lab), []);
    await nothingLostIn(lab, guest, [image]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});
