// Plans of moves of shut-off domains: what they do, and what is refused before anything is touched.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { FileFacts, ImageInfo, PathFacts } from '../block/facts.js';
import { nothingThere } from '../block/facts.js';
import type { Image } from '../block/layer.js';
import { findDisk } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import type { MoveForm } from '../domain/move-form.js';
import { asItIs } from '../domain/move-form.js';
import type { DomainRecord } from '../domain/record.js';
import { applyChange } from '../domain/record.js';
import type { Snapshot } from '../domain/snapshot.js';
import { diskXml, domain } from '../domain/testing/samples.js';
import { present } from '../std/assert.js';
import { messageOf } from '../std/errors.js';
import { explainStep } from './explain.js';
import type { MoveOffline } from './move-offline.js';
import { planMoveOffline, rolesOfOffline } from './move-offline.js';
import { isRefusal } from './refuse.js';
import type { Plan } from './step.js';
import { checkPlan } from './step.js';

const MiB = 1n << 20n;
const image = (path: string): Image => ({
  source: { type: 'file', path },
  format: 'qcow2',
  index: null,
});
const snap = '/img/vda.snap';
const base = '/img/vda.qcow2';
const persistent = domain(`${diskXml('vda', { path: snap })}${diskXml('vdb')}`);
const defined = (target: string): Disk => present(findDisk(persistent, target), target);
const vda: Disk = { ...defined('vda'), backing: [image(base)] };
const vdb: Disk = { ...defined('vdb'), backing: [] };

// Only what a move looks at.
const snapshot = {
  name: 's1',
  disks: [{ name: 'vda', mode: 'external', image: image(snap), mirror: null }],
} as unknown as Snapshot;
const record: DomainRecord = {
  uuid: persistent.uuid,
  name: 'vm1',
  persistent,
  live: null,
  autostart: false,
  snapshots: [snapshot],
  currentSnapshot: null,
  lastState: { state: 'shutoff', reason: 'shutdown' },
  chains: [],
  owed: [],
};

const file: FileFacts = {
  kind: 'file',
  sizeBytes: MiB,
  readable: true,
  writable: true,
  modifiedNs: 0n,
  device: 1n,
  bornMs: null,
};
const seen = (path: string, more: Partial<ImageInfo> = {}): PathFacts => ({
  ...nothingThere,
  file,
  info: {
    path,
    format: 'qcow2',
    virtualSizeBytes: 10n * MiB,
    actualSizeBytes: MiB,
    clusterSizeBytes: 65_536,
    backing: path === snap ? { filename: base, format: 'qcow2' } : null,
    special: [],
    snapshots: 0,
    ...more,
  },
});

function request(more: Partial<MoveOffline> = {}): MoveOffline {
  const disks = [vda, vdb];
  const paths = [snap, base, '/img/vdb.qcow2'];
  return {
    record,
    disks: ['vda', 'vdb'],
    chains: new Map(disks.map((disk) => [disk.target, disk])),
    identities: new Map(paths.map((path, i) => [path, identity(i)])),
    to: '/dst',
    name: null,
    form: asItIs,
    there: new Map(),
    measured: new Map(),
    folder: { ...file, kind: 'folder' },
    freeBytes: 100n * MiB,
    spokenForBytes: 0n,
    files: new Map(paths.map((path) => [path, seen(path)])),
    stamp: '7',
    bytesPerSecond: null,
    verify: 'full',
    ...more,
  };
}

const identity = (i: number) => ({ inode: BigInt(i), sizeBytes: MiB, mtimeNs: 5n });

const files = (path: string, facts: PathFacts): MoveOffline['files'] =>
  new Map([...request().files, [path, facts]]);

const withDisk = (disk: Disk): Partial<MoveOffline> => ({
  chains: new Map([...request().chains, [disk.target, disk]]),
});

function planned(more: Partial<MoveOffline> = {}): Plan {
  const plan = planMoveOffline(request(more));
  if (isRefusal(plan)) throw plan.refusal;
  checkPlan(plan);
  return plan;
}

test('images are held, copied from the base up, and known at their new place in one step', () => {
  const { steps, commitAt } = planned({ bytesPerSecond: 7n });
  assert.deepEqual(steps.map(explainStep), [
    'keep writers off /img/vda.snap, /img/vda.qcow2, /img/vdb.qcow2',
    'copy /img/vda.qcow2 to /dst/vda.qcow2',
    'copy /img/vda.snap to /dst/vda.snap',
    'copy /img/vdb.qcow2 to /dst/vdb.qcow2',
    'let the definition name /dst/vda.snap, /dst/vda.qcow2, /dst/vdb.qcow2, if nobody wrote to what was copied',
    'let the old images go',
  ]);
  assert.equal(steps[commitAt - 1]?.kind, 'arrive');
  const copy = present(steps[2], 'the overlay');
  assert.ok(copy.kind === 'copy-image');
  assert.deepEqual(copy.backing, { path: '/dst/vda.qcow2', format: 'qcow2' });
  assert.equal(copy.bytesPerSecond, 7n);
  assert.equal(copy.hold?.length, 3, 'all are held while one is copied');
});

