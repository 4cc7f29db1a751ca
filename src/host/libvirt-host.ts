// What the RPC door needs from a host, in libvirt's nouns. The door knows the wire, the flags, the filters and
// the trees of lists; a host knows domains. Whatever a host throws reaches the client: a FerryError with its own
// code and text, anything else as libvirt's internal error.
//
// Domains are named by `uuid` throughout: the id and the name that a client sends along are what it remembers,
// and both change (spec: an id is new at each start).

import type { BlockJobStatus, BlockJobType, LifecycleChange } from '../domain/events.js';
import type { DomainState } from '../domain/state.js';

export type { BlockJobStatus, BlockJobType, LifecycleChange } from '../domain/events.js';

export type Awaitable<T> = T | Promise<T>;

/** What a client keeps in its hand: virDomain. */
export interface DomainRef {
  readonly name: string;
  /** Canonical, lower case, with hyphens. */
  readonly uuid: string;
  /** -1 while the domain is off. */
  readonly id: number;
}

/** One domain as its host remembers it. Answered from memory: every listing and every state poll asks for it. */
export interface DomainFacts {
  readonly ref: DomainRef;
  readonly state: DomainState;
  readonly persistent: boolean;
  /** Whether the persistent definition differs from what runs: virDomainIsUpdated. */
  readonly updated: boolean;
  readonly autostart: boolean;
  /** `<os><type>`: 'hvm'. */
  readonly osType: string;
  readonly maxMemoryKiB: bigint;
  readonly memoryKiB: bigint;
  readonly vcpus: number;
  readonly maxVcpus: number;
  readonly hasSnapshots: boolean;
  /** Taints and deprecations, for virDomainGetMessages; each a whole sentence. */
  readonly taints: readonly string[];
}

export interface NodeInfo {
  /** CPU architecture, at most 31 characters. */
  readonly model: string;
  readonly memoryKiB: bigint;
  readonly cpus: number;
  readonly mhz: number;
  readonly numaNodes: number;
  readonly socketsPerNode: number;
  readonly coresPerSocket: number;
  readonly threadsPerCore: number;
}

/** Versions as libvirt counts them: major * 1 000 000 + minor * 1 000 + release. */
export interface Versions {
  readonly library: bigint;
  readonly hypervisor: bigint;
}

/** `null`: the client leaves the choice to us. */
export interface EmulatorChoice {
  readonly emulator: string | null;
  readonly arch: string | null;
  readonly machine: string | null;
  readonly virtType: string | null;
}

export interface BlockInfo {
  readonly capacityBytes: bigint;
  readonly allocationBytes: bigint;
  readonly physicalBytes: bigint;
}

export interface BlockStats {
  readonly readRequests: bigint;
  readonly readBytes: bigint;
  readonly readNs: bigint;
  readonly writeRequests: bigint;
  readonly writeBytes: bigint;
  readonly writeNs: bigint;
  readonly flushRequests: bigint;
  readonly flushNs: bigint;
}

/** One disk in virConnectGetAllDomainStats. */
export interface DiskStats {
  readonly target: string;
  readonly path: string | null;
  /** The `index` of the image in the live XML; null when it has none. */
  readonly index: number | null;
  readonly stats: BlockStats;
  readonly info: BlockInfo;
}

export interface XmlOptions {
  readonly inactive: boolean;
  /** Include secrets. The door refuses it on read-only connections. */
  readonly secure: boolean;
  readonly updateCpu: boolean;
  readonly migratable: boolean;
}

export interface StartOptions {
  readonly paused: boolean;
  readonly resetNvram: boolean;
}

export interface CreateXmlOptions extends StartOptions {
  readonly validate: boolean;
}

export interface UndefineOptions {
  readonly managedSave: boolean;
  readonly snapshotsMetadata: boolean;
  readonly nvram: boolean;
  readonly keepNvram: boolean;
  readonly checkpointsMetadata: boolean;
  readonly tpm: boolean;
  readonly keepTpm: boolean;
}

/** `live` and `config` both false: whichever the domain is at the moment. */
export interface Affects {
  readonly live: boolean;
  readonly config: boolean;
}

export type MetadataKind = 'description' | 'title' | 'element';

export interface SnapshotCreateOptions {
  readonly redefine: boolean;
  readonly current: boolean;
  readonly noMetadata: boolean;
  readonly halt: boolean;
  readonly diskOnly: boolean;
  readonly reuseExternal: boolean;
  readonly quiesce: boolean;
  readonly atomic: boolean;
  readonly live: boolean;
  readonly validate: boolean;
}

/** Which of them exclude one another is the host's to say: all doors need the same answer. */
export interface SnapshotDeleteOptions {
  readonly children: boolean;
  readonly metadataOnly: boolean;
  readonly childrenOnly: boolean;
  readonly reopenMirror: boolean;
  readonly removeMirror: boolean;
}

/** A snapshot object; trees, roots, leaves and counts are made of these by the door. */
export interface SnapshotFacts {
  readonly name: string;
  /** `null` for a root. */
  readonly parent: string | null;
  readonly current: boolean;
  /** What the guest was when the snapshot was taken; 'disk-only': its memory was not kept. */
  readonly state: 'active' | 'inactive' | 'disk-only';
  readonly location: 'external' | 'internal';
}

/** virDomainGetBlockJobInfo. `current` equals `end` (and is not 0) exactly when the job is ready. */
export interface BlockJobInfo {
  readonly type: BlockJobType;
  /** 0: no limit. */
  readonly bandwidthBytesPerSecond: bigint;
  readonly current: bigint;
  readonly end: bigint;
}

export interface BlockJobAbortOptions {
  /** Return at once; otherwise the call ends after the job is gone and its events are out. */
  readonly async: boolean;
  readonly pivot: boolean;
}

