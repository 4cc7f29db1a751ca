// Values for tests of the doors: one domain with a mirrored disk, its snapshots, and a move.

import { asItIs } from '../../domain/move-form.js';
import type {
  DiskView,
  DomainSummary,
  ImageView,
  MoveRequest,
  OperationRecordView,
  OperationView,
  ProgressRates,
  SnapshotView,
} from '../../host/ferry-host.js';
import type { MovePlan } from '../../host/move-plan.js';
import { MemoryHost } from './memory-host.js';

export const GiB = 1024n ** 3n;
export const MiB = 1024n ** 2n;

export const vm1: DomainSummary = {
  name: 'vm1',
  uuid: '11111111-2222-4333-8444-555555555555',
  id: 3,
  state: 'running',
  reason: 'booted',
  persistent: true,
  autostart: false,
  disks: ['vda', 'vdb'],
  operations: [7],
  owed: null,
};

export const vm2: DomainSummary = {
  ...vm1,
  name: 'vm2',
  uuid: '21111111-2222-4333-8444-555555555555',
  id: null,
  state: 'shutoff',
  reason: 'shutdown',
  disks: ['vda'],
  operations: [],
  owed: 'the mirror of vda is not attached',
};

export function image(
  path: string,
  role: ImageView['role'],
  more: Partial<ImageView> = {},
): ImageView {
  return {
    path,
    format: 'qcow2',
    index: null,
    role,
    virtualSizeBytes: 10n * GiB,
    actualSizeBytes: 4n * GiB + 100n * MiB,
    problem: null,
    ...more,
  };
}

export const vda: DiskView = {
  target: 'vda',
  device: 'disk',
  readonly: false,
  chain: [
    image('/src/vm1-s1.qcow2', 'live', { index: 3, actualSizeBytes: 1_258_291n }),
    image('/src/vm1.qcow2', 'sealed', { index: 1 }),
  ],
  mirror: {
    state: 'copying',
    problem: null,
    // More than 99 %: what is shown must stay below 100 until QEMU says READY.
    copiedBytes: 10n * GiB - 1n,
    totalBytes: 10n * GiB,
    chain: [
      image('/dst/vm1-s1.qcow2', 'mirror', { index: 4, actualSizeBytes: 196_608n }),
      image('/src/vm1.qcow2', 'sealed', { index: 1 }),
    ],
    owner: { snapshot: 's1', move: null, made: 'ours' },
    wayBack: null,
  },
  former: [
    {
      path: '/old/vm1.qcow2',
      role: 'stale',
      sinceSeconds: 1_767_312_000,
      older: { seconds: 110, writtenBytes: 4n * MiB + 209_716n, isAtLeast: false },
    },
  ],
};

export const vdb: DiskView = {
  target: 'vdb',
  device: 'disk',
  readonly: false,
  chain: [
    image('/src/data.img', 'live', {
      format: 'raw',
      virtualSizeBytes: null,
      actualSizeBytes: null,
      problem: 'permission denied',
    }),
  ],
  mirror: null,
  former: [],
};

export const s1: SnapshotView = {
  name: 's1',
  parent: null,
  current: false,
  state: 'disk-snapshot',
  creationTimeSeconds: 1_767_322_984,
  description: null,
  disks: [{ target: 'vda', source: '/src/vm1-s1.qcow2', mirror: '/dst/vm1-s1.qcow2' }],
};

export const s2: SnapshotView = {
  ...s1,
  name: 's2',
  parent: 's1',
  current: true,
  description: 'before the upgrade',
  disks: [{ target: 'vda', source: '/src/vm1-s2.qcow2', mirror: null }],
};

export const s3: SnapshotView = { ...s2, name: 's3', current: false };

/** What a move is that says nothing but its disk and where it goes. */
export const plainMove: MoveRequest = {
  disks: ['vda'],
  to: '/dst',
  strategy: 'auto',
  tlsCreds: null,
  rotateBytes: 1n << 30n,
  bytesPerSecond: null,
  verify: 'full',
  pivot: { how: 'auto' },
  quiesce: false,
  trim: false,
  keepSourceSeconds: null,
  deleteShared: false,
  undoSeconds: null,
  ...asItIs,
};

