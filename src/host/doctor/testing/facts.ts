// Facts for tests of the doctor: a domain with one disk, and what can have been seen of it.

import type { Image } from '../../../block/layer.js';
import type { Definition } from '../../../domain/definition.js';
import type { Disk, DiskMirror } from '../../../domain/disk.js';
import type { DomainRecord, LiveRecord } from '../../../domain/record.js';
import { operationOf } from '../../../journal/applied.js';
import type { Entry } from '../../../journal/entry.js';
import type { OperationRecord } from '../../../journal/journal.js';
import type { Plan, Step } from '../../../plan/step.js';
import type { DoctorFacts, DomainFacts, ImageFacts, MonitorFacts, QemuFacts } from '../facts.js';

export const uuid = '11111111-2222-4333-8444-555555555555';
export const nowSeconds = 1_767_323_045;
const MiB = 1024n ** 2n;

export const image = (path: string, index: number | null = null): Image => ({
  source: { type: 'file', path },
  format: 'qcow2',
  index,
});

export const base = '/src/vda.qcow2';
export const snap = '/src/vda.s1';
export const twin = '/dst/vda.s1';

/** Active first. */
export function disk(paths: readonly string[], mirror: DiskMirror | null = null): Disk {
  const [top, ...below] = paths.map((path) => image(path));
  return {
    device: 'disk',
    target: 'vda',
    bus: 'virtio',
    source: top?.source ?? null,
    index: null,
    format: 'qcow2',
    driver: { cache: null, io: null, discard: null, detectZeroes: null },
    backing: below,
    mirror,
    readonly: false,
    shareable: false,
    serial: null,
    bootOrder: null,
    snapshot: null,
    address: null,
    alias: 'virtio-disk0',
  };
}

export const mirrorTo = (path: string, ready: DiskMirror['ready']): DiskMirror => ({
  job: 'copy',
  ready,
  image: image(path),
  backing: [image(base)],
  jobId: 'copy-vda-3',
});

/** Only what the doctor looks at. */
const definition = (one: Disk): Definition =>
  ({ uuid, name: 'vm1', disks: [one] }) as unknown as Definition;

export function record(one: Disk, more: Partial<DomainRecord> = {}): DomainRecord {
  return {
    uuid,
    name: 'vm1',
    persistent: definition(one),
    live: null,
    autostart: false,
    snapshots: [],
    currentSnapshot: null,
    lastState: { state: 'shutoff', reason: 'crashed' },
    chains: [],
    owed: [],
    ...more,
  };
}

export function running(one: Disk, more: Partial<LiveRecord> = {}): DomainRecord {
  const live: LiveRecord = {
    id: 3,
    pid: 4242,
    startTicks: 1,
    definition: definition(one),
    state: { state: 'running', reason: 'booted' },
    nextIndex: 9,
    rebooting: false,
    mirrors: [],
    ...more,
  };
  return record({ ...one, mirror: null }, { live });
}

export const answered = (
  paths: readonly string[],
  more: Partial<Extract<MonitorFacts, { readonly state: 'answered' }>> = {},
): MonitorFacts => ({
  state: 'answered',
  runState: 'running',
  disks: [{ device: 'virtio-disk0', images: paths.map((path) => ({ path, format: 'qcow2' })) }],
  alsoWritten: [],
  jobs: [],
  ...more,
});

export const busy: MonitorFacts = {
  state: 'busy',
  problem: 'monitor busy: another client holds it',
};

export const qemu = (monitor: MonitorFacts, inRunDir = true): QemuFacts => ({
  uuid,
  name: 'vm1',
  pid: 4242,
  inRunDir,
  monitor,
});

export const domain = (one: DomainRecord, more: Partial<DomainFacts> = {}): DomainFacts => ({
  record: one,
  qemu: null,
  open: [],
  roles: [],
  older: new Map(),
  ...more,
});

/** Images that are there and whole, each over the next. */
export function chain(...paths: readonly string[]): ImageFacts[] {
  return paths.map((path, i) => seen(path, { names: paths[i + 1] ?? null }));
}