/**
 * `domain` is what the event shows, so its id is the one at that moment: a destroy gives shutdown/host with the
 * live id, then stopped/destroyed with -1.
 */
export type HostEvent = { readonly domain: DomainRef } & (
  | ({ readonly kind: 'lifecycle' } & LifecycleChange)
  | { readonly kind: 'reboot' }
  | {
      readonly kind: 'io-error';
      readonly path: string;
      readonly alias: string;
      readonly action: 'none' | 'pause' | 'report';
      /** 'enospc' or ''. */
      readonly reason: string;
    }
  | {
      readonly kind: 'block-job';
      /** The disk's source at this moment (after a pivot: the new one); null when it has no local path. */
      readonly path: string | null;
      readonly target: string;
      readonly type: BlockJobType;
      readonly status: BlockJobStatus;
    }
  | { readonly kind: 'metadata'; readonly type: MetadataKind; readonly namespace: string | null }
  | {
      readonly kind: 'block-threshold';
      /** `vda`, or `vda[3]` for an image deeper in the chain. */
      readonly device: string;
      readonly path: string | null;
      readonly thresholdBytes: bigint;
      readonly excessBytes: bigint;
    }
  | {
      /** An event of QEMU's monitor, or one of ours dressed as such (`MIRROR_DROPPED`). */
      readonly kind: 'monitor';
      readonly event: string;
      readonly seconds: bigint;
      readonly micros: number;
      /** JSON of the event's data. */
      readonly details: string | null;
    }
);

export interface NodeVerbs {
  hostname(): Awaitable<string>;
  /** The canonical URI of this host: `qemu:///system`. */
  uri(): Awaitable<string>;
  versions(): Awaitable<Versions>;
  capabilities(): Awaitable<string>;
  domainCapabilities(choice: EmulatorChoice): Awaitable<string>;
  nodeInfo(): Awaitable<NodeInfo>;
  /** The most vCPUs a domain of this type may have; `null`: of the default type. */
  maxVcpus(virtType: string | null): Awaitable<number>;
}

/**
 * Everything that names a domain throws NO_DOMAIN when there is none. What is polled is answered from memory, at once:
 * its verbs give no promise.
 */
export interface DomainVerbs {
  domains(): readonly DomainFacts[];
  domainByUuid(uuid: string): DomainFacts;
  domainByName(name: string): DomainFacts;
  /** Active domains only. */
  domainById(id: number): DomainFacts;
  /** CPU time used since the domain started; 0 when off. */
  cpuTimeNs(uuid: string): bigint;
  domainXml(uuid: string, options: XmlOptions): string;
  domainMetadata(
    uuid: string,
    kind: MetadataKind,
    namespace: string | null,
    affects: Affects,
  ): Awaitable<string>;

  defineDomain(xml: string, options: { readonly validate: boolean }): Awaitable<DomainRef>;
  /** Starts a transient domain. */
  createDomain(xml: string, options: CreateXmlOptions): Awaitable<DomainRef>;
  /** Starts a persistent domain; the answer carries its new id. */
  startDomain(uuid: string, options: StartOptions): Awaitable<DomainRef>;
  undefineDomain(uuid: string, options: UndefineOptions): Awaitable<void>;
  shutdownDomain(uuid: string): Awaitable<void>;
  rebootDomain(uuid: string): Awaitable<void>;
  resetDomain(uuid: string): Awaitable<void>;
  suspendDomain(uuid: string): Awaitable<void>;
  resumeDomain(uuid: string): Awaitable<void>;
  destroyDomain(uuid: string, options: { readonly graceful: boolean }): Awaitable<void>;
  setAutostart(uuid: string, autostart: boolean): Awaitable<void>;
  /** Answers QEMU's reply as text: JSON, or what HMP printed. */
  monitorCommand(
    uuid: string,
    command: string,
    options: { readonly hmp: boolean },
  ): Awaitable<string>;
}

/** `disk` is a target (`vda`) or the path of a disk's source, as the user typed it. */
export interface BlockVerbs {
  blockInfo(uuid: string, disk: string): Awaitable<BlockInfo>;
  /** `disk` '' asks for the sum over all disks. */
  blockStats(uuid: string, disk: string): Awaitable<BlockStats>;
  /** All disks, in the order of the XML; empty when the domain is off. */
  diskStats(uuid: string): Awaitable<readonly DiskStats[]>;
  /** `null`: the disk has no job. */
  blockJobInfo(uuid: string, disk: string): Awaitable<BlockJobInfo | null>;
  blockJobAbort(uuid: string, disk: string, options: BlockJobAbortOptions): Awaitable<void>;
  /** 0: no limit. */
  blockJobSetSpeed(uuid: string, disk: string, bytesPerSecond: bigint): Awaitable<void>;
}

export interface SnapshotVerbs {
  /** All snapshot objects of a domain, parents before their children, otherwise oldest first. */
  snapshots(uuid: string): Awaitable<readonly SnapshotFacts[]>;
  snapshotXml(uuid: string, name: string, options: { readonly secure: boolean }): Awaitable<string>;
  /** Answers the name, which the XML need not give. */
  createSnapshot(uuid: string, xml: string, options: SnapshotCreateOptions): Awaitable<string>;
  deleteSnapshot(uuid: string, name: string, options: SnapshotDeleteOptions): Awaitable<void>;
}

export interface EventVerbs {
  /**
   * Calls `listener` for every event of every domain from now on, in order and before the verb that caused it
   * resolves. The listener does not throw. Returns what ends the subscription.
   */
  subscribe(listener: (event: HostEvent) => void): () => void;
}

/** A host as the RPC door sees it. */
export interface LibvirtHost
  extends NodeVerbs, DomainVerbs, BlockVerbs, SnapshotVerbs, EventVerbs {}