/** Nothing in it is a default. */
export const aMove: MoveRequest = {
  disks: ['vda'],
  to: '/dst',
  strategy: 'full',
  tlsCreds: '/etc/pki/nbd',
  rotateBytes: 1n << 28n,
  bytesPerSecond: 1n << 20n,
  verify: 'sample',
  pivot: { how: 'when', lagBytes: 4n << 20n, forMs: 30_000 },
  quiesce: true,
  trim: true,
  keepSourceSeconds: 86_400,
  deleteShared: true,
  overlayDir: '/spare',
  shareBase: true,
  flatten: true,
  format: 'raw',
  clusterSizeBytes: 1n << 20n,
  undoSeconds: 7200,
};

const rates: ProgressRates = {
  copyBytesPerSecond: 100n * MiB,
  mirrorBytesPerSecond: 6n * MiB,
  dirtyBytesPerSecond: 6n * MiB,
  guestBytesPerSecond: 3n * MiB,
  lagBytes: 512n * 1024n,
  latency: {
    before: { p50Ms: 0.3, p99Ms: 2.1, writes: 312 },
    now: { p50Ms: 0.4, p99Ms: 4.54, writes: 1480 },
  },
};

export const move: OperationView = {
  id: 7,
  kind: 'move',
  domain: vm1.uuid,
  domainName: 'vm1',
  status: 'running',
  direction: 'forward',
  reason: null,
  startedAt: '2026-01-02T03:04:05.000Z',
  endedAt: null,
  commitAt: 2,
  steps: [
    { kind: 'create-image', text: 'create /dst/vm1.qcow2, 10 GiB', mark: 'done' },
    { kind: 'mirror', text: 'copy vda to /dst/vm1.qcow2', mark: 'doing' },
    { kind: 'pivot', text: 'switch vda to /dst/vm1.qcow2', mark: 'none' },
  ],
  story: {
    what: 'moves disks to another folder while the guest runs',
    soFar: '1 of 3 steps done',
    said: [],
    now: 'step 2: copy vda to /dst/vm1.qcow2',
    next: 'step 3: switch vda to /dst/vm1.qcow2',
    waitsFor: 'step 2: copy vda to /dst/vm1.qcow2',
    wayBack: 'open until step 2 is done: taking it back removes the files that it made',
    commands: [
      { type: 'ferry ops wait 7', why: 'see how it goes on' },
      { type: 'ferry ops cancel 7', why: 'take it back' },
    ],
  },
  progress: {
    phase: 'copying',
    pivot: 'manual',
    limitBytesPerSecond: null,
    auto: null,
    percent: 45,
    doneBytes: 4n * GiB + 512n * MiB,
    totalBytes: 10n * GiB,
    ready: false,
    ...rates,
    readySeconds: { least: 50.7, most: 62 },
    convergence: { state: 'converges', why: null, ladder: [] },
    disks: [
      {
        target: 'vda',
        phase: 'copying',
        percent: 45,
        doneBytes: 4n * GiB + 512n * MiB,
        totalBytes: 10n * GiB,
        ...rates,
      },
    ],
  },
  source: { keepSeconds: 86_400, keptUntil: null, undoUntil: null, images: [] },
  copies: [
    {
      from: '/src/vm1.qcow2',
      to: '/dst/vm1.qcow2',
      how: null,
      totalBytes: 10n * GiB,
      copiedBytes: 4n * GiB,
      root: null,
      verified: null,
      resumes: [],
    },
  ],
  pauses: [],
};

