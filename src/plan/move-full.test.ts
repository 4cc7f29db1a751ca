// Plans of moves by full mirrors: what they do, what the next QEMU makes again, what is refused before anything is touched.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Destination } from '../block/destination.js';
import type { FileFacts, ImageInfo, PathFacts } from '../block/facts.js';
import { nothingThere } from '../block/facts.js';
import type { Definition } from '../domain/definition.js';
import type { DomainRecord } from '../domain/record.js';
import { applyChange } from '../domain/record.js';
import { diskXml, domain } from '../domain/testing/samples.js';
import { present } from '../std/assert.js';
import { messageOf } from '../std/errors.js';
import { explainStep } from './explain.js';
import { moveAgain, rolesOfMove } from './move-again.js';
import type { MoveFull } from './move-full.js';
import { planMoveFull } from './move-full.js';
import { isRefusal } from './refuse.js';
import type { Plan, Step } from './step.js';
import { checkPlan } from './step.js';

const MiB = 1n << 20n;
const persistent = domain(`${diskXml('vda')}${diskXml('vdb')}`);

/** As it runs: every image has its index. */
const running: Definition = {
  ...persistent,
  disks: persistent.disks.map((disk, i) => ({ ...disk, index: i + 1, backing: [] })),
};

const record: DomainRecord = {
  uuid: persistent.uuid,
  name: 'vm1',
  persistent,
  live: {
    id: 1,
    pid: 1,
    startTicks: 1,
    definition: running,
    state: { state: 'running', reason: 'booted' },
    nextIndex: 3,
    mirrors: [],
    rebooting: false,
  },
  autostart: false,
  snapshots: [],
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
    actualSizeBytes: 4n * MiB,
    clusterSizeBytes: 65_536,
    backing: null,
    special: [],
    snapshots: 0,
    ...more,
  },
});

const paths = ['/img/vda.qcow2', '/img/vdb.qcow2'] as const;

const request = (more: Partial<MoveFull> = {}): MoveFull => ({
  record,
  disks: ['vda'],
  to: '/dst',
  name: null,
  destination: { kind: 'folder', path: '/dst' },
  folder: { ...file, kind: 'folder' },
  freeBytes: 100n * MiB,
  spokenForBytes: 0n,
  device: null,
  files: new Map(paths.map((path) => [path, seen(path)])),
  sizes: new Map(
    ['vda', 'vdb'].map((target) => [target, { sizeBytes: 10n * MiB, clusterSizeBytes: 65_536 }]),
  ),
  bytesPerSecond: null,
  pivot: { how: 'auto' },
  quiesce: false,
  trim: false,
  fuseAt: { prefix: '/run/u.fuse-', logFile: '/log/vm1.log' },
  tlsCreds: null,
  exportUsedBy: null,
  ...more,
});

const device = (more: Partial<NonNullable<MoveFull['device']>> = {}): Partial<MoveFull> => ({
  to: 'block:/dev/a',
  destination: { kind: 'block', path: '/dev/a' },
  device: { file: { ...file, kind: 'block' }, sizeBytes: 12n * MiB, usedBy: null, ...more },
});

const nbd = (isTls: boolean, tlsCreds: string | null): Partial<MoveFull> => ({
  to: 'nbd://h/x',
  destination: {
    kind: 'nbd',
    name: 'x',
    host: { transport: 'tcp', name: 'h', port: 1 },
    isTls,
  } satisfies Destination,
  tlsCreds,
});

function planned(more: Partial<MoveFull> = {}): Plan {
  const plan = planMoveFull(request(more));
  if (isRefusal(plan)) throw plan.refusal;
  checkPlan(plan);
  return plan;
}

const told = (steps: readonly Step[]): readonly string[] => steps.map(explainStep);

test('each disk becomes one file, mirrored whole; all switch at once, and nothing is merged', () => {
  const plan = planned({ disks: ['vda', 'vdb'] });
  assert.deepEqual(told(plan.steps), [
    'make /dst/vda.qcow2',
    'make /dst/vdb.qcow2',
    'open /dst/vda.qcow2 as ferry-3-format',
    'mirror all of ferry-1-format to ferry-3-format (job copy-vda-3)',
    'open /dst/vdb.qcow2 as ferry-4-format',
    'mirror all of ferry-2-format to ferry-4-format (job copy-vdb-4)',
    'wait until copy-vda-3, copy-vdb-4 are READY',
    'switch vda to /dst/vda.qcow2, vdb to /dst/vdb.qcow2, all or none',
    'let the guest go on',
    "take copy-vda-3, copy-vdb-4 off QEMU's list",
    'close /img/vda.qcow2 (ferry-1-format)',
    'close /img/vdb.qcow2 (ferry-2-format)',
  ]);
  assert.equal(plan.steps[plan.commitAt - 1]?.kind, 'pivot');
  assert.equal(plan.waitsFrom, 5, 'the last mirror');
});

