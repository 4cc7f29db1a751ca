// The verbs that the HTTP API, and through it the `ferry` command, asks of a host. Plain data in and out, JSON-able
// but for bigint (written as decimal strings on the wire). Errors are thrown as `std/errors` has them.

import type { MirrorRecord } from '../domain/record.js';

/** Name, UUID or id of a domain, as a user types it. */
export type DomainName = string;

export interface DomainSummary {
  readonly name: string;
  readonly uuid: string;
  /** Null when shut off. */
  readonly id: number | null;
  readonly state: string;
  readonly reason: string;
  readonly persistent: boolean;
  readonly autostart: boolean;
  readonly disks: readonly string[];
  /** Operations of this domain that have not ended. */
  readonly operations: readonly number[];
  /** Why a start is refused, if it is. */
  readonly owed: string | null;
}

export interface UndefineHow {
  readonly snapshotsMetadata: boolean;
  /** UEFI variables; null: not said. */
  readonly nvram: 'remove' | 'keep' | null;
}

/** What an image is to a disk (law 13). */
export type Role = 'live' | 'sealed' | 'mirror' | 'unfinished' | 'stale';

export interface ImageView {
  readonly path: string;
  readonly format: string;
  readonly index: number | null;
  readonly role: Role;
  /** Null when the image cannot be read; `problem` says why. */
  readonly virtualSizeBytes: bigint | null;
  readonly actualSizeBytes: bigint | null;
  readonly problem: string | null;
}

export interface DiskView {
  readonly target: string;
  readonly device: 'disk' | 'cdrom';
  readonly readonly: boolean;
  /** Active image first. */
  readonly chain: readonly ImageView[];
  readonly mirror: {
    readonly state: 'copying' | 'ready' | 'pivoting' | 'aborting';
    /** Why it stands still, and what to do; null when it does not. The guest runs on. */
    readonly problem: string | null;
    readonly copiedBytes: bigint;
    readonly totalBytes: bigint;
    readonly chain: readonly ImageView[];
    readonly owner: Pick<MirrorRecord, 'snapshot' | 'made'> & { readonly move: number | null };
  } | null;
  /** Images that were live once and are not any more, with the time since. */
  readonly former: readonly {
    readonly path: string;
    readonly role: 'stale' | 'unfinished';
    readonly sinceSeconds: number;
  }[];
}

export interface SnapshotView {
  readonly name: string;
  readonly parent: string | null;
  readonly current: boolean;
  readonly state: string;
  readonly creationTimeSeconds: number;
  readonly description: string | null;
  readonly disks: readonly {
    readonly target: string;
    readonly source: string | null;
    readonly mirror: string | null;
  }[];
}

export interface StepView {
  readonly kind: string;
  /** One line in words: what it does to what. */
  readonly text: string;
  readonly mark: 'none' | 'doing' | 'done' | 'undone';
}

export interface OperationView {
  readonly id: number;
  readonly kind: string;
  readonly domain: string;
  readonly domainName: string;
  readonly status: 'running' | 'committed' | 'rolled-back' | 'attention';
  readonly reason: string | null;
  readonly startedAt: string;
  readonly endedAt: string | null;
  readonly commitAt: number;
  readonly steps: readonly StepView[];
  readonly progress: OperationProgress | null;
  /** Guest pauses measured so far, in ms: of the snapshot and of each pivot. */
  readonly pauses: readonly { readonly what: string; readonly ms: number }[];
}

/** Where a long operation is. `percent` never says 100 before READY (law 12). */
export interface OperationProgress {
  readonly phase: string;
  readonly percent: number;
  readonly doneBytes: bigint;
  readonly totalBytes: bigint;
  readonly ready: boolean;
  readonly disks: readonly {
    readonly target: string;
    readonly phase: string;
    readonly doneBytes: bigint;
    readonly totalBytes: bigint;
  }[];
}

export interface MoveRequest {
  readonly disks: readonly string[];
  /** Directory on the other storage; file names are kept. */
  readonly to: string;
}

/** An event as the stream tells it; `seq` counts up, so that a reader can go on after a break. */
export interface StreamedEvent {
  readonly seq: number;
  readonly time: string;
  readonly domain: string | null;
  readonly domainName: string | null;
  readonly event: Readonly<Record<string, unknown>> & { readonly type: string };
}

export interface SnapshotRequestFlags {
  readonly diskOnly: boolean;
  readonly noMetadata: boolean;
  readonly reuseExternal: boolean;
  readonly atomic: boolean;
}

export type SnapshotDeleteMode = 'merge' | 'metadata' | 'reopen-mirror' | 'remove-mirror';

export interface BlockJobView {
  readonly target: string;
  readonly type: string;
  readonly ready: boolean;
  readonly copiedBytes: bigint;
  readonly totalBytes: bigint;
  readonly bandwidthBytesPerSecond: bigint;
}

export interface FerryHost {
  version(): { readonly blockferry: string; readonly qemu: string; readonly hostname: string };
  listDomains(): readonly DomainSummary[];
  showDomain(name: DomainName): DomainSummary;
  define(xml: string): Promise<DomainSummary>;
  /** Starts a transient domain. */
  createXml(xml: string, options: { readonly paused: boolean }): Promise<DomainSummary>;
  start(name: DomainName, options: { readonly paused: boolean }): Promise<DomainSummary>;
  shutdown(name: DomainName): Promise<void>;
  destroy(name: DomainName): Promise<void>;
  undefine(name: DomainName, how: UndefineHow): Promise<void>;
  dumpXml(name: DomainName, options: { readonly inactive: boolean }): string;
  chain(name: DomainName): Promise<readonly DiskView[]>;
  createSnapshot(name: DomainName, xml: string, flags: SnapshotRequestFlags): Promise<SnapshotView>;
  listSnapshots(name: DomainName): readonly SnapshotView[];
  deleteSnapshot(name: DomainName, snapshot: string, mode: SnapshotDeleteMode): Promise<void>;
  /** Null: no job on that disk. */
  blockJob(name: DomainName, disk: string): Promise<BlockJobView | null>;
  endBlockJob(name: DomainName, disk: string, how: 'abort' | 'pivot'): Promise<void>;
  /** Starts to move disks; resolves as soon as the operation is journaled. */
  startMove(name: DomainName, request: MoveRequest): Promise<OperationView>;
  operations(filter: {
    readonly domain: DomainName | null;
    readonly all: boolean;
  }): readonly OperationView[];
  operation(id: number): OperationView;
  /** Resolves when the operation has ended or needs a person; rejects with its error when it was rolled back. */
  waitOperation(id: number, signal: AbortSignal): Promise<OperationView>;
  /** Stops an operation before its commit step; what it did is undone. */
  cancelOperation(id: number): Promise<void>;
  /** What is kept after `afterSeq` is given to the listener before the call returns; null: only what happens from now on. */
  events(
    afterSeq: number | null,
    listener: (event: StreamedEvent) => void,
  ): { readonly unsubscribe: () => void };
}
