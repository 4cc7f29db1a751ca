// The command line as a real QEMU takes it: it starts, has every device where it was put, and ends when asked.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { must, killNow } from '../../test/lib/process.js';
import { testQemus } from '../../test/lib/qemu.js';
import { Qmp } from '../../test/lib/qmp.js';
import { within } from '../std/deadline.js';
import { messageOf } from '../std/errors.js';
import { qemuCommandLine } from './commandline.js';
import type { Definition } from './definition.js';
import { imagesOf } from './disk.js';
import { domain } from './testing/samples.js';

const common = `
  <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  <console type='null'/><console type='pty'><target type='virtio'/></console>
  <input type='tablet' bus='usb'/><input type='keyboard' bus='virtio'/>
  <graphics type='vnc' port='-1' keymap='en-us'/>
  <memballoon model='virtio' autodeflate='on' freePageReporting='on'/>
  <rng model='virtio'><rate bytes='1024' period='1000'/><backend model='random'>/dev/urandom</backend></rng>`;

const usb2 =
  "<controller type='usb' index='0' model='ich9-ehci1'/>" +
  [1, 2, 3]
    .map(
      (n) =>
        `<controller type='usb' index='0' model='ich9-uhci${n}'><master startport='${n * 2 - 2}'/></controller>`,
    )
    .join('');

const cards = ['virtio', 'e1000', 'e1000e', 'rtl8139']
  .map((model) => `<interface type='user'><model type='${model}'/></interface>`)
  .join('');

/** Everything that a definition can hold, spread over the two kinds of machine. */
const cases = [
  [
    'pc',
    `<disk device='cdrom'><target dev='hda' bus='ide'/></disk>
     <serial type='null'/><serial type='null'/>${usb2}${cards}${common}
     <video><model type='vga'/></video><video><model type='virtio'/></video>`,
    `<features><acpi/><apic/><vmport state='off'/></features>
     <cpu><model>qemu64</model><feature policy='disable' name='svm'/></cpu>
     <clock offset='utc'><timer name='hpet' present='no'/></clock>
     <pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='yes'/></pm>`,
  ],
  ['pc', "<graphics type='vnc'/><memballoon model='none'/>", ''],
  [
    'pc',
    "<graphics type='vnc'/><video><model type='bochs'/></video><controller type='usb' model='none'/>",
    '',
  ],
  [
    'q35',
    `<disk device='cdrom'><target dev='sda' bus='sata'/></disk><disk device='cdrom'><target dev='sdg' bus='sata'/></disk>
     <controller type='usb' model='qemu-xhci' ports='15'/>${cards}${common}<video><model type='virtio'/></video>`,
    `<vcpu current='2'>4</vcpu><on_reboot>destroy</on_reboot>
     <cpu mode='maximum'><topology sockets='1' cores='2' threads='2'/></cpu>
     <clock offset='localtime'><timer name='rtc' tickpolicy='catchup' track='guest'/></clock>
     <pm><suspend-to-mem enabled='no'/></pm>`,
  ],
] as const;

for (const qemu of testQemus()) {
  for (const [i, [machine, devices, rest]] of cases.entries()) {
    test(`${qemu.name} takes the command line of ${machine} domain ${i + 1}`, async () => {
      const directory = await mkdtemp(join(tmpdir(), 'ferry,cmd-'));
      try {
        const [top, base, raw] = ['top,x', 'base', 'raw'].map((name) => join(directory, name));
        await must(qemu.img, ['create', '-q', '-f', 'qcow2', `${base}`, '64M']);
        await must(qemu.img, [
          'create',
          '-q',
          '-u',
          '-f',
          'qcow2',
          '-b',
          `${base}`,
          '-F',
          'qcow2',
          `${top}`,
          '64M',
        ]);
        await must(qemu.img, ['create', '-q', '-f', 'raw', `${raw}`, '1M']);
        const disks = `
          <disk><driver type='qcow2' discard='unmap' detect_zeroes='unmap'/><source file='${top}'/>
            <backingStore type='file'><format type='qcow2'/><source file='${base}'/><backingStore/></backingStore>
            <target dev='vda' bus='virtio'/><serial>S-1</serial></disk>
          <disk><driver type='raw' cache='writethrough'/><source file='${raw}'/>
            <target dev='sdb' bus='sata'/><shareable/></disk>`;
        await assertRuns(qemu.system, started(domain(disks + devices, rest, machine)), directory);
      } finally {
        await rm(directory, { recursive: true });
      }
    });
  }
}

/** As a start makes it: chains whole, every image numbered. */
function started(definition: Definition): Definition {
  let index = 0;
  const disks = definition.disks.map((disk) => {
    const [top, ...backing] = imagesOf(disk).map((image) => ({ ...image, index: ++index }));
    return top === undefined ? disk : { ...disk, index: top.index, backing };
  });
  return { ...definition, disks };
}

async function assertRuns(
  emulator: string,
  definition: Definition,
  directory: string,
): Promise<void> {
  const qmpSocket = join(directory, 'qmp');
  const { argv } = qemuCommandLine(definition, {
    qmpSocket,
    pidFile: join(directory, 'pid'),
    nvram: join(directory, 'vars'),
    channelDir: directory,
    sandbox: true,
  });
  const child = spawn(emulator, argv, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (text: Buffer) => (said += text.toString()));
  const ended = once(child, 'exit');
  try {
    const early = ended.then(() => assert.fail(`QEMU ended: ${said}`));
    using qmp = await Promise.race([Qmp.open(qmpSocket), early]);
    const roots =
      await qmp.execute<readonly { qdev?: string; inserted?: { 'node-name': string } }[]>(
        'query-block',
      );
    // IDE and SATA name the device alone, virtio the backend of it: QOM paths end so.
    const named = roots.map(({ qdev = '', inserted }) => [
      qdev.split('/')[3] ?? qdev,
      inserted?.['node-name'] ?? null,
    ]);
    const wanted = definition.disks.map(({ alias, index }) => [
      alias,
      index === null ? null : `ferry-${index}-format`,
    ]);
    assert.deepEqual(
      new Map(named as [string, string | null][]),
      new Map(wanted as [string, string | null][]),
    );
    await qmp.execute('quit');
    await within(ended, 10_000, 'quit');
    assert.equal(child.exitCode, 0);
  } catch (error) {
    throw new Error(`${messageOf(error)}; QEMU said: ${said}`, { cause: error });
  } finally {
    if (child.pid !== undefined && child.exitCode === null) killNow(child.pid);
  }
}
