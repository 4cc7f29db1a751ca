// Defaults, aliases and places on buses: libvirt's, kept when given, the same every time.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assignDevices } from './assign.js';
import type { Definition } from './definition.js';
import { diskXml, domain } from './testing/samples.js';

const cdrom = (target: string, bus: string): string =>
  `<disk type='file' device='cdrom'><target dev='${target}' bus='${bus}'/></disk>`;
const rich =
  diskXml('vda') +
  diskXml('vdb') +
  `<interface type='user'><model type='virtio'/></interface><interface type='user'><model type='e1000'/></interface>
   <serial type='null'/><console type='pty'><target type='serial'/></console>
   <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
   <input type='tablet' bus='usb'/><input type='keyboard' bus='virtio'/>
   <graphics type='vnc'/><video><model type='virtio'/></video>
   <rng model='virtio'><backend model='random'/></rng>`;

const places = (definition: Definition): readonly string[] =>
  [
    ...definition.disks,
    ...definition.controllers,
    ...definition.interfaces,
    ...definition.inputs,
    ...definition.videos,
    definition.balloon,
    ...definition.rngs,
  ].flatMap(({ alias, address }) => {
    const { type, bus = '', slot = '', function: fn = '' } = address ?? {};
    return type === 'pci' ? [`${alias} ${bus.slice(2)}:${slot.slice(2)}.${fn.slice(2)}`] : [];
  });

test('on i440fx everything sits on bus 0, screen at 2, then cards, ports, disks, balloon, rng', () => {
  assert.deepEqual(places(domain(rich + cdrom('hda', 'ide'))), [
    'virtio-disk0 00:06.0',
    'virtio-disk1 00:07.0',
    'usb 00:01.2',
    'ide 00:01.1',
    'virtio-serial0 00:05.0',
    'net0 00:03.0',
    'net1 00:04.0',
    'input1 00:0a.0',
    'video0 00:02.0',
    'balloon0 00:08.0',
    'rng0 00:09.0',
  ]);
});

test('on q35 an express device has a root port of its own, and one is to spare', () => {
  const definition = domain(rich + cdrom('sda', 'sata'), '', 'q35');
  const all = places(definition);
  const buses = all.filter((place) => !place.includes(' 00:'));
  assert.equal(new Set(buses.map((place) => place.split(' ')[1])).size, buses.length);
  const ports = definition.controllers.filter((one) => one.model === 'pcie-root-port');
  assert.equal(ports.length, buses.length + 1);
  assert.ok(all.includes('ide 00:1f.2') && all.includes('video0 00:01.0'));
  assert.deepEqual(
    ports.slice(0, 2).map(({ index, chassis, port, alias }) => [index, chassis, port, alias]),
    [
      [1, 1, 0x10, 'pci.1'],
      [2, 2, 0x11, 'pci.2'],
    ],
  );
});

for (const machine of ['pc', 'q35']) {
  test(`${machine}: what has its place keeps it`, () => {
    const once = domain(rich, '', machine);
    assert.deepEqual(assignDevices(once), once);
  });
}

test('a device that comes later takes the first free place', () => {
  const before = domain(rich);
  const [first] = before.disks;
  assert.ok(first !== undefined);
  const late = { ...first, target: 'vdc', address: null, alias: null };
  const after = assignDevices({ ...before, disks: [...before.disks, late] });
  assert.deepEqual(after.disks.slice(0, 2), before.disks);
  assert.equal(places(after)[2], 'virtio-disk2 00:0b.0');
});

test('an address that is given is left free by the others', () => {
  const taken = diskXml('vdb').replace('</disk>', "<address type='pci' slot='0x03'/></disk>");
  assert.deepEqual(places(domain(diskXml('vda') + taken)).slice(0, 2), [
    'virtio-disk0 00:02.0',
    'virtio-disk1 00:03.0',
  ]);
});

