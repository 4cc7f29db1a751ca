// Domain XML: what libvirt made comes back byte for byte, and what we do not have is refused by its name.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseDefinition } from './parse.js';
import { printDefinition } from './print.js';
import { context, diskXml, domain, domainXml, fixture } from './testing/samples.js';

const inactive = (xml: string): string =>
  printDefinition(parseDefinition(xml, context), { inactive: true });

for (const name of ['inactive', 'inactive-chain']) {
  test(`${name}.xml of libvirt comes back byte for byte`, () => {
    assert.equal(inactive(fixture(name)), fixture(name));
  });
}

test('what a client defines is completed as libvirt completes it', () => {
  assert.equal(inactive(fixture('request')), fixture('inactive'));
});

for (const name of ['live', 'live-chain']) {
  test(`${name}.xml given back is a definition, and stays as it is`, () => {
    const once = inactive(fixture(name));
    assert.equal(inactive(once), once);
    assert.doesNotMatch(once, /<alias|index='11'|<mirror/);
  });
}

const foreignDevices = [
  ['hostdev', "<hostdev mode='subsystem' type='pci'/>"],
  ['filesystem', '<filesystem/>'],
  ['tpm', '<tpm/>'],
  ['redirdev', "<redirdev bus='usb'/>"],
  [
    'disk of type volume',
    "<disk type='volume'><source pool='p' volume='v'/><target dev='vda'/></disk>",
  ],
  [
    'iothread of a disk',
    "<disk><driver iothread='1'/><source file='/a'/><target dev='vda'/></disk>",
  ],
  [
    'encryption of a disk',
    "<disk><source file='/a'><encryption/></source><target dev='vda'/></disk>",
  ],
  ['iotune of a disk', "<disk><iotune/><source file='/a'/><target dev='vda'/></disk>"],
  ['transient disk', "<disk><transient/><source file='/a'/><target dev='vda'/></disk>"],
  ['floppy', "<disk device='floppy'><source file='/a'/><target dev='fda'/></disk>"],
  ['lun', "<disk device='lun' type='block'><source dev='/dev/a'/><target dev='sda'/></disk>"],
  ['scsi bus', "<disk><source file='/a'/><target dev='sda' bus='scsi'/></disk>"],
  ['vmdk', "<disk><driver type='vmdk'/><source file='/a'/><target dev='vda'/></disk>"],
  [
    'rbd',
    "<disk type='network'><source protocol='rbd' name='a'><host name='h'/></source><target dev='vda'/></disk>",
  ],
] as const;
for (const [name, devices] of foreignDevices) {
  test(`${name} is refused, not dropped`, () => {
    assert.throws(() => domain(devices), {
      code: 'CONFIG_UNSUPPORTED',
      message: /not supported by blockferry/,
    });
  });
}

const foreignElements = [
  '<memoryBacking/>',
  '<cputune/>',
  '<iothreads>1</iothreads>',
  '<numatune/>',
  '<blkiotune/>',
  '<sysinfo/>',
  '<idmap/>',
  '<launchSecurity/>',
];
for (const element of foreignElements) {
  test(`${element} is refused, not dropped`, () => {
    assert.throws(() => domain('', element), {
      code: 'CONFIG_UNSUPPORTED',
      message: /not supported by blockferry/,
    });
  });
}

test('a refusal tells the line', () => {
  assert.throws(() => domain('', '<cputune/>'), { message: /<cputune> in <domain> \(line 6\)/ });
});

const wrong = [
  ['a name with a slash', domainXml().replace('vm1', '../vm1'), /cannot contain '\/'/],
  ['a name with a line break', domainXml().replace('vm1', 'vm&#10;1'), /invalid char in name/],
  ['a relative image', domainXml(diskXml('vda', { path: 'a.qcow2' })), /must be an absolute path/],
  [
    'a target given twice',
    domainXml(diskXml('vda') + diskXml('vda', { path: '/b' })),
    /target 'vda' duplicated/,
  ],
  ['a target that is an option', domainXml(diskXml('vda,readonly=on')), /Unknown disk name/],
  ['a malformed uuid', domainXml().replace('11111111-', 'zz-'), /malformed uuid/],
  ['no memory', domainXml().replace('>64<', '>0<'), /Memory size must be specified/],
  [
    'an option within a CPU model',
    domainXml('', '<cpu><model>qemu64,pmu=off</model></cpu>'),
    /is not a name of a CPU model/,
  ],
  [
    'a serial that is an option',
    domainXml(diskXml('vda').replace('</disk>', '<serial>a,b=c</serial></disk>')),
    /unsafe characters/,
  ],
  ['another root', '<network/>', /expecting root element of 'domain'/],
] as const;
for (const [name, xml, message] of wrong) {
  test(`${name} is refused`, () => {
    assert.throws(() => parseDefinition(xml, context), { name: 'RequestError', message });
  });
}

test('malformed XML is refused with line and column', () => {
  assert.throws(() => parseDefinition('<domain>\n  <name>a</nam>', context), {
    code: 'XML_DETAIL',
    message: /^\(domain_definition\):2:\d+: /,
  });
});

test('a machine that the emulator does not have is refused', () => {
  assert.throws(() => domain('', '', 'virt'), { message: /virt/ });
});

test('metadata of others comes back as it was given', () => {
  const metadata = "<metadata><a:b xmlns:a='urn:a' c=\"&quot;'\"> x <a:d/></a:b></metadata>";
  const once = inactive(domainXml('', metadata));
  assert.equal(inactive(once), once);
  assert.match(once, /<a:b xmlns:a="urn:a" c="&quot;'"> x <a:d\/><\/a:b>/);
});

test('disks are sorted by name within their bus, as libvirt does', () => {
  const cdroms = ['hdc', 'hda'].map(
    (target) => `<disk device='cdrom'><target dev='${target}' bus='ide'/></disk>`,
  );
  const { disks } = domain(diskXml('vdb') + cdroms.join('') + diskXml('vda'));
  assert.deepEqual(
    disks.map(({ target }) => target),
    ['vda', 'vdb', 'hda', 'hdc'],
  );
});
