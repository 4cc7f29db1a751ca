// Snapshot XML: read, aligned with the disks of a domain row by row of libvirt's table, printed, and given back.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { SnapshotMode } from './disk.js';
import { alignSnapshot, checkSnapshotName } from './snapshot-align.js';
import {
  parseSnapshotRedefinition,
  parseSnapshotRequest,
  printSnapshot,
  validateSnapshotRequest,
} from './snapshot-xml.js';
import type { Snapshot } from './snapshot.js';
import { context, diskXml, domain, fixture } from './testing/samples.js';

const request = (disks: string, rest = ''): string =>
  `<domainsnapshot>${rest}<disks>${disks}</disks></domainsnapshot>`;
const layer = "<source file='/new/a'/>";

test('what is not said is null', () => {
  assert.deepEqual(
    parseSnapshotRequest("<domainsnapshot><disks><disk name='vda'/></disks></domainsnapshot>"),
    {
      name: null,
      description: null,
      memory: null,
      disks: [{ name: 'vda', mode: null, source: null, format: null, mirror: null }],
    },
  );
});

test('a description keeps its lines', () => {
  assert.equal(
    parseSnapshotRequest('<domainsnapshot><description>a\n b\n</description></domainsnapshot>')
      .description,
    'a\n b\n',
  );
});

const file = (path: string) => ({ type: 'file' as const, path });
const mirrors = [
  ["<mirror file='/dst/a'/>", { source: file('/dst/a'), format: null }],
  ["<mirror file='/dst/a' format='qcow2'/>", { source: file('/dst/a'), format: 'qcow2' }],
  [
    "<mirror type='file'><format type='qcow2'/><source file='/dst/a'/></mirror>",
    { source: file('/dst/a'), format: 'qcow2' },
  ],
  [
    "<mirror type='block'><source dev='/dev/a'/></mirror>",
    { source: { type: 'block', path: '/dev/a' }, format: null },
  ],
  [
    "<mirror type='network'><format type='raw'/><source protocol='nbd' name='a'><host name='h' port='1'/></source></mirror>",
    {
      source: {
        type: 'network',
        protocol: 'nbd',
        name: 'a',
        host: { transport: 'tcp', name: 'h', port: 1 },
      },
      format: 'raw',
    },
  ],
] as const;
for (const [xml, wanted] of mirrors) {
  test(`${xml} is read, and makes the disk external`, () => {
    const [disk] = parseSnapshotRequest(request(`<disk name='vda'>${xml}</disk>`)).disks;
    assert.deepEqual([disk?.mirror, disk?.mode], [wanted, 'external']);
    assert.doesNotThrow(() => validateSnapshotRequest(request(`<disk name='vda'>${xml}</disk>`)));
  });
}

const malformed = [
  ['no name of a disk', "<disk snapshot='no'/>", 'XML_ERROR', /missing name/],
  [
    'type volume',
    `<disk name='vda' type='volume'>${layer}</disk>`,
    'XML_ERROR',
    /unsupported disk snapshot type 'volume'/,
  ],
  [
    'an unknown driver',
    "<disk name='vda'><driver type='vmdk'/></disk>",
    'CONFIG_UNSUPPORTED',
    /unknown disk snapshot driver 'vmdk'/,
  ],
  [
    'a relative path',
    "<disk name='vda'><source file='a'/></disk>",
    'XML_ERROR',
    /disk snapshot image path 'a' must be absolute/,
  ],
  [
    'a relative mirror',
    "<disk name='vda'><mirror file='a'/></disk>",
    'XML_ERROR',
    /'a' must be absolute/,
  ],
  [
    'a relative mirror within',
    "<disk name='vda'><mirror><source file='a'/></mirror></disk>",
    'XML_ERROR',
    /'a' must be absolute/,
  ],
  [
    'an empty mirror',
    "<disk name='vda'><mirror/></disk>",
    'XML_ERROR',
    /mirror of disk 'vda': give file=/,
  ],
  [
    'a mirror of nothing',
    "<disk name='vda'><mirror type='file'><source/></mirror></disk>",
    'XML_ERROR',
    /names nothing/,
  ],
  [
    'two mirrors',
    "<disk name='vda'><mirror file='/a'/><mirror file='/b'/></disk>",
    'CONFIG_UNSUPPORTED',
    /more than one <mirror>/,
  ],
  [
    'an unknown mode',
    "<disk name='vda' snapshot='maybe'/>",
    'XML_ERROR',
    /unknown disk snapshot setting 'maybe'/,
  ],
] as const;
for (const [name, disk, code, message] of malformed) {
  test(`${name} is refused`, () => {
    assert.throws(() => parseSnapshotRequest(request(disk)), {
      name: 'RequestError',
      code,
      message,
    });
  });
}

