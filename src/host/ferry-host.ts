// The verbs that the HTTP API, and through it the `ferry` command, asks of a host. Plain data in and out, JSON-able
// but for bigint (written as decimal strings on the wire). Errors are thrown as `std/errors` has them.

import type { VerifyMode } from '../block/copy.js';
import type { MoveForm } from '../domain/move-form.js';
import type { MoveStrategy } from '../block/destination.js';
import type { MirrorRecord } from '../domain/record.js';
import type { Older } from '../domain/source-fate.js';
import type { DoctorReport } from './doctor/types.js';
import type { GcRemoved, GcReport } from './gc/types.js';
import type { PivotWhen } from '../domain/pivot-when.js';
import type { MovePlan } from './move-plan-view.js';

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
  /** What of its mirrors is to be taken up again, in words. */
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
    /** It keeps the way back of a move open: of which, and until when. Null: it does not. */
    readonly wayBack: { readonly operation: number; readonly until: string } | null;
  } | null;
  /** Images that were live once and are not any more, with the time since. */
  readonly former: readonly {
    readonly path: string;
    readonly role: 'stale' | 'unfinished' | 'sealed';
    readonly sinceSeconds: number;
    /** How much older than the live image; null unless it is stale. */
    readonly older: Older | null;
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

/**
 * What an operation can be in. `running`: a daemon is at it, or goes on with it when it starts. `waiting`: for the next
 * start of its domain. `attention`: for a person. The other two are ends.
 */
export const operationStatuses = [
  'running',
  'waiting',
  'attention',
  'committed',
  'rolled-back',
] as const;
export type OperationStatus = (typeof operationStatuses)[number];

/** A command that a person may type, and what it does. */
export interface CommandHint {
  readonly type: string;
  readonly why: string;
}

/** An operation in words, for a person who did not begin it. */
export interface OperationStory {
  /** What it is for. */
  readonly what: string;
  readonly soFar: string;
  /** What persons said to it (`ferry ops resolve`), oldest first. */
  readonly said: readonly { readonly time: string; readonly by: string; readonly text: string }[];
  /** The step that it is at; null when it has ended. */
  readonly now: string | null;
  readonly next: string | null;
  /** What has to happen for it to go on; null when it has ended. */
  readonly waitsFor: string | null;
  /** How it is taken back, or why it cannot be; null when it has ended. */
  readonly wayBack: string | null;
  readonly commands: readonly CommandHint[];
}

/** What a person says of an operation that waits for one. */
export interface OperationAnswer {
  readonly direction: 'forward' | 'back';
  /** Of the step that the world cannot tell; null: ask the world once more. */
  readonly was: 'done' | 'absent' | null;
  readonly by: string;
}

export interface OperationView {
  readonly id: number;
  readonly kind: string;
  readonly domain: string;
  readonly domainName: string;
  readonly status: OperationStatus;
  /** `back`: it is being undone, or was. */
  readonly direction: 'forward' | 'back';
  readonly reason: string | null;
  readonly startedAt: string;
  readonly endedAt: string | null;
  readonly commitAt: number;
  readonly steps: readonly StepView[];
  readonly story: OperationStory;
  readonly progress: OperationProgress | null;
  /** Of a move, and of what deleted the source of one; null: of anything else. */
  readonly source: SourceView | null;
  /** Images that it copies, as far as they were begun. */
  readonly copies: readonly CopyView[];
  /** Guest pauses measured so far, in ms: of the snapshot and of each pivot. */
  readonly pauses: readonly { readonly what: string; readonly ms: number }[];
}

/** What becomes of the images that a move leaves, and what became of them. */
export interface SourceView {
  /** Seconds after the switch until which they are kept, as planned; 0: until the move has ended; null: until somebody removes them. */
  readonly keepSeconds: number | null;
  /** When they are deleted, as far as it is safe; null: not by themselves, or the disks have not switched yet. */
  readonly keptUntil: string | null;
  /** Until when its way back is open (`ferry undo`); null: it is not. */
  readonly undoUntil: string | null;
  /** None before the switch, and none that somebody removed. */
  readonly images: readonly {
    readonly path: string;
    readonly state: 'kept' | 'deleted';
    /** Why it was not deleted when its time had come; null: nobody tried, or it was. */
    readonly why: string | null;
    /** Null when it is deleted. */
    readonly older: Older | null;
  }[];
}

/** The copy of one frozen image. */
export interface CopyView {
  readonly from: string;
  readonly to: string;
  /** Null: it is not whole yet. `reflink`: the file system shares the blocks, so there is nothing to compare. */
  readonly how: 'data' | 'reflink' | 'convert' | null;
  /** How much data the source holds. */
  readonly totalBytes: bigint;
  /** What of it is written down as copied; 0 for a reflink. */
  readonly copiedBytes: bigint;
  /** SHA-256 over the hashes of all its pieces; null: not whole, or never read. */
  readonly root: string | null;
  /** Null: nothing to compare, not that far yet, or made by a ferryd that did not verify. */
  readonly verified: {
    readonly how: VerifyMode;
    readonly readBackBytes: bigint;
    /** Of those: what the storage itself gave; the rest may have come from the page cache. */
    readonly fromStorageBytes: bigint;
    /** What was found different and was right after it was copied a second time. */
    readonly repairedBytes: bigint;
    readonly seconds: number;
  } | null;
  /** Daemons that went on with it. */
  readonly resumes: readonly {
    readonly time: string;
    readonly keptBytes: bigint;
    readonly brokenBytes: bigint;
  }[];
}

/** When a step was begun, done and undone; null: it was not, or that is not written down of its kind. */
export interface StepTimes {
  readonly kind: string;
  readonly text: string;
  readonly begunAt: string | null;
  readonly doneAt: string | null;
  readonly undoneAt: string | null;
}

/** What stays of an operation. */
export interface OperationRecordView {
  /** From its first entry to its last; null while it is open. */
  readonly seconds: number | null;
  /** In the order of `OperationView.steps`. */
  readonly steps: readonly StepTimes[];
  readonly copiedBytes: bigint;
  /** What was told of its domain from its beginning to its end, as far as that is kept. */
  readonly events: readonly StreamedEvent[];
}

/** What the guest's writes took within some time: half of them, and 99 of 100, were quicker. */
export interface LatencyView {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly writes: number;
}

/** What a running move does in a second, by its last ten; null: not seen, or nothing to see. */
export interface ProgressRates {
  /** Frozen images, copied. */
  readonly copyBytesPerSecond: bigint | null;
  /** What mirrors carry over, after the switch merges. */
  readonly mirrorBytesPerSecond: bigint | null;
  /** What becomes different from the mirrors: whole clusters of their bitmaps. */
  readonly dirtyBytesPerSecond: bigint | null;
  /** What the guest writes. */
  readonly guestBytesPerSecond: bigint | null;
  /** What the mirrors are behind the guest. */
  readonly lagBytes: bigint | null;
  /** Of the guest's writes: before the move began, and of the last five seconds. */
  readonly latency: { readonly before: LatencyView | null; readonly now: LatencyView | null };
}

/** `percent` never says 100 before READY (law 12). */
export interface DiskProgress extends ProgressRates {
  readonly target: string;
  readonly phase: string;
  readonly percent: number;
  readonly doneBytes: bigint;
  readonly totalBytes: bigint;
}

/** Where a long operation is; rates are of all its disks together. `percent` never says 100 before READY (law 12). */
export interface OperationProgress extends ProgressRates {
  readonly phase: string;
  /** What it waits for, once it is in step: `auto` (nothing), `manual`, `at TIME`, `when LAG`; `now` once somebody said so. */
  readonly pivot: string;
  /** What all its copies together may read in a second; null: no limit. */
  readonly limitBytesPerSecond: bigint | null;
  /** The limit moves by itself; `latencyMs` null: its bound is still being measured. */
  readonly auto: { readonly latencyMs: number | null } | null;
  readonly percent: number;
  readonly doneBytes: bigint;
  readonly totalBytes: bigint;
  /** QEMU says that it is in step, or it has switched. */
  readonly ready: boolean;
  /** Until READY; null: it cannot be told. `most` null: it may be any time. */
  readonly readySeconds: { readonly least: number; readonly most: number | null } | null;
  readonly convergence: {
    readonly state: 'converges' | 'diverges' | 'unknown';
    readonly why: string | null;
    /** What may be typed then. */
    readonly ladder: readonly CommandHint[];
  };
  readonly disks: readonly DiskProgress[];
}

/** What is to hold for the copies of a move from now on; what is not named stays as it is. */
export interface PaceChange {
  /** Null: no limit. */
  readonly limitBytesPerSecond?: bigint | null | undefined;
  readonly isPaused?: boolean | undefined;
  /** The limit moves by itself, so that the p99 of the guest's writes keeps within `latencyMs`; null: within the default. */
  readonly auto?: { readonly latencyMs: number | null } | undefined;
}

/** 1 GiB: what a death of QEMU costs a move at most, if nobody says otherwise. */
export const defaultRotateBytes = 1n << 30n;

export interface MoveRequest extends MoveForm {
  readonly disks: readonly string[];
  /**
   * Directory on the other storage, where file names are kept; or one disk's: the path of its top image there (where nothing
   * is yet, the suffix of an image tells a file), or a place that is no file: `block:/dev/…`, `nbd://HOST:PORT/EXPORT`,
   * `nbd+unix:///EXPORT?socket=PATH`, with TLS `nbds://…`.
   */
  readonly to: string;
  readonly strategy: MoveStrategy;
  /** Folder of x509 credentials on ferryd's host, for `nbds://`; null: without TLS. */
  readonly tlsCreds: string | null;
  /** Size of the live layer above which an epoch goes on top of it, so that a death costs less than that; null: never. */
  readonly rotateBytes: bigint | null;
  /** What the copies of its frozen images may read in a second, together; null: no limit. */
  readonly bytesPerSecond: bigint | null;
  /** How much of each copy is read back at the destination and compared before the disks switch. */
  readonly verify: VerifyMode;
  /** When it switches, once it is in step. */
  readonly pivot: PivotWhen;
  /** Its agent freezes the file systems of the guest around the switch. */
  readonly quiesce: boolean;
  /** Its agent discards, once all is settled, what the file systems of the guest do not use. */
  readonly trim: boolean;
  /**
   * How long after the switch the source is kept, in seconds; 0: until the move has ended. Then it is deleted, as far as it
   * is proven to be elsewhere and unused. Null: it is kept until somebody removes it.
   */
  readonly keepSourceSeconds: number | null;
  /** The layers below the former top layer are deleted with it, where nobody else stands on them. */
  readonly deleteShared: boolean;
  /** How long after the switch a mirror keeps the old side exact, in seconds, so that `undo` switches back; null: not at all. */
  readonly undoSeconds: number | null;
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
  /** @throws 55 with the ways out when a mirror cannot be taken up again, unless `mirrorLater`. */
  start(
    name: DomainName,
    options: { readonly paused: boolean; readonly mirrorLater: boolean },
  ): Promise<DomainSummary>;
  /**
   * Stops a domain so that its mirrors end with both sides equal: asks the guest to power off and, when it has not
   * within `timeoutSeconds`, stops its CPUs and ends it.
   */
  seal(name: DomainName, options: { readonly timeoutSeconds: number }): Promise<DomainSummary>;
  shutdown(name: DomainName): Promise<void>;
  destroy(name: DomainName): Promise<void>;
  undefine(name: DomainName, how: UndefineHow): Promise<void>;
  dumpXml(name: DomainName, options: { readonly inactive: boolean }): string;
  chain(name: DomainName): Promise<readonly DiskView[]>;
  /** Which image of each disk is live and why, what is stale, what waits for whom. Null: all domains. */
  doctor(name: DomainName | null): Promise<DoctorReport>;
  /** What we left anywhere, with the proof that it can go. */
  gcList(): Promise<GcReport>;
  /** Removes exactly these, or all that needs no naming (null); refuses what is not proven, and then removes nothing. */
  gcRemove(paths: readonly string[] | null): Promise<GcRemoved>;
  createSnapshot(name: DomainName, xml: string, flags: SnapshotRequestFlags): Promise<SnapshotView>;
  listSnapshots(name: DomainName): readonly SnapshotView[];
  deleteSnapshot(name: DomainName, snapshot: string, mode: SnapshotDeleteMode): Promise<void>;
  /** Null: no job on that disk. */
  blockJob(name: DomainName, disk: string): Promise<BlockJobView | null>;
  endBlockJob(name: DomainName, disk: string, how: 'abort' | 'pivot'): Promise<void>;
  /** Starts to move disks; resolves as soon as the operation is journaled. */
  startMove(name: DomainName, request: MoveRequest): Promise<OperationView>;
  /** What a move would do and cost; refuses what `startMove` would, and a move that there is no room for until its end. */
  planMove(name: DomainName, request: MoveRequest): Promise<MovePlan>;
  /** One that was made before and is kept. */
  plan(hash: string): MovePlan;
  /** Starts what was planned; refuses when the world is not what the plan saw, and says what changed. */
  applyPlan(hash: string): Promise<OperationView>;
  operations(filter: {
    readonly domain: DomainName | null;
    readonly all: boolean;
  }): readonly OperationView[];
  operation(id: number): OperationView;
  /** The same, after QEMU was asked how much older than the live image the source is by now. */
  showOperation(id: number): Promise<OperationView>;
  /** What stays of it: times, copies with their hashes, events. */
  operationRecord(id: number): Promise<OperationRecordView>;
  /** Resolves when the operation has ended or needs a person; rejects with its error when it was rolled back. */
  waitOperation(id: number, signal: AbortSignal): Promise<OperationView>;
  /** Slows the copies of a move down, lets them stand still, or go again. Survives the daemon. */
  paceOperation(id: number, change: PaceChange): Promise<void>;
  /** A move switches as soon as it is in step, whatever it was to wait for. Survives the daemon. */
  pivotOperation(id: number): Promise<void>;
  /** How long the source of a move is kept, from now on (of one that has not switched: from its switch on); null: for ever. */
  keepSource(id: number, keepSeconds: number | null): Promise<void>;
  /**
   * Takes back a move that has switched and whose way back is open; or closes that. Resolves to the operation that does,
   * once that is certain. @throws the reason why it cannot, and how its disks are moved back instead.
   */
  undoOperation(id: number, options: { readonly close: boolean }): Promise<OperationView>;
  /** Puts an epoch on top of the live layers of a move now. */
  rotateOperation(id: number): Promise<void>;
  /** Stops an operation before its commit step; what it did is undone. */
  cancelOperation(id: number): Promise<void>;
  /** A person's word on an operation in `attention`; resolves when it is journaled and the operation goes on. */
  resolveOperation(id: number, answer: OperationAnswer): Promise<OperationView>;
  /** What is kept after `afterSeq` is given to the listener before the call returns; null: only what happens from now on. */
  events(
    afterSeq: number | null,
    listener: (event: StreamedEvent) => void,
  ): { readonly unsubscribe: () => void };
}