test('afterwards definition, chains and snapshots name the copies, and what was is stale', () => {
  const { steps } = planned();
  const changes = steps.flatMap((step) => step.changes ?? []);
  let after: DomainRecord | null = record;
  for (const change of changes) after = applyChange(after, change);
  const paths = (images: readonly Image[]) =>
    images.map(({ source }) => (source.type === 'network' ? '' : source.path));
  assert.deepEqual(
    after?.persistent?.disks.map(({ source }) => source),
    [image('/dst/vda.snap').source, image('/dst/vdb.qcow2').source],
  );
  assert.deepEqual(
    after.chains.map(({ target, images }) => [target, paths(images)]),
    [
      ['vda', ['/dst/vda.snap', '/dst/vda.qcow2']],
      ['vdb', ['/dst/vdb.qcow2']],
    ],
  );
  // The definition leaves the chain to the headers, and still does.
  assert.equal(after.persistent?.disks[0]?.backing, null);
  assert.deepEqual(after.snapshots[0]?.disks[0]?.image, image('/dst/vda.snap'));
  assert.deepEqual(
    changes.flatMap((change) => (change.change === 'role' ? [change.role.path] : [])),
    [snap, base, '/img/vdb.qcow2'],
  );
});

test('half copies are nobody’s images', () => {
  const roles = rolesOfOffline(planned(), 9);
  assert.deepEqual(
    roles.map(({ path, role, live }) => [path, role, live]),
    [
      ['/dst/vda.snap', 'unfinished', snap],
      ['/dst/vda.qcow2', 'unfinished', snap],
      ['/dst/vdb.qcow2', 'unfinished', '/img/vdb.qcow2'],
    ],
  );
});

test('internal snapshots go along, and cache=unsafe is no matter', () => {
  planned({ files: files(base, seen(base, { snapshots: 2 })) });
  planned(withDisk({ ...vda, driver: { ...vda.driver, cache: 'unsafe' } }));
});

const owed = { record: { target: 'vda' } } as unknown as DomainRecord['owed'][number];
const network: Disk = {
  ...vda,
  source: {
    type: 'network',
    protocol: 'nbd',
    name: 'd',
    host: { transport: 'unix', socket: '/s' },
  },
};
const elsewhere = '/other/vda.snap';
const ofOneName: Partial<MoveOffline> = {
  ...withDisk({ ...vda, backing: [image(elsewhere)] }),
  identities: new Map([...request().identities, [elsewhere, identity(9)]]),
  files: files(elsewhere, seen(elsewhere)),
};

/** [what is wrong, the request, what is said] */
const refusals: readonly (readonly [string, Partial<MoveOffline>, RegExp])[] = [
  ['no such disk', { disks: ['vdx'] }, /no disk 'vdx' in domain 'vm1'/],
  ['no disk', { disks: [] }, /no disk named/],
  ['a disk twice', { disks: ['vda', snap] }, /named twice/],
  ['an empty drive', withDisk({ ...vda, source: null }), /empty/],
  ['a read-only disk', withDisk({ ...vda, readonly: true }), /read-only/],
  ['a shared disk', withDisk({ ...vda, shareable: true }), /shareable/],
  ['an owed mirror', { record: { ...record, owed: [owed] } }, /has a mirror that is taken up/],
  ['a network image', withDisk(network), /is not a file/],
  ['an image that cannot be read', { identities: new Map() }, /cannot be read by ferryd/],
  ['an external data file', { files: files(base, seen(base, { special: ['x'] })) }, /has x/],
  ['two images of one name', ofOneName, /have the same file name/],
  ['a relative folder', { to: 'dst' }, /absolute path/],
  ['no folder', { folder: null }, /no such folder/],
  ['a file for a folder', { folder: file }, /not a folder/],
  ['no room', { freeBytes: 3n * MiB - 1n }, /need 3145728 bytes and 3145727 are free/],
  ['no room beside others', { spokenForBytes: 98n * MiB }, /other moves have still to write/],
  ['a file in the way', { files: files('/dst/vda.qcow2', seen(base)) }, /exists already/],
  ['a half copy in the way', { files: files('/dst/vda.snap.part', seen(base)) }, /unfinished copy/],
];