for (const [memory, message] of [
  ["<memory snapshot='manual'/>", /unknown memory snapshot setting/],
  ["<memory snapshot='internal' file='/m'/>", /requires external snapshot/],
  ["<memory snapshot='external'/>", /require a filename/],
  ["<memory snapshot='external' file='m'/>", /must be absolute/],
] as const) {
  test(`${memory} is refused`, () => {
    assert.throws(() => parseSnapshotRequest(request('', memory)), { code: 'XML_ERROR', message });
  });
}

const foreign = [
  ['an element', '<colour/>'],
  ['an element within a disk', "<disks><disk name='vda'><colour/></disk></disks>"],
  ['an attribute of a disk', "<disks><disk name='vda' colour='red'/></disks>"],
  [
    'an attribute of a mirror',
    "<disks><disk name='vda'><mirror file='/a' colour='red'/></disk></disks>",
  ],
  ['a property of all objects', '<constructor/>'],
] as const;
for (const [name, xml] of foreign) {
  test(`${name} that nobody knows is ignored, and refused when it is to be validated`, () => {
    const whole = `<domainsnapshot>${xml}</domainsnapshot>`;
    assert.doesNotThrow(() => parseSnapshotRequest(whole));
    assert.throws(() => validateSnapshotRequest(whole), {
      code: 'XML_INVALID_SCHEMA',
      message: /is not known$/,
    });
  });
}

test('names that would leave the directory of snapshots are refused', () => {
  for (const name of ['a/b', '.', '..', '.hidden']) {
    assert.throws(() => checkSnapshotName(name), { code: 'XML_DETAIL' });
  }
  assert.doesNotThrow(() => checkSnapshotName('before update, 2'));
});

interface Align {
  readonly disks?: string;
  readonly rest?: string;
  readonly devices?: string;
  readonly diskOnly?: boolean;
  readonly isRegularFile?: (path: string) => boolean;
}

const cdrom = "<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk>";
const twoDisks = diskXml('vda') + diskXml('vdb');

function align({
  disks = '',
  rest = '',
  devices = twoDisks,
  diskOnly = true,
  isRegularFile = () => true,
}: Align): Snapshot {
  return alignSnapshot(parseSnapshotRequest(request(disks, rest)), {
    live: domain(devices),
    inactive: null,
    diskOnly,
    nowSeconds: 1_795_416_394,
    parent: null,
    state: diskOnly ? 'disk-snapshot' : 'running',
    isRegularFile,
  });
}

const shown = (snapshot: Snapshot): string =>
  snapshot.disks
    .map(({ name, mode, image, mirror }) => {
      const paths = [image, mirror].flatMap((one) =>
        one?.source.type === 'file' ? [one.source.path] : [],
      );
      return [name, mode, ...paths].join(' ');
    })
    .join('; ');

