// The command line of one rich domain, and that no word of a definition becomes an option of its own.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { golden } from '../../test/lib/golden.js';
import { qemuCommandLine } from './commandline.js';
import type { Definition } from './definition.js';
import { imagesOf } from './disk.js';
import { domain } from './testing/samples.js';

const host = {
  qmpSocket: '/run/a,b/qmp',
  pidFile: '/run/a,b/pid',
  nvram: '/run/a,b/vars.fd',
  channelDir: '/run/a,b',
  sandbox: true,
};

/** As a start makes it: chains whole, every image numbered. */
function started(definition: Definition): Definition {
  let index = 0;
  return {
    ...definition,
    disks: definition.disks.map((disk) => {
      if (disk.source === null) return disk;
      const [, ...backing] = imagesOf(disk);
      return {
        ...disk,
        index: ++index,
        backing: backing.map((image) => ({ ...image, index: ++index })),
      };
    }),
  };
}

const commandLine = (definition: Definition): readonly string[] =>
  qemuCommandLine(started(definition), host).argv;

const rich = domain(
  `<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' io='native' discard='unmap'/>
     <source file='/img/a,b.qcow2'/>
     <backingStore type='block'><format type='raw'/><source dev='/dev/base'/><backingStore/></backingStore>
     <target dev='vda' bus='virtio'/><serial>S-1</serial><boot order='1'/></disk>
   <disk type='network' device='disk'><driver name='qemu' type='raw'/>
     <source protocol='nbd' name='x'><host name='::1' port='10810'/></source><target dev='sda' bus='sata'/></disk>
   <disk type='file' device='cdrom'><target dev='sdb' bus='sata'/></disk>
   <interface type='user'><mac address='52:54:00:00:00:09'/><model type='virtio'/></interface>
   <serial type='pty'/><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
   <graphics type='vnc'/><video><model type='virtio'/></video>
   <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>`,
  `<vcpu>4</vcpu><features><acpi/><apic/></features>
   <cpu mode='custom'><model>qemu64</model><topology sockets='1' cores='2' threads='2'/><feature policy='disable' name='svm'/></cpu>
   <clock offset='utc'><timer name='rtc' tickpolicy='catchup'/><timer name='hpet' present='no'/></clock>`,
  'q35',
);

test('a rich domain has this command line', () => {
  const lines = commandLine(rich).map((word) => (word.startsWith('-') ? word : `  ${word}`));
  golden('src/domain/golden/commandline-rich.txt', `${lines.join('\n')}\n`);
});

test('a comma, a quote or a line break in a path stays within the path', () => {
  const path = '/img/a,file.locking=off",\n"x":"y';
  const xml = path.replaceAll('"', '&quot;').replaceAll('\n', '&#10;');
  const argv = commandLine(
    domain(`<disk><driver type='raw'/><source file='${xml}'/><target dev='vda'/></disk>`),
  );
  const nodes = argv.flatMap((word, i) =>
    argv[i - 1] === '-blockdev'
      ? [JSON.parse(word) as { filename?: string; file?: { filename?: string } }]
      : [],
  ); // made by JSON.stringify
  assert.ok(nodes.some((node) => (node.filename ?? node.file?.filename) === path));
});

test('commas of names and directories are doubled', () => {
  const argv = commandLine({ ...domain(), name: 'a,debug-threads=off' });
  assert.equal(argv[argv.indexOf('-name') + 1], 'guest=a,,debug-threads=off,debug-threads=on');
  assert.ok(argv.includes('socket,id=charmonitor,path=/run/a,,b/qmp,server=on,wait=off'));
});

test('arguments of <qemu:commandline> come last', () => {
  const argv = commandLine({ ...domain(), qemuArgs: ['-d', 'int'] });
  assert.deepEqual(argv.slice(-2), ['-d', 'int']);
});

test('a chain that nobody closed is not opened as if it ended there', () => {
  const open = (format: string): Definition =>
    domain(`<disk><driver type='qcow2'/><source file='/a'/>
      <backingStore type='file'><format type='${format}'/><source file='/b'/></backingStore><target dev='vda'/></disk>`);
  assert.throws(() => commandLine(open('qcow2')), {
    code: 'CONFIG_UNSUPPORTED',
    message: /^disk 'vda': its <backingStore> ends at \/b without an empty <backingStore\/>/,
  });
  // A raw image has nothing below.
  assert.doesNotThrow(() => commandLine(open('raw')));
});
