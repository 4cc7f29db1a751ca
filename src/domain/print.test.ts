// Live XML: what a running domain shows beyond its definition, in libvirt's places.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseXml } from '../xml/parse.js';
import { printXml } from '../xml/print.js';
import { childNamed } from '../xml/tree.js';
import type { Definition } from './definition.js';
import type { Disk, DiskMirror } from './disk.js';
import { imagesOf } from './disk.js';
import { parseDefinition } from './parse.js';
import { printDisk } from './print-disk.js';
import { printDefinition } from './print.js';
import { context, diskXml, domain, fixture } from './testing/samples.js';

/** What libvirt's start had added when the fixtures were recorded. */
function running(
  definition: Definition,
  indexes: Readonly<Record<string, readonly number[]>>,
): Definition {
  const pty = { type: 'pty', path: '/dev/pts/0' } as const;
  return {
    ...definition,
    disks: definition.disks.map((disk) => {
      const given = indexes[disk.target] ?? [];
      const images = imagesOf(disk).map((image, i) => ({ ...image, index: given[i] ?? null }));
      return { ...disk, index: images[0]?.index ?? null, backing: images.slice(1) };
    }),
    serials: definition.serials.map((one) => ({ ...one, source: pty })),
    consoles: definition.consoles.map((one) => ({ ...one, source: pty })),
    graphics: definition.graphics.map((one) => ({ ...one, port: 5900 })),
  };
}

for (const [name, indexes] of [
  ['live', { vda: [2], vdb: [1] }],
  ['live-chain', { vda: [11, 10, 6], vdb: [1] }],
] as const) {
  test(`${name}.xml of libvirt comes back byte for byte once indexes, terminal and port are there`, () => {
    const definition = running(parseDefinition(fixture(name), context), indexes);
    assert.equal(printDefinition(definition, { id: 1, inactive: false }), fixture(name));
  });
}

const mirroredDomain = domain(diskXml('vda', { path: '/s/a.qcow2' }));
const [plain] = mirroredDomain.disks;
assert.ok(plain !== undefined);
const disk: Disk = { ...plain, index: 3, backing: [] };
const image = (path: string, index: number) => ({
  source: { type: 'file' as const, path },
  format: 'qcow2' as const,
  index,
});
const mirrored = (mirror: Partial<DiskMirror>): string => {
  const whole: DiskMirror = {
    job: 'copy',
    ready: 'no',
    image: image('/d/c.qcow2', 5),
    backing: [],
    jobId: 'x',
    ...mirror,
  };
  const element = childNamed(printDisk({ ...disk, mirror: whole }, false), 'mirror');
  assert.ok(element !== null);
  return printXml(element).replaceAll(/\n */g, '');
};

// Semantics 2.7; the second is its own example.
for (const [name, mirror, wanted] of [
  [
    'a copy on its way has no ready',
    {},
    "<mirror type='file' file='/d/c.qcow2' format='qcow2' job='copy'><format type='qcow2'/><source file='/d/c.qcow2' index='5'/><backingStore/></mirror>",
  ],
  [
    'a copy that is ready says so',
    { ready: 'yes' },
    "<mirror type='file' file='/d/c.qcow2' format='qcow2' job='copy' ready='yes'><format type='qcow2'/><source file='/d/c.qcow2' index='5'/><backingStore/></mirror>",
  ],
  [
    'an active commit has no compatible attributes',
    { job: 'active-commit', ready: 'pivot' },
    "<mirror type='file' job='active-commit' ready='pivot'><format type='qcow2'/><source file='/d/c.qcow2' index='5'/><backingStore/></mirror>",
  ],
  [
    'the chain of a mirror is nested in it',
    { backing: [image('/d/b', 6)] },
    "<mirror type='file' file='/d/c.qcow2' format='qcow2' job='copy'><format type='qcow2'/><source file='/d/c.qcow2' index='5'/><backingStore type='file' index='6'><format type='qcow2'/><source file='/d/b'/><backingStore/></backingStore></mirror>",
  ],
  [
    'a copy to a device names it inside',
    { image: { ...image('/d', 5), source: { type: 'block', path: '/dev/d' } } },
    "<mirror type='block' job='copy'><format type='qcow2'/><source dev='/dev/d' index='5'/><backingStore/></mirror>",
  ],
] as const satisfies readonly (readonly [string, Partial<DiskMirror>, string])[]) {
  test(name, () => assert.equal(mirrored(mirror), wanted));
}

test('a mirror stands between the chain and the target', () => {
  const mirror: DiskMirror = {
    job: 'copy',
    ready: 'yes',
    image: image('/d', 5),
    backing: [],
    jobId: 'x',
  };
  const names = printDisk({ ...disk, mirror }, false).children.map((child) =>
    typeof child === 'string' ? '' : child.name,
  );
  assert.deepEqual(names, [
    'driver',
    'source',
    'backingStore',
    'mirror',
    'target',
    'alias',
    'address',
  ]);
});

test('inactive XML has no alias, no index and no mirror', () => {
  const mirror: DiskMirror = {
    job: 'copy',
    ready: 'yes',
    image: image('/d', 5),
    backing: [],
    jobId: 'x',
  };
  const xml = printXml(printDisk({ ...disk, mirror }, true));
  assert.doesNotMatch(xml, /alias|index|mirror/);
});

test('what is printed of a mirrored disk is a definition without the mirror', () => {
  const mirror: DiskMirror = {
    job: 'copy',
    ready: 'yes',
    image: image('/d', 5),
    backing: [],
    jobId: 'x',
  };
  const xml = printDefinition(
    { ...mirroredDomain, disks: [{ ...disk, mirror }] },
    { id: 1, inactive: false },
  );
  assert.equal(parseDefinition(xml, context).disks[0]?.mirror, null);
});

test('a chain that is not closed stays so', () => {
  const chain =
    "<backingStore type='file'><format type='qcow2'/><source file='/b'/></backingStore>";
  const open = domain(diskXml('vda').replace('<target', `${chain}<target`)).disks[0];
  assert.ok(open !== undefined);
  const printed = childNamed(printDisk(open, true), 'backingStore');
  assert.ok(printed !== null);
  assert.deepEqual(printXml(printed), printXml(parseXml(chain)));
});