const aligned: readonly (readonly [name: string, given: Align, disks: string])[] = [
  [
    'no disk listed, disk-only',
    {},
    'vda external /img/vda.1795416394; vdb external /img/vdb.1795416394',
  ],
  ['no disk listed, of everything', { diskOnly: false }, 'vda internal; vdb internal'],
  [
    "the order is the domain's",
    { disks: "<disk name='vdb'/><disk name='vda'/>", rest: '<name>s</name>' },
    'vda external /img/vda.s; vdb external /img/vdb.s',
  ],
  [
    'a disk named by its path',
    { disks: `<disk name='/img/vdb.qcow2' snapshot='no'/>`, rest: '<name>s</name>' },
    'vda external /img/vda.s; vdb no',
  ],
  [
    'a disk with a path',
    { disks: `<disk name='vda'>${layer}</disk><disk name='vdb' snapshot='no'/>` },
    'vda external /new/a; vdb no',
  ],
  [
    'a mirror beside a path',
    {
      disks: `<disk name='vda'>${layer}<mirror file='/dst/a'/></disk><disk name='vdb' snapshot='no'/>`,
    },
    'vda external /new/a /dst/a; vdb no',
  ],
  [
    'a mirror alone',
    {
      disks: "<disk name='vda'><mirror file='/dst/a'/></disk><disk name='vdb' snapshot='no'/>",
      rest: '<name>s</name>',
    },
    'vda external /img/vda.s /dst/a; vdb no',
  ],
  [
    'listed without a mode, the disk has one',
    {
      disks: "<disk name='vda'/>",
      devices: diskXml('vda', { snapshot: 'no' }) + diskXml('vdb'),
      rest: '<name>s</name>',
    },
    'vda no; vdb external /img/vdb.s',
  ],
  [
    'not listed, the disk has a mode',
    { devices: diskXml('vda', { snapshot: 'no' }) + diskXml('vdb'), rest: '<name>s</name>' },
    'vda no; vdb external /img/vdb.s',
  ],
  [
    'an internal one overrules external of a listed disk',
    {
      diskOnly: false,
      disks: "<disk name='vda'/>",
      devices: diskXml('vda', { snapshot: 'external' }),
    },
    'vda internal',
  ],
  [
    'an empty drive',
    { devices: diskXml('vda') + cdrom, rest: '<name>s</name>' },
    'vda external /img/vda.s; hdc no',
  ],
  [
    'no suffix to cut',
    { devices: diskXml('vda', { path: '/im.g/disk' }), rest: '<name>s</name>' },
    'vda external /im.g/disk.s',
  ],
];
for (const [name, given, disks] of aligned) {
  test(`aligned: ${name}`, () => assert.equal(shown(align(given)), disks));
}

const onlyNo = "<disk name='vda' snapshot='no'/><disk name='vdb' snapshot='no'/>";
const refused: readonly (readonly [given: Align, text: string])[] = [
  [
    { disks: "<disk name='vda'/><disk name='vdb'/><disk name='vdc'/>" },
    'too many disk snapshot requests for domain',
  ],
  [{ disks: "<disk name='vdc'/>" }, "no disk named 'vdc'"],
  [
    { disks: "<disk name='vda'/><disk name='/img/vda.qcow2'/>" },
    "disk '/img/vda.qcow2' specified twice",
  ],
  [
    { disks: `<disk name='vda' snapshot='internal'>${layer}</disk>` },
    "file '/new/a' for disk 'vda' requires use of external snapshot mode",
  ],
  [
    { disks: "<disk name='vda' snapshot='no'><mirror file='/b'/></disk>" },
    "mirror '/b' for disk 'vda' requires use of external snapshot mode",
  ],
  [
    { disks: "<disk name='vda' snapshot='external'/>", diskOnly: false },
    "disk 'vda' must use snapshot mode 'internal'",
  ],
  [
    { disks: "<disk name='vda' snapshot='internal'/>" },
    'active qemu domains require external disk snapshots; disk vda requested internal',
  ],
  [{ disks: onlyNo }, 'nothing selected for snapshot'],
  [
    { disks: onlyNo.replaceAll("'no'", "'manual'") },
    'disk-only snapshots require at least one disk to be selected for snapshot',
  ],
  [
    { isRegularFile: () => false },
    "source for disk 'vda' is not a regular file; refusing to generate external snapshot name",
  ],
  [
    { devices: "<disk type='block'><source dev='/dev/a'/><target dev='vda'/></disk>" },
    "cannot generate external snapshot name for disk 'vda' on a 'block' device",
  ],
  [
    { devices: diskXml('vda', { path: '/img/a.raw' }) + diskXml('vdb', { path: '/img/a.qcow2' }) },
    "cannot generate external snapshot name for disk 'vdb': collision with disk 'vda'",
  ],
  [
    { rest: '<name>s</name>', disks: "<disk name='vdb'><source file='/img/vda.s'/></disk>" },
    "cannot generate external snapshot name for disk 'vda': collision with disk 'vdb'",
  ],
];
for (const [given, message] of refused) {
  test(`refused: ${message}`, () => {
    assert.throws(() => align(given), {
      name: 'RequestError',
      code: 'CONFIG_UNSUPPORTED',
      message,
    });
  });
}