/** The same move when it is done. */
export const moved: OperationView = {
  ...move,
  status: 'committed',
  endedAt: '2026-01-02T03:09:05.000Z',
  steps: move.steps.map((step) => ({ ...step, mark: 'done' })),
  story: {
    what: move.story.what,
    soFar: '3 of 3 steps done',
    said: [],
    now: null,
    next: null,
    waitsFor: null,
    wayBack: null,
    commands: [],
  },
  progress: null,
  copies: move.copies.map((copy) => ({
    ...copy,
    copiedBytes: 10n * GiB,
    how: 'data',
    root: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    verified: {
      how: 'full',
      readBackBytes: 10n * GiB,
      fromStorageBytes: 10n * GiB,
      repairedBytes: 0n,
      seconds: 61.25,
    },
  })),
  pauses: [
    { what: 'snapshot', ms: 12.4 },
    { what: 'pivot of vda', ms: 35 },
  ],
};

/** What stays of it. */
export const record: OperationRecordView = {
  seconds: 300,
  steps: move.steps.map(({ kind, text }) => ({
    kind,
    text,
    begunAt: null,
    doneAt: '2026-01-02T03:09:05.000Z',
    undoneAt: null,
  })),
  copiedBytes: 4n * GiB,
  events: [],
};

/** A host with all of the above. */
export function sampleHost(): MemoryHost {
  const host = new MemoryHost();
  host.domains.set('vm1', vm1).set('vm2', vm2);
  host.disks = [vda, vdb];
  host.snapshots = [s1, s2, s3];
  host.operationViews.set(7, move);
  host.job = {
    target: 'vda',
    type: 'copy',
    ready: false,
    copiedBytes: 10n * GiB - 1n,
    totalBytes: 10n * GiB,
    bandwidthBytesPerSecond: 0n,
  };
  host.report = {
    time: '2026-01-02T03:04:05.000Z',
    lookedBy: 'ferryd',
    healthy: true,
    findings: [],
    domains: [],
  };
  host.movePlan = plan;
  host.record = record;
  host.garbage = { time: '2026-01-02T03:04:05.000Z', lookedBy: 'ferryd', items: [] };
  host.xml = "<domain type='kvm'>\n  <name>vm1</name>\n</domain>\n";
  return host;
}

export const plan: MovePlan = {
  hash: '0f3a9c41d2be',
  domain: vm1.uuid,
  domainName: 'vm1',
  to: '/dst',
  pivot: 'at 2026-01-03T03:00:00Z',
  strategy: { name: 'mirrored-snapshot', why: 'a crash costs what changed' },
  disks: [
    {
      target: 'vda',
      before: [
        { path: '/src/vm1-s1.qcow2', format: 'qcow2', actualSizeBytes: 3n << 20n },
        { path: '/src/vm1.qcow2', format: 'qcow2', actualSizeBytes: 4n * GiB },
      ],
      after: [
        { path: '/dst/vm1-s1.qcow2', format: 'qcow2', how: 'copied' },
        { path: '/dst/vm1.qcow2', format: 'qcow2', how: 'copied' },
      ],
    },
  ],
  copyBytes: 4n * GiB + (3n << 20n),
  verify: { how: 'full', readBackBytes: 4n * GiB + (3n << 20n) },
  destination: {
    folder: '/dst',
    freeBytes: 100n * GiB,
    spokenForBytes: 10n * GiB,
    afterBytes: 86n * GiB,
  },
  sources: [{ folder: '/src', freeBytes: 2n * GiB, afterBytes: 2n * GiB }],
  rates: {
    readBytesPerSecond: 500n << 20n,
    writeBytesPerSecond: 100n << 20n,
    limitBytesPerSecond: null,
    guestBytesPerSecond: 2n << 20n,
  },
  seconds: { least: 41, most: 128 },
  pauses: [
    { what: 'snapshot', leastMs: 3, mostMs: 8.1 },
    { what: 'pivot', leastMs: 11, mostMs: 11 },
  ],
  risks: ['the mirror may not catch up'],
  stages: [
    { stage: 'until the switch', wayBack: 'the guest is on the source' },
    { stage: 'after the switch', wayBack: 'none' },
  ],
};