test('what is zero is discarded while the target is filled, and from the switch on it is opened as its XML says', () => {
  const { steps } = planned(device());
  const open = steps.find((step) => step.kind === 'open-node');
  const pivot = steps.find((step) => step.kind === 'pivot');
  assert.equal(open?.options.discard, 'unmap');
  assert.equal(open.options.size, 10n * MiB, 'of a longer device only so much is the disk');
  const swing = present(pivot?.disks[0]?.swing, 'it is swung');
  assert.ok(!('discard' in swing));
  assert.equal(swing.size, 10n * MiB);
  // A target that is lost cannot be reopened, and the guest must not wait for that.
  assert.equal(pivot?.disks[0]?.swingBack, null);
});

test('the definition names the device, the record its mirror, and the old image is stale', () => {
  const { steps, commitAt } = planned(device());
  const changes = steps.slice(0, commitAt).flatMap((step) => step.changes ?? []);
  const after = changes.reduce<DomainRecord | null>(applyChange, record);
  const disk = present(after?.persistent?.disks[0], 'vda');
  assert.deepEqual([disk.source, disk.format], [{ type: 'block', path: '/dev/a' }, 'raw']);
  assert.deepEqual(after?.live?.mirrors, []);
  assert.equal(after?.live?.nextIndex, 4);
  const roles = changes.flatMap((change) => (change.change === 'role' ? [change.role] : []));
  assert.deepEqual(
    roles.map(({ path, role }) => [path, role]),
    [['/img/vda.qcow2', 'stale']],
  );
});

test('an NBD server is spoken to through its fuse, and the XML names the server', () => {
  const plan = planned(nbd(true, '/pki'));
  const fuse = present(plan.full?.ways[0]?.fuse, 'it has one');
  assert.deepEqual(told(plan.steps).slice(0, 3), [
    'connect to nbds://h:1/x through a process of its own',
    'open nbd export vda as ferry-3-format',
    'mirror all of ferry-1-format to ferry-3-format (job copy-vda-3)',
  ]);
  const open = plan.steps.find((step) => step.kind === 'open-node')?.options.file;
  assert.deepEqual(open?.driver === 'nbd' ? open.server : null, {
    type: 'unix',
    path: '/run/u.fuse-3.sock',
  });
  const pivot = plan.steps.find((step) => step.kind === 'pivot');
  assert.equal(pivot?.disks[0]?.fuse, fuse);
  assert.ok(told(plan.steps).includes('switch vda to nbds://h:1/x, all or none'));
});

for (const [name, more, wanted] of [
  ['a file', {}, ['make /dst/vda.qcow2 anew']],
  ['a device', device(), ['take /dev/a, whose content is void from now on']],
  ['an NBD server', nbd(false, null), ['connect to nbd://h:1/x through a process of its own']],
] as const) {
  test(`after a death of QEMU the target on ${name} is made anew before the next one, and mirrored in it`, () => {
    const plan = planned(more);
    const open = { operation: 7, plan, done: new Set([0, 1, 2]) };
    const [disk] = moveAgain(open, 5).disks;
    const { attach, owed } = present(disk?.mirror, 'it had its mirror');
    assert.deepEqual(told(attach.before), wanted);
    assert.deepEqual(
      attach.inQemu.map(({ kind }) => kind),
      ['open-node', 'start-mirror'],
    );
    assert.equal(owed.record.jobId, 'copy-vda-3');
    assert.equal(moveAgain(open, 5).nextIndex, 4);
    const roles = rolesOfMove(open, 5).map(({ role, live }) => [role, live]);
    const local = name === 'an NBD server' ? [] : [['unfinished', '/img/vda.qcow2']];
    assert.deepEqual(roles, local);
  });
}

const internal = new Map([[paths[0], seen(paths[0], { snapshots: 1 })]]);

for (const [name, more, wanted] of [
  ['no such disk', { disks: ['vdz'] }, /no disk 'vdz'/],
  ['a disk named twice', { disks: ['vda', 'vda'] }, /named twice/],
  ['internal snapshots', { files: internal }, /holds internal snapshots/],
  ['an image that cannot be read', { files: new Map() }, /cannot be read by ferryd/],
  ['a folder that is not there', { folder: null }, /no such folder/],
  ['too little room', { freeBytes: MiB }, /need up to 4194304 bytes and 1048576 are free/],
  [
    'a file that is there',
    { files: new Map([...request().files, ['/dst/vda.qcow2', seen('/dst/vda.qcow2')]]) },
    /exists already and is not overwritten/,
  ],
  ['two disks to one device', { ...device(), disks: ['vda', 'vdb'] }, /do not go to one place/],
  ['no device', device({ file: null }), /no such device/],
  ['a device that is none', device({ file }), /no block device/],
  ['a device that is short', device({ sizeBytes: MiB }), /the device 1048576; name a larger/],
  ['a device in use', device({ usedBy: 'it is mounted on /mnt' }), /it is mounted on \/mnt/],
  ['TLS without credentials', nbd(true, null), /name their folder/],
  ['credentials without TLS', nbd(false, '/pki'), /credentials are for TLS/],
  ['an export in use', { ...nbd(false, null), exportUsedBy: 'domain a has it' }, /domain a has it/],
] as const satisfies readonly (readonly [string, Partial<MoveFull>, RegExp])[]) {
  test(`${name} is refused`, () => {
    const plan = planMoveFull(request(more));
    assert.ok(isRefusal(plan));
    assert.match(messageOf(plan.refusal), wanted);
  });
}