for (const [what, more, expected] of refusals)
  test(`refused: ${what}`, () => {
    const refused = planMoveOffline(request(more));
    assert.ok(isRefusal(refused));
    assert.match(messageOf(refused.refusal), expected);
  });

const form = (more: Partial<MoveForm>): Partial<MoveOffline> => ({ form: { ...asItIs, ...more } });
const forgotten = { record: { ...record, snapshots: [] }, disks: ['vda'] };

/** `/dst/vda.qcow2` is there, for the base of vda. */
const shared = (more: Partial<ImageInfo> = {}): Partial<MoveOffline> => ({
  ...form({ shareBase: true }),
  files: files('/dst/vda.qcow2', seen('/dst/vda.qcow2', more)),
  there: new Map([['/dst/vda.qcow2', identity(8)]]),
});

test('a chain that is flattened is read whole and becomes one image', () => {
  const { steps, offline } = planned({ ...forgotten, ...form({ flatten: true, format: 'raw' }) });
  assert.deepEqual(steps.slice(1, -1).map(explainStep), [
    'flatten /img/vda.snap over /img/vda.qcow2 to /dst/vda.snap (raw)',
    'let the definition name /dst/vda.snap, if nobody wrote to what was copied',
  ]);
  assert.deepEqual(
    offline?.ways[0]?.to.map(({ format }) => format),
    ['raw'],
  );
});

test('a base that is there is held, compared and named, and never copied, called half a copy or made room for', () => {
  const plan = planned({ ...shared(), disks: ['vda'], freeBytes: MiB });
  assert.deepEqual(plan.steps.map(explainStep), [
    'keep writers off /img/vda.snap, /img/vda.qcow2, /dst/vda.qcow2',
    'compare /dst/vda.qcow2 with /img/vda.qcow2, which it takes the place of',
    'copy /img/vda.snap to /dst/vda.snap',
    'let the definition name /dst/vda.snap, /dst/vda.qcow2, if nobody wrote to what was copied',
    'let the old images go',
  ]);
  assert.deepEqual(
    rolesOfOffline(plan, 9).map(({ path }) => path),
    ['/dst/vda.snap'],
  );
  const [, check] = plan.steps;
  assert.ok(check?.kind === 'check-image');
  assert.deepEqual(check.file, identity(8));
});

/** [what is wrong, the request, what is said] */
const badForms: readonly (readonly [string, Partial<MoveOffline>, RegExp])[] = [
  ['a name for two disks', { name: 'web.qcow2' }, /name of a file, and 2 disks are moved/],
  ['a raw overlay', form({ format: 'raw' }), /2 images, and a raw image cannot stand on another/],
  ['odd clusters', form({ clusterSizeBytes: 3n << 16n }), /powers of two from 64K to 2M/],
  ['small clusters', form({ clusterSizeBytes: 1n << 15n }), /powers of two from 64K to 2M/],
  ['raw clusters', form({ format: 'raw', clusterSizeBytes: 1n << 16n }), /has no clusters/],
  ['one image on a base', form({ flatten: true, shareBase: true }), /leave one of the two out/],
  ['a snapshot of what is flattened', form({ flatten: true }), /snapshot s1 names images of its/],
  [
    'internal snapshots',
    { ...form({ flatten: true }), ...forgotten, files: files(base, seen(base, { snapshots: 1 })) },
    /holds internal snapshots, which a conversion would lose/,
  ],
  ['another size', shared({ virtualSizeBytes: MiB }), /a disk of 1048576 bytes, not of 10485760/],
  [
    'another base',
    shared({ backing: { filename: 'x', format: 'raw' } }),
    /it stands on \/dst\/x, where the source stands alone/,
  ],
  ['an encrypted one', shared({ special: ['encrypted'] }), /it has encrypted/],
  [
    'no image at all',
    { ...shared(), files: files('/dst/vda.qcow2', { ...nothingThere, file }) },
    /cannot be read as an image of format qcow2/,
  ],
  [
    'the top image in the way',
    { ...shared(), files: files('/dst/vda.snap', seen(snap)) },
    /\/dst\/vda\.snap exists already/,
  ],
  [
    'no room for what it becomes',
    { measured: new Map([['vda', 99n * MiB]]), freeBytes: 100n * MiB },
    /need 105906176 bytes and 104857600 are free/,
  ],
];

for (const [what, more, expected] of badForms)
  test(`refused: ${what}`, () => {
    const refused = planMoveOffline(request(more));
    assert.ok(isRefusal(refused));
    assert.match(messageOf(refused.refusal), expected);
  });
