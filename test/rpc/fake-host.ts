// A LibvirtHost that lives in memory: for the tests of the RPC door, and of whatever wants to talk to one.
// It has manners (an off domain cannot be suspended, a missing one is not found) but no disks.

import { NotFoundError, QemuError, RequestError, StateError } from '../../src/std/errors.js';
import type { DomainState } from '../../src/domain/state.js';
import type {
  BlockInfo,
  BlockJobAbortOptions,
  BlockJobInfo,
  BlockStats,
  CreateXmlOptions,
  DiskStats,
  DomainFacts,
  DomainRef,
  HostEvent,
  LibvirtHost,
  LifecycleChange,
  MetadataKind,
  NodeInfo,
  SnapshotCreateOptions,
  SnapshotDeleteOptions,
  SnapshotFacts,
  StartOptions,
  UndefineOptions,
  Versions,
  XmlOptions,
} from '../../src/host/libvirt-host.js';

export interface FakeDisk {
  readonly target: string;
  readonly path: string;
  job: BlockJobInfo | null;
}

export interface FakeDomain {
  readonly name: string;
  readonly uuid: string;
  id: number;
  state: DomainState;
  persistent: boolean;
  autostart: boolean;
  description: string | null;
  disks: FakeDisk[];
  snapshots: SnapshotFacts[];
}

export interface FakeCall {
  readonly verb: string;
  readonly args: readonly unknown[];
}

const running: DomainState = { state: 'running', reason: 'booted' };
const paused: DomainState = { state: 'paused', reason: 'user' };
const destroyed: DomainState = { state: 'shutoff', reason: 'destroyed' };

const stats: BlockStats = {
  readRequests: 7n,
  readBytes: 3584n,
  readNs: 49_063n,
  writeRequests: 5n,
  writeBytes: 20_480n,
  writeNs: 12_345n,
  flushRequests: 2n,
  flushNs: 678n,
};

const info: BlockInfo = {
  capacityBytes: 67_108_864n,
  allocationBytes: 200_704n,
  physicalBytes: 196_624n,
};

export const fakeUuid = (number: number): string =>
  `11111111-2222-3333-4444-${number.toString(16).padStart(12, '0')}`;

export function fakeDomain(number: number, changes: Partial<FakeDomain> = {}): FakeDomain {
  const name = `vm${number}`;
  return {
    name,
    uuid: fakeUuid(number),
    id: number,
    state: running,
    persistent: true,
    autostart: false,
    description: null,
    disks: ['vda', 'vdb'].map((target) => ({
      target,
      path: `/images/${name}-${target}.qcow2`,
      job: null,
    })),
    snapshots: [],
    ...changes,
  };
}

export class FakeHost implements LibvirtHost {
  readonly domainsByUuid = new Map<string, FakeDomain>();
  /** Every verb that changes something, in order. */
  readonly calls: FakeCall[] = [];
  /** How many subscriptions are open. */
  get subscribers(): number {
    return this.listeners.size;
  }
  private readonly listeners = new Set<(event: HostEvent) => void>();
  private nextId = 100;

  constructor(...domains: readonly FakeDomain[]) {
    for (const domain of domains) this.domainsByUuid.set(domain.uuid, domain);
  }

  emit(event: HostEvent): void {
    for (const listener of this.listeners) listener(event);
  }