for (const [bus, machine, names] of [
  ['ide', 'pc', { hda: 'ide0-0-0', hdb: 'ide0-0-1', hdc: 'ide0-1-0', hdd: 'ide0-1-1' }],
  ['sata', 'q35', { sda: 'sata0-0-0', sdf: 'sata0-0-5', sdg: 'sata1-0-0' }],
  ['sata', 'pc', { sda: 'sata0-0-0', sdb: 'sata0-0-1' }],
] as const) {
  test(`${bus} disks of ${machine} are where their letters say`, () => {
    const definition = domain(
      Object.keys(names)
        .map((target) => cdrom(target, bus))
        .join(''),
      '',
      machine,
    );
    assert.deepEqual(
      Object.fromEntries(definition.disks.map((disk) => [disk.target, disk.alias])),
      names,
    );
  });
}

test('the companions of a USB 2 controller share its slot and its name', () => {
  const usb = (model: string, master = ''): string =>
    `<controller type='usb' index='0' model='${model}'>${master}</controller>`;
  const definition = domain(
    usb('ich9-ehci1') +
      [1, 2, 3].map((n) => usb(`ich9-uhci${n}`, `<master startport='${(n - 1) * 2}'/>`)).join(''),
  );
  assert.deepEqual(places(definition).slice(0, 4), [
    'usb 00:02.7',
    'usb 00:02.0',
    'usb 00:02.1',
    'usb 00:02.2',
  ]);
});

test('a domain without a screen has no mouse, no keyboard, no video', () => {
  const { inputs, videos, audios } = domain(diskXml('vda'));
  assert.deepEqual([inputs, videos, audios], [[], [], []]);
});

for (const [name, devices] of [
  ['a console alone', "<console type='pty'/>"],
  ['a serial port alone', "<serial type='pty'/>"],
  ['both', "<serial type='pty'/><console type='pty'><target type='serial' port='0'/></console>"],
] as const) {
  test(`${name} is a serial port and its other face`, () => {
    const { serials, consoles } = domain(devices);
    assert.deepEqual(
      [
        serials.map(({ alias }) => alias),
        consoles.map(({ alias, targetType }) => [alias, targetType]),
      ],
      [['serial0'], [['serial0', 'serial']]],
    );
  });
}

const wrong = [
  [
    'a PCI address given twice',
    [diskXml('vda'), diskXml('vdb')]
      .map((xml) => xml.replace('</disk>', "<address type='pci' slot='0x05'/></disk>"))
      .join(''),
    'pc',
    /PCI address 0000:00:05\.0 is used by more than one device/,
  ],
  [
    'a slot that PCI does not have',
    diskXml('vda').replace('</disk>', "<address type='pci' slot='0x20'/></disk>"),
    'pc',
    /Invalid PCI address slot='0x20', must be <= 0x1F/,
  ],
  [
    'more devices than slots',
    Array.from({ length: 32 }, (_, i) => diskXml(`vd${letters(i)}`)).join(''),
    'pc',
    /No more available PCI slots/,
  ],
  ['IDE on q35', cdrom('hda', 'ide'), 'q35', /IDE controllers are unsupported/],
  [
    'more USB devices than ports',
    "<input type='tablet' bus='usb'/>".repeat(3),
    'pc',
    /no more USB ports/,
  ],
  [
    'a second controller of one index',
    "<controller type='ide' index='0'/>".repeat(2),
    'pc',
    /Multiple 'ide' controllers with index '0'/,
  ],
  [
    'a companion twice',
    "<controller type='usb' index='0' model='ich9-uhci1'><master startport='0'/></controller>".repeat(
      2,
    ),
    'pc',
    /USB controller 0 has 'ich9-uhci1' twice/,
  ],
  [
    'a companion of no port',
    "<controller type='usb' model='ich9-uhci1'><master/></controller>",
    'pc',
    /missing attribute 'startport' of <master>/,
  ],
  [
    'a boot order given twice',
    ['vda', 'vdb']
      .map((target) => diskXml(target).replace('</disk>', "<boot order='1'/></disk>"))
      .join(''),
    'pc',
    /boot order '1' used for more than one device/,
  ],
] as const;
for (const [name, devices, machine, message] of wrong) {
  test(`${name} is refused`, () => {
    assert.throws(() => domain(devices, '', machine), { name: 'RequestError', message });
  });
}

/** `a` … `z`, `aa`, … */
function letters(n: number): string {
  const last = String.fromCharCode(97 + (n % 26));
  return n < 26 ? last : letters(Math.floor(n / 26) - 1) + last;
}