test('memory beside a disk-only snapshot is refused', () => {
  assert.throws(() => align({ rest: "<memory snapshot='internal'/>" }), {
    code: 'XML_ERROR',
    message: /memory state cannot be saved/,
  });
});

test('a name that nobody gave is the time', () => {
  const { name, creationTimeSeconds, memory } = align({});
  assert.deepEqual(
    [name, creationTimeSeconds, memory],
    ['1795416394', 1_795_416_394, { mode: 'no', file: null }],
  );
});

for (const name of ['snapshot', 'snapshot-child']) {
  test(`${name}.xml of libvirt comes back byte for byte`, () => {
    assert.equal(printSnapshot(parseSnapshotRedefinition(fixture(name), context)), fixture(name));
  });
}

test('a mirrored snapshot is printed with both forms of its mirror, and comes back', () => {
  const snapshot = align({
    disks: `<disk name='vda'>${layer}<mirror file='/dst/a'/></disk><disk name='vdb' snapshot='no'/>`,
  });
  const xml = printSnapshot(snapshot);
  assert.match(
    xml,
    /<source file='\/new\/a'\/>\n {6}<mirror type='file' file='\/dst\/a' format='qcow2'>\n {8}<format type='qcow2'\/>\n {8}<source file='\/dst\/a'\/>\n {6}<\/mirror>\n {4}<\/disk>/,
  );
  assert.equal(printSnapshot(parseSnapshotRedefinition(xml, context)), xml);
  assert.doesNotThrow(() => validateSnapshotRequest(xml));
});

const modes: readonly SnapshotMode[] = ['no', 'internal', 'external', 'manual'];
test('every mode comes back', () => {
  const snapshot = align({ rest: '<name>s</name>' });
  for (const mode of modes) {
    const changed = {
      ...snapshot,
      disks: snapshot.disks.map((disk) => ({ ...disk, mode, image: null })),
    };
    assert.deepEqual(
      parseSnapshotRedefinition(printSnapshot(changed), context).disks,
      changed.disks,
    );
  }
});

for (const [what, pattern, code, message] of [
  ['a name', /<name>s1<\/name>/, 'XML_ERROR', /a redefined snapshot must have a name/],
  ['a time', /<creationTime>.*<\/creationTime>/, 'XML_ERROR', /missing creationTime/],
  ['a state', /<state>.*<\/state>/, 'XML_ERROR', /missing state/],
  ['a domain', /<domain [^]*<\/domain>/, 'XML_ERROR', /missing domain in snapshot/],
] as const) {
  test(`a redefined snapshot without ${what} is refused`, () => {
    const xml = fixture('snapshot').replace(pattern, '');
    assert.throws(() => parseSnapshotRedefinition(xml, context), { code, message });
  });
}

test('a redefined snapshot of no known state is refused', () => {
  const xml = fixture('snapshot').replace('>disk-snapshot<', '>asleep<');
  assert.throws(() => parseSnapshotRedefinition(xml, context), {
    code: 'CONFIG_UNSUPPORTED',
    message: /Invalid state 'asleep'/,
  });
});
