// The life of domains on real QEMU, by virsh: what libvirt's clients see, and what a dead daemon leaves alone.

import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { until } from '../../src/std/deadline.js';
import { withLab, type Lab } from '../lib/lab.js';

/** `event detail` of every lifecycle event so far, oldest first. */
async function lifecycle(lab: Lab): Promise<readonly string[]> {
  const lines = (await lab.mustFerry('events', '--after', '0', '--json')).trim().split('\n');
  const events = lines.map((line) => JSON.parse(line) as { event: Record<string, string> }); // our own CLI
  return events
    .filter(({ event }) => event['type'] === 'lifecycle')
    .map(({ event }) => `${event['event']} ${event['detail']}`);
}

async function untilState(lab: Lab, state: string): Promise<void> {
  const look = async (): Promise<true | null> =>
    (await lab.mustVirsh('domstate', 'vm1', '--reason')).includes(state) ? true : null;
  await until(look, 20_000, `vm1 is ${state}`);
}

test('a persistent domain goes through its life with the events of libvirt, in its order', async () => {
  await withLab('life', async (lab) => {
    await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1' });
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('start', 'vm1');
    await guest.serial.waitAcked(50);
    await lab.mustVirsh('suspend', 'vm1');
    assert.match(await lab.mustVirsh('domstate', 'vm1', '--reason'), /paused \(user\)/);
    await lab.mustVirsh('resume', 'vm1');
    await lab.mustVirsh('shutdown', 'vm1');
    await untilState(lab, 'shut off (shutdown)');
    await lab.mustVirsh('start', 'vm1', '--paused');
    await lab.mustVirsh('destroy', 'vm1');
    await lab.mustVirsh('undefine', 'vm1');
    assert.deepEqual(await lifecycle(lab), [
      'defined added',
      'resumed unpaused',
      'started booted',
      'suspended paused',
      'resumed unpaused',
      'shutdown guest',
      'stopped shutdown',
      'started booted',
      'suspended paused',
      'shutdown host',
      'stopped destroyed',
      'undefined removed',
    ]);
    assert.equal((await lab.mustVirsh('list', '--all', '--name')).trim(), '');
  });
});

test('names and uuids belong to one domain, and verbs that do not fit its state say so', async () => {
  await withLab('conflicts', async (lab) => {
    await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1' });
    await lab.mustVirsh('define', guest.xmlFile);
    const other = join(lab.directory, 'other.xml');
    await writeFile(other, guest.xml);
    assert.match(
      (await lab.virsh('define', other)).stderr,
      /operation failed: domain 'vm1' already exists with uuid/,
    );
    assert.match(
      (await lab.virsh('suspend', 'vm1')).stderr,
      /operation is not valid: domain is not running/,
    );
    assert.match((await lab.virsh('start', 'nobody')).stderr, /failed to get domain 'nobody'/);
    await lab.mustVirsh('start', 'vm1');
    assert.match(
      (await lab.virsh('start', 'vm1')).stderr,
      /[Dd]omain is already active|domain is already running/,
    );
    // Somebody else's writable image.
    await writeFile(other, guest.xml.replace('<name>vm1</name>', '<name>vm2</name>'));
    const taken = await lab.virsh('create', other);
    assert.match(taken.stderr, /is live for disk 'vda' of running domain 'vm1'/);
    await writeFile(
      other,
      guest.xml
        .replace('<name>vm1</name>', '<name>vm3</name>')
        .replace('<devices>', '<devices><hostdev/>'),
    );
    assert.match((await lab.virsh('define', other)).stderr, /unsupported configuration: .*hostdev/);
    await writeFile(other, '<domain><name>');
    assert.match((await lab.virsh('define', other)).stderr, /:1/);
  });
});

test('a transient domain is one until it is defined, and gone when it stops', async () => {
  await withLab('transient-life', async (lab) => {
    await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1', uuid: '6c7f7b9c-1f0a-4a58-9d56-7f8f0c2f5c11' });
    await lab.mustVirsh('create', guest.xmlFile);
    assert.match(await lab.mustVirsh('dominfo', 'vm1'), /Persistent: +no/);
    assert.match((await lab.virsh('undefine', 'vm1')).stderr, /cannot undefine transient domain/);
    assert.match(
      (await lab.virsh('autostart', 'vm1')).stderr,
      /cannot set autostart for transient domain/,
    );
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('undefine', 'vm1');
    assert.match(await lab.mustVirsh('list', '--name'), /vm1/);
    await lab.mustVirsh('destroy', 'vm1');
    assert.equal((await lab.mustVirsh('list', '--all', '--name')).trim(), '');
  });
});

test('guests outlive the daemon, a suspended one stays suspended, and XML is the same afterwards', async () => {
  await withLab('restart', async (lab) => {
    const first = await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1' });
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('start', 'vm1');
    await guest.serial.waitAcked(50);
    await lab.mustVirsh('suspend', 'vm1');
    const before = await lab.mustVirsh('dumpxml', 'vm1');
    await first.kill9();
    const second = await lab.ferryd();
    assert.equal(await lab.mustVirsh('dumpxml', 'vm1'), before);
    assert.match(await lab.mustVirsh('domstate', 'vm1', '--reason'), /paused \(user\)/);
    await lab.mustVirsh('resume', 'vm1');
    await guest.serial.waitAcked(guest.serial.acked() + 50);
    assert.equal(await second.stop(), 0);
    // A guest that ends while nobody looks is seen to have ended.
    await guest.serial.waitAcked(guest.serial.acked() + 50);
    await lab.ferryd();
    assert.match(await lab.mustVirsh('list', '--name'), /vm1/);
  });
});