  subscribe(listener: (event: HostEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  hostname(): string {
    return 'fake.example';
  }

  uri(): string {
    return 'qemu:///system';
  }

  versions(): Versions {
    return { library: 9_000_000n, hypervisor: 7_002_022n };
  }

  capabilities(): string {
    return '<capabilities><host><cpu><arch>x86_64</arch></cpu></host></capabilities>';
  }

  domainCapabilities(): string {
    return '<domainCapabilities><domain>kvm</domain></domainCapabilities>';
  }

  nodeInfo(): NodeInfo {
    return {
      model: 'x86_64',
      memoryKiB: 8_589_934_592n, // more than 32 bits of KiB
      cpus: 2,
      mhz: 2596,
      numaNodes: 1,
      socketsPerNode: 1,
      coresPerSocket: 2,
      threadsPerCore: 1,
    };
  }

  maxVcpus(): number {
    return 255;
  }

  domains(): readonly DomainFacts[] {
    return [...this.domainsByUuid.values()].map(factsOf);
  }

  domainByUuid(uuid: string): DomainFacts {
    return factsOf(this.find(uuid));
  }

  domainByName(name: string): DomainFacts {
    const found = this.domains().find(({ ref }) => ref.name === name);
    if (found !== undefined) return found;
    throw new NotFoundError('NO_DOMAIN', `no domain with matching name '${name}'`);
  }

  domainById(id: number): DomainFacts {
    const found = this.domains().find(({ ref }) => ref.id === id && id !== -1);
    if (found !== undefined) return found;
    throw new NotFoundError('NO_DOMAIN', `no domain with matching id ${id}`);
  }

  cpuTimeNs(uuid: string): bigint {
    return this.find(uuid).id === -1 ? 0n : 390_000_000n;
  }

  domainXml(uuid: string, options: XmlOptions): string {
    const { name, disks, id } = this.find(uuid);
    const shown = options.inactive || id === -1 ? '' : ` id='${id}'`;
    const devices = disks.map(
      ({ target, path }) =>
        `    <disk type='file' device='disk'>\n      <source file='${path}'/>\n` +
        `      <target dev='${target}' bus='virtio'/>\n    </disk>\n`,
    );
    return (
      `<domain type='kvm'${shown}>\n  <name>${name}</name>\n  <uuid>${uuid}</uuid>\n` +
      `  <devices>\n${devices.join('')}  </devices>\n</domain>\n`
    );
  }

  domainMetadata(uuid: string, kind: MetadataKind): string {
    const { description } = this.find(uuid);
    if (kind === 'description' && description !== null) return description;
    throw new NotFoundError('NO_DOMAIN_METADATA', 'Requested metadata element is not present', {
      from: 'domain',
    });
  }

  defineDomain(xml: string, options: { readonly validate: boolean }): DomainRef {
    this.record('defineDomain', xml, options);
    const domain = this.add(xml, { id: -1, state: destroyed, persistent: true });
    this.tell(domain, { event: 'defined', detail: 'added' });
    return refOf(domain);
  }

  createDomain(xml: string, options: CreateXmlOptions): DomainRef {
    this.record('createDomain', xml, options);
    const domain = this.add(xml, { id: -1, state: destroyed, persistent: false });
    this.boot(domain, options);
    return refOf(domain);
  }

  startDomain(uuid: string, options: StartOptions): DomainRef {
    this.record('startDomain', uuid, options);
    const domain = this.find(uuid);
    if (domain.id !== -1) throw new StateError('OPERATION_INVALID', 'domain is already running');
    this.boot(domain, options);
    return refOf(domain);
  }

  undefineDomain(uuid: string, options: UndefineOptions): void {
    this.record('undefineDomain', uuid, options);
    const domain = this.find(uuid);
    domain.persistent = false;
    if (domain.id === -1) this.domainsByUuid.delete(uuid);
    this.tell(domain, { event: 'undefined', detail: 'removed' });
  }

  shutdownDomain(uuid: string): void {
    this.record('shutdownDomain', uuid);
    this.findRunning(uuid);
  }

  rebootDomain(uuid: string): void {
    this.record('rebootDomain', uuid);
    this.emit({ kind: 'reboot', domain: refOf(this.findRunning(uuid)) });
  }

  resetDomain(uuid: string): void {
    this.record('resetDomain', uuid);
    this.findRunning(uuid);
  }

  suspendDomain(uuid: string): void {
    this.record('suspendDomain', uuid);
    const domain = this.findRunning(uuid);
    domain.state = paused;
    this.tell(domain, { event: 'suspended', detail: 'paused' });
  }

  resumeDomain(uuid: string): void {
    this.record('resumeDomain', uuid);
    const domain = this.findRunning(uuid);
    domain.state = { state: 'running', reason: 'unpaused' };
    this.tell(domain, { event: 'resumed', detail: 'unpaused' });
  }

  destroyDomain(uuid: string, options: { readonly graceful: boolean }): void {
    this.record('destroyDomain', uuid, options);
    const domain = this.findRunning(uuid);
    this.tell(domain, { event: 'shutdown', detail: 'host' });
    domain.id = -1;
    domain.state = destroyed;
    if (!domain.persistent) this.domainsByUuid.delete(uuid);
    this.tell(domain, { event: 'stopped', detail: 'destroyed' });
  }

  setAutostart(uuid: string, autostart: boolean): void {
    this.record('setAutostart', uuid, autostart);
    this.find(uuid).autostart = autostart;
  }

  monitorCommand(uuid: string, command: string, options: { readonly hmp: boolean }): string {
    this.record('monitorCommand', uuid, command, options);
    this.findRunning(uuid);
    return options.hmp ? `hmp: ${command}\r\n` : '{"return":{},"id":"fake"}';
  }

  blockInfo(uuid: string, disk: string): BlockInfo {
    this.findDisk(uuid, disk);
    return info;
  }

  blockStats(uuid: string, disk: string): BlockStats {
    this.findRunning(uuid);
    if (disk !== '') this.findDisk(uuid, disk);
    return stats;
  }

  diskStats(uuid: string): readonly DiskStats[] {
    const { id, disks } = this.find(uuid);
    if (id === -1) return [];
    return disks.map(({ target, path }, at) => ({ target, path, index: at + 1, stats, info }));
  }

  blockJobInfo(uuid: string, disk: string): BlockJobInfo | null {
    return this.findDisk(uuid, disk).job;
  }

  blockJobAbort(uuid: string, disk: string, options: BlockJobAbortOptions): void {
    this.record('blockJobAbort', uuid, disk, options);
    const found = this.findDisk(uuid, disk);
    const { job } = found;
    if (job === null) {
      const message = `disk ${disk} does not have an active block job`;
      throw new RequestError('INVALID_ARG', message);
    }
    if (options.pivot && job.current < job.end) {
      const message = `block job '${found.target}' not ready for pivot yet`;
      throw new StateError('BLOCK_COPY_ACTIVE', message);
    }
    found.job = null;
    this.emit({
      kind: 'block-job',
      domain: refOf(this.find(uuid)),
      path: found.path,
      target: found.target,
      type: job.type,
      status: options.pivot ? 'completed' : 'canceled',
    });
  }

  blockJobSetSpeed(uuid: string, disk: string, bytesPerSecond: bigint): void {
    this.record('blockJobSetSpeed', uuid, disk, bytesPerSecond);
    const found = this.findDisk(uuid, disk);
    if (found.job === null) {
      throw new RequestError('INVALID_ARG', `disk ${disk} does not have an active block job`);
    }
    found.job = { ...found.job, bandwidthBytesPerSecond: bytesPerSecond };
  }

  snapshots(uuid: string): readonly SnapshotFacts[] {
    return this.find(uuid).snapshots;
  }

  snapshotXml(uuid: string, name: string): string {
    const domain = this.find(uuid);
    const { parent, state } = findSnapshot(domain, name);
    const above = parent === null ? '' : `  <parent>\n    <name>${parent}</name>\n  </parent>\n`;
    return (
      `<domainsnapshot>\n  <name>${name}</name>\n  <state>${state}</state>\n${above}` +
      `  <creationTime>1700000000</creationTime>\n` +
      `  <disks>\n    <disk name='vda' snapshot='external' type='file'/>\n  </disks>\n</domainsnapshot>\n`
    );
  }

  createSnapshot(uuid: string, xml: string, options: SnapshotCreateOptions): string {
    this.record('createSnapshot', uuid, xml, options);
    const domain = this.find(uuid);
    const name = /<name>(.*?)<\/name>/.exec(xml)?.[1] ?? `snap-${domain.snapshots.length}`;
    const parent = domain.snapshots.find(({ current }) => current)?.name ?? null;
    const others = domain.snapshots.map((facts) => ({ ...facts, current: false }));
    const added = {
      name,
      parent,
      current: true,
      state: 'disk-only',
      location: 'external',
    } as const;
    domain.snapshots = [...others, added];
    return name;
  }

  deleteSnapshot(uuid: string, name: string, options: SnapshotDeleteOptions): void {
    this.record('deleteSnapshot', uuid, name, options);
    const domain = this.find(uuid);
    findSnapshot(domain, name);
    domain.snapshots = domain.snapshots.filter((facts) => facts.name !== name);
  }

  private record(verb: string, ...args: readonly unknown[]): void {
    this.calls.push({ verb, args });
  }

  private find(uuid: string): FakeDomain {
    const found = this.domainsByUuid.get(uuid);
    if (found !== undefined) return found;
    throw new NotFoundError('NO_DOMAIN', `no domain with matching uuid '${uuid}'`);
  }

  private findRunning(uuid: string): FakeDomain {
    const domain = this.find(uuid);
    if (domain.id === -1) throw new StateError('OPERATION_INVALID', 'domain is not running');
    return domain;
  }

  private findDisk(uuid: string, disk: string): FakeDisk {
    const found = this.find(uuid).disks.find(
      ({ target, path }) => target === disk || path === disk,
    );
    if (found !== undefined) return found;
    throw new RequestError('INVALID_ARG', `disk '${disk}' not found in domain`);
  }

  private add(xml: string, changes: Partial<FakeDomain>): FakeDomain {
    const name = /<name>(.*?)<\/name>/.exec(xml)?.[1];
    if (name === undefined) throw new RequestError('NO_NAME', '', { from: 'domain' });
    const number = this.nextId++;
    const domain = { ...fakeDomain(number, changes), name };
    this.domainsByUuid.set(domain.uuid, domain);
    return domain;
  }

  private boot(domain: FakeDomain, options: StartOptions): void {
    if (domain.name === 'broken') throw new QemuError('cannot start');
    domain.id = this.nextId++;
    domain.state = options.paused ? paused : running;
    this.tell(domain, { event: 'resumed', detail: 'unpaused' });
    this.tell(domain, { event: 'started', detail: 'booted' });
  }

  private tell(domain: FakeDomain, change: LifecycleChange): void {
    this.emit({ kind: 'lifecycle', domain: refOf(domain), ...change });
  }
}

export const refOf = ({ name, uuid, id }: FakeDomain): DomainRef => ({ name, uuid, id });

function factsOf(domain: FakeDomain): DomainFacts {
  return {
    ref: refOf(domain),
    state: domain.state,
    persistent: domain.persistent,
    updated: false,
    autostart: domain.autostart,
    osType: 'hvm',
    maxMemoryKiB: 65_536n,
    memoryKiB: 65_536n,
    vcpus: 1,
    maxVcpus: 2,
    hasSnapshots: domain.snapshots.length > 0,
    taints: [],
  };
}

function findSnapshot(domain: FakeDomain, name: string): SnapshotFacts {
  const found = domain.snapshots.find((facts) => facts.name === name);
  if (found !== undefined) return found;
  throw new NotFoundError('NO_DOMAIN_SNAPSHOT', `no domain snapshot with matching name '${name}'`);
}

/** vm1 runs, has a tree of snapshots and a ready copy of vda; vm2 is off. */
export function twoDomains(): FakeHost {
  const snap = (name: string, parent: string | null, current = false): SnapshotFacts => ({
    name,
    parent,
    current,
    state: 'disk-only',
    location: 'external',
  });
  const vm1 = fakeDomain(1, {
    description: 'the first',
    snapshots: [snap('s1', null), snap('s2', 's1'), snap('s3', 's2', true), snap('s4', 's1')],
  });
  const [vda] = vm1.disks;
  if (vda !== undefined) {
    const done = { current: 67_108_864n, end: 67_108_864n };
    vda.job = { type: 'copy', bandwidthBytesPerSecond: 1_500_000n, ...done };
  }
  return new FakeHost(vm1, fakeDomain(2, { id: -1, state: destroyed }));
}