export function seen(path: string, more: Partial<ImageFacts> = {}): ImageFacts {
  return {
    path,
    sizeBytes: 40n * MiB,
    allocatedBytes: 39n * MiB,
    modifiedSeconds: nowSeconds - 60,
    info: {
      path,
      format: 'qcow2',
      virtualSizeBytes: 128n * MiB,
      actualSizeBytes: 39n * MiB,
      clusterSizeBytes: 65_536,
      backing: null,
      special: [],
      snapshots: 0,
    },
    names: null,
    isEmpty: null,
    problem: null,
    holders: [],
    ...more,
  };
}

export const missing = (path: string): ImageFacts =>
  seen(path, { sizeBytes: null, allocatedBytes: null, info: null, problem: 'it is not there' });

export function facts(
  one: DomainFacts | null,
  images: readonly ImageFacts[],
  more: Partial<DoctorFacts> = {},
): DoctorFacts {
  return {
    nowSeconds,
    asked: null,
    lookedBy: 'ferryd',
    daemon: { state: 'answers' },
    journal: { state: 'read', path: '/state/ferry.db' },
    runDir: '/run/ferry',
    stateDir: '/state',
    domains: one === null ? [] : [one],
    running: new Set(),
    orphans: [],
    strangers: [],
    images: new Map(images.map((found) => [found.path, found])),
    xml: [],
    ...more,
  };
}

export const noDaemon = {
  lookedBy: 'ferry',
  daemon: {
    state: 'absent',
    problem: 'ferryd is not running on /run/ferry/ferry.sock',
    holder: null,
  },
} as const satisfies Partial<DoctorFacts>;

const snapshotStep: Step = {
  kind: 'snapshot',
  disks: [
    {
      target: 'vda',
      node: 'ferry-1-format',
      overlay: 'ferry-2-format',
      overlayPath: snap,
      base: { path: base, format: 'qcow2' },
    },
  ],
  reverts: [],
};

const pivotStep: Step = {
  kind: 'pivot',
  disks: [
    {
      target: 'vda',
      jobId: 'copy-vda-3',
      job: 'copy',
      from: 'ferry-2-format',
      to: 'ferry-3-format',
      path: twin,
      swing: null,
      swingBack: null,
      header: null,
      offline: null,
    },
  ],
};

const held = [{ path: base, file: { inode: 1n, sizeBytes: MiB, mtimeNs: 1n } }];
const file = (path: string) => ({ ...image(path), index: null });

type Kind = 'snapshot' | 'reopen' | 'move';

const plans: Readonly<Record<Kind, Pick<Plan, 'operation' | 'steps' | 'offline'>>> = {
  snapshot: { operation: 'snapshot-create', steps: [snapshotStep] },
  reopen: { operation: 'snapshot-delete (reopen-mirror)', steps: [pivotStep] },
  move: {
    operation: 'move',
    steps: [
      { kind: 'copy-image', from: base, to: twin, format: 'qcow2', backing: null, hold: held },
      { kind: 'arrive', images: held, copies: [twin] },
    ],
    offline: { ways: [{ target: 'vda', from: [file(base)], to: [file(twin)] }] },
  },
};

/** Operation 7, open, with this journal. Each kind commits with its last step; `move` is of a domain that is off. */
export function open(kind: Kind, ...entries: readonly Entry[]): OperationRecord {
  const { steps } = plans[kind];
  const plan: Plan = {
    ...plans[kind],
    domain: uuid,
    domainName: 'vm1',
    commitAt: steps.length,
  };
  return operationOf({
    copies: [],
    id: 7,
    plan,
    startedAtMs: 0,
    endedAtMs: null,
    entries: entries.map((entry) => ({ atMs: 0, entry, changes: [] })),
  });
}

export const mirrorRecord = {
  target: 'vda',
  jobId: 'copy-vda-3',
  filter: 'ferry-3-filter',
  made: 'ours',
  snapshot: 's1',
  move: false,
  problem: null,
} as const;