test('a reboot is a press of the power button, then up again', async () => {
  await withLab('reboot', async (lab) => {
    await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1', writer: { resume: 1 } });
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('start', 'vm1');
    await guest.serial.waitAcked(100);
    const id = await lab.mustVirsh('domid', 'vm1');
    const mark = guest.serial.mark();
    await lab.mustVirsh('reboot', 'vm1');
    await guest.serial.waitLine('POWEROFF', 30_000, mark);
    await guest.serial.waitLine('READY', 60_000, mark);
    await guest.serial.waitProgress();
    assert.equal(await lab.mustVirsh('domid', 'vm1'), id, 'the same QEMU');
    assert.match(await lab.mustVirsh('domstate', 'vm1', '--reason'), /running \(booted\)/);
    assert.match(await lab.mustFerry('events', '--after', '0', '--json'), /"type":"reboot"/);

    // What is asked for last counts: this time it stays off.
    await lab.mustVirsh('suspend', 'vm1');
    await lab.mustVirsh('reboot', 'vm1');
    await lab.mustVirsh('shutdown', 'vm1');
    await lab.mustVirsh('resume', 'vm1');
    await untilState(lab, 'shut off (shutdown)');
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('a daemon killed between the poweroff and the start of a reboot: the next one finishes it', async () => {
  await withLab('reboot-killed', async (lab) => {
    const first = await lab.ferryd();
    // Looks at the button every 16 writes: after each acknowledgement there are seconds until the next look.
    const guest = await lab.guest({ name: 'vm1', writer: { resume: 1, sync: 16, delay: 250_000 } });
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('start', 'vm1');
    await guest.serial.waitAcked(16);
    const mark = guest.serial.mark();
    await lab.mustVirsh('reboot', 'vm1');
    await first.kill9();
    const lines = guest.serial.lines.slice(mark).map(({ text }) => text);
    assert.ok(!lines.some((text) => text.includes('POWEROFF')), 'killed in time');
    await guest.serial.waitLine('POWEROFF', 60_000, mark);
    await lab.ferryd();
    await guest.serial.waitLine('READY', 60_000, mark);
    await guest.serial.waitProgress(16);
    assert.match(await lab.mustVirsh('domstate', 'vm1', '--reason'), /running \(booted\)/);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('autostart happens once per boot of the host', async () => {
  await withLab('autostart', async (lab) => {
    const first = await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1' });
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('autostart', 'vm1');
    await first.stop();
    const second = await lab.ferryd();
    assert.equal((await lab.mustVirsh('list', '--name')).trim(), '', 'the same boot');
    await second.stop();
    // A boot empties the run directory.
    await rm(join(lab.runDir, 'autostarted'));
    await lab.ferryd();
    await until(
      async () => ((await lab.mustVirsh('list', '--name')).includes('vm1') ? true : null),
      10_000,
      'vm1 is started',
    );
  });
});

test('a read-only connection changes nothing', async () => {
  await withLab('read-only', async (lab) => {
    await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1' });
    await lab.mustVirsh('define', guest.xmlFile);
    const { stdout } = await lab.python(`
ro = libvirt.openReadOnly(${JSON.stringify(`qemu+unix:///system?socket=${lab.runDir}/libvirt-sock-ro`)})
try:
    ro.lookupByName('vm1').create()
except libvirt.libvirtError as error:
    print(error.get_error_code())
`);
    assert.equal(stdout.trim(), '29');
  });
});

test('a chain is followed below where its definition leaves off, and refused once it is another', async () => {
  await withLab('chains', async (lab) => {
    await lab.ferryd();
    const [base, middle, top] = ['base', 'middle', 'top'].map((name) => join(lab.a, name));
    await lab.createImage(base ?? '');
    const over = async (file: string, below: string): Promise<string> =>
      await lab.qemuImg('create', '-q', '-f', 'qcow2', '-b', below, '-F', 'qcow2', file);
    await over(middle ?? '', base ?? '');
    await over(top ?? '', middle ?? '');
    const guest = await lab.guest({ name: 'vm1', disks: [{ file: top ?? '' }] });
    const named = `<backingStore type='file'><format type='qcow2'/><source file='${middle}'/></backingStore>`;
    await writeFile(guest.xmlFile, guest.xml.replace(/<target dev='vda'/, `${named}$&`));
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('start', 'vm1');
    await guest.serial.waitAcked(50);
    assert.match(await lab.mustVirsh('dumpxml', 'vm1'), new RegExp(`<source file='${base}'/>`));
    await lab.mustVirsh('destroy', 'vm1');

    // Law 7: behind our back the top is put over another image.
    await lab.createImage(join(lab.a, 'other'));
    await lab.qemuImg('rebase', '-u', '-b', join(lab.a, 'other'), '-F', 'qcow2', middle ?? '');
    const refused = await lab.virsh('start', 'vm1');
    assert.match(
      refused.stderr,
      /is not the one that was recorded: it was .*base, the headers now say .*other/,
    );
  });
});
