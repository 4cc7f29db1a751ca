// The steps that a plan is made of. Data only: a plan can be printed, diffed, journaled, sent to another host.
// What each kind does, how it is undone and how the world is asked about it stands in job/effects.

import type { FileIdentity, VerifyMode } from '../block/copy.js';
import type { Fuse } from '../block/fuse.js';
import type { Format } from '../block/layer.js';
import type { BlockdevOptions, ReopenOptions } from '../block/node.js';
import type { Change } from '../domain/record.js';
import type { SourceFate } from '../domain/source-fate.js';
import type { MoveWay } from '../domain/undo-window.js';
import { assert } from '../std/assert.js';
import type { FullMove } from './move-full.js';
import type { OfflineMove } from './move-offline.js';
import type { MoveData } from './move-tail.js';
import type { OperationName } from './operation.js';
import type { PivotWhen } from '../domain/pivot-when.js';
import type { SourceDeletion } from './source.js';
import type { UndoData } from './undo-window.js';

export interface ImageFile {
  readonly path: string;
  readonly format: Format;
}

/** An image of a domain that is shut off, as it was when the plan was made: nobody may write to it meanwhile. */
export interface HeldImage {
  readonly path: string;
  readonly file: FileIdentity;
}

/** What a copy becomes that is another image with the same content. */
export interface ConvertedImage {
  /** What is read, active first: the image to be copied and what is below it. */
  readonly chain: readonly ImageFile[];
  readonly format: Format;
  readonly clusterSizeBytes: number | null;
  /** What lies below the result, active first; none: it holds all of the chain. */
  readonly below: readonly ImageFile[];
}

/** How a commit is finished when its QEMU is dead: the same by qemu-img, layer by layer. */
export interface OfflineCommit {
  /** Oldest first. */
  readonly overlayPaths: readonly string[];
  readonly base: ImageFile;
}

/** One disk of a snapshot transaction: `overlay` goes on top of `node`. */
export interface SnapshotDisk {
  readonly target: string;
  readonly node: string;
  readonly overlay: string;
  readonly overlayPath: string;
  readonly base: ImageFile;
}

/** One disk of a pivot (law 4). */
export interface PivotDisk {
  readonly target: string;
  readonly jobId: string;
  readonly job: 'copy' | 'commit';
  /** Root of the disk before and after. */
  readonly from: string;
  readonly to: string;
  /** Where `to` lies on this host: asked for its health from outside before anything stops (law 9). Null: not local. */
  readonly path: string | null;
  /** What `to` is behind: asked instead, and once more before `job-finalize` whether it is as it was. */
  readonly fuse?: Fuse;
  /** Options for `blockdev-reopen` of `to`, given under the pause just before `job-complete` (law 3). Null: nothing to swing. */
  readonly swing: ReopenOptions | null;
  /** Takes the swing back, should the pivot fail. */
  readonly swingBack: ReopenOptions | null;
  /** Whose header is made to name what afterwards, still in the pause. Null: it names the right image already. */
  readonly header: { readonly node: string; readonly names: string } | null;
  /** For a commit whose QEMU died: the two files, so that it can be finished without QEMU. */
  readonly offline: OfflineCommit | null;
}

/** One disk of a rotation: its mirror ends exactly, and a new layer with a mirror of its own goes on top. */
export interface RotateDisk {
  readonly snapshot: SnapshotDisk;
  /** The new layer's twin, over the one that is sealed. */
  readonly twin: BlockdevOptions;
  readonly mirror: Steps['start-mirror'];
  /** The mirror that ends, as it is made again should the rotation fail. */
  readonly sealed: {
    readonly options: BlockdevOptions;
    readonly image: Steps['recreate-image'];
    readonly mirror: Steps['start-mirror'];
  };
}

/** One mirror of a `seal`. */
export interface SealDisk {
  readonly target: string;
  readonly jobId: string;
  /** Node of the mirror's target, closed afterwards. */
  readonly node: string;
  /** Where it lies on this host: asked for its health from outside first (law 9). Null: not local. */
  readonly path: string | null;
}

/** The two sides of a sealed mirror. */
export interface StampDisk {
  readonly target: string;
  readonly source: string;
  readonly image: string;
}

export interface QemuStart {
  readonly emulator: string;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly pidFile: string;
  readonly qmpSocket: string;
  readonly logFile: string;
}

interface Steps {
  /** A new image; refuses a file that has something in it. `existed`: an empty file was there before and stays after an undo. */
  'create-image': {
    readonly path: string;
    readonly sizeBytes: bigint;
    readonly backing: ImageFile | null;
    readonly clusterSizeBytes: number | null;
    readonly existed: boolean;
    /** Left out: qcow2. */
    readonly format?: Format;
  };
  /** A mirror's target made anew, empty, in the place of what a QEMU that is gone left of it (law 2). */
  'recreate-image': {
    readonly path: string;
    readonly sizeBytes: bigint;
    readonly backing: ImageFile | null;
    readonly clusterSizeBytes: number | null;
    /** Left out: qcow2. */
    readonly format?: Format;
  };
  /**
   * A block device that a move is about to write: large enough, and nobody's. What it held is void from then on, so
   * there is nothing that an undo could bring back.
   */
  'take-device': { readonly path: string; readonly sizeBytes: bigint };
  /** A fuse (law 8) towards an NBD server: a process that outlives us, ended with its domain's QEMU. */
  'start-fuse': { readonly fuse: Fuse };
  /** The fuse of an image that is closed; none is fine. */
  'end-fuse': { readonly fuse: Pick<Fuse, 'pidFile' | 'socket' | 'stateFile'> };
  /** QAPI `blockdev-add`. */
  'open-node': { readonly options: BlockdevOptions };
  /** QAPI `blockdev-del`; undone by opening it again. */
  'close-node': { readonly options: BlockdevOptions };
  /** One `transaction` of `blockdev-snapshot` over all disks. Undone by committing the overlays back (law 4). */
  snapshot: { readonly disks: readonly SnapshotDisk[] };
  /** QAPI `blockdev-mirror`, never finalized or dismissed by QEMU itself (law 10). */
  'start-mirror': {
    readonly jobId: string;
    readonly device: string;
    readonly target: string;
    readonly filter: string;
    /** `none`: both sides are equal and the guest stands still (a sealed mirror that is taken up again). */
    readonly sync: 'top' | 'full' | 'none';
    readonly copyMode: 'background' | 'write-blocking';
    /** What it may carry in a second until it is READY. Left out: as fast as it goes. */
    readonly bytesPerSecond?: bigint;
  };
  /** QAPI `block-commit` of an active layer: ends by a pivot. */
  'start-commit': {
    readonly jobId: string;
    readonly device: string;
    readonly base: string;
    readonly filter: string;
    readonly offline: OfflineCommit;
  };
  /** Waits until every job is READY. Changes nothing; may take long, so the domain is not locked meanwhile. */
  'wait-ready': {
    readonly job: 'copy' | 'commit';
    readonly jobIds: readonly string[];
    /** The jobs are the copy: what is said of its pace is said to them. */
    readonly isPaced?: true;
    /** What their targets are behind: one that is not as it was is a lost mirror. */
    readonly fuses?: readonly Fuse[];
  };
  /** Waits, every job being READY, until it is time to switch or somebody says so. Otherwise as `wait-ready`. */
  'wait-pivot': {
    readonly when: PivotWhen;
    readonly jobIds: readonly string[];
    readonly fuses?: readonly Fuse[];
  };
  /**
   * Keeps the way back of move `move` open: until `untilMs` (by the clock of the wall), until somebody says so, or until
   * its mirrors are lost. Not while a target does not answer (law 9): what comes next ends the jobs.
   */
  'wait-window': {
    readonly move: number;
    readonly untilMs: number;
    readonly jobIds: readonly string[];
    /** Where the targets lie. */
    readonly paths: readonly string[];
  };
  /** Copies a frozen image to `to` by way of `to`.part: data, fsync, verification, header naming `backing`, rename, fsync of the folder. */
  'copy-image': {
    readonly from: string;
    readonly to: string;
    /** Of `from`. */
    readonly format: Format;
    readonly backing: ImageFile | null;
    /** Left out: as fast as it goes. Of the plan, so that whoever goes on with the copy keeps to it. */
    readonly bytesPerSecond?: bigint;
    /** Copies between other storages may be done at once; what has the same lane comes one after the other. Left out: nothing is done beside it. */
    readonly lane?: string;
    /** How much of it is read back and compared before it is whole. Left out: all of it. */
    readonly verify?: VerifyMode;
    /** Of a domain that is shut off: held while it is copied, as `hold-images` has it. */
    readonly hold?: readonly HeldImage[];
    /** By qemu-img, from the beginning in each life, and not byte for byte. Left out: as it is. */
    readonly convert?: ConvertedImage;
  };
  /**
   * Finds an image that was at the destination before, with what is below it, to hold what a guest reads from the source's;
   * fails where it does not, or was touched since the plan. Nothing is written, so nothing is taken back.
   */
  'check-image': {
    /** Active first. */
    readonly source: readonly ImageFile[];
    readonly image: readonly ImageFile[];
    /** The first of `image` when the plan was made. */
    readonly file: FileIdentity;
    readonly bytesPerSecond?: bigint;
    readonly hold?: readonly HeldImage[];
  };
  /**
   * Keeps writers off images by QEMU's own locks, as long as this daemon lives or until `let-go-images`; whoever relies
   * on it in another life takes it again. Fails when somebody has one open for writing, or wrote to it since the plan.
   */
  'hold-images': { readonly images: readonly HeldImage[] };
  /** The commit of a move without QEMU: the images are still as they were planned, their copies are there. */
  arrive: { readonly images: readonly HeldImage[]; readonly copies: readonly string[] };
  'let-go-images': Record<never, never>;
  /** Law 4 over all disks; leaves the guest stopped, `resume-guest` follows. */
  pivot: {
    readonly disks: readonly PivotDisk[];
    /** The guest's agent freezes its file systems just before; `thaw-guest` follows behind `resume-guest`. */
    readonly quiesce?: boolean;
    /** Of a move that keeps its way back open: what is written down for it, from this moment on. */
    readonly window?: {
      readonly seconds: number;
      readonly ways: readonly MoveWay[];
      readonly trim: boolean;
    };
  };
  /** Lets the guest go on: always, or only if its record says that it runs (a guest that its user suspended stays so). */
  'resume-guest': { readonly when: 'always' | 'if-running' };
  /** The guest's agent thaws what a pivot had it freeze. */
  'thaw-guest': Record<never, never>;
  /** The guest's agent discards what its file systems do not use (guest-fstrim); an agent that cannot is told of, no more. */
  'trim-guest': Record<never, never>;
  /** Stops the CPUs because the user wants it. */
  'pause-guest': Record<never, never>;
  /** Ends a job without switching (force) and dismisses it. Gone already is fine. */
  'cancel-job': { readonly jobId: string };
  /** Ends READY copies softly: each target is left an exact point in time (block-job-cancel without force). */
  'seal-job': { readonly jobId: string };
  /** Puts a new layer with a mirror on top of mirrored disks, in one pause; leaves the guest stopped, `resume-guest` follows. */
  rotate: { readonly disks: readonly RotateDisk[] };
  /**
   * Stops the CPUs and ends READY mirrors so that each target equals its source, within a time limit; what
   * does not end in it is not sealed, and ends with its QEMU. Makes known which were sealed.
   */
  seal: { readonly disks: readonly SealDisk[]; readonly timeoutMs: number };
  /** Closes the targets of mirrors that ended, which makes them durable, and takes the jobs off QEMU's list. */
  'close-sealed': { readonly disks: readonly SealDisk[] };
  /** QEMU is gone: notes size and time of both sides of each sealed mirror, so that a later start sees whether they still are equal. */
  stamp: { readonly disks: readonly StampDisk[] };
  /** Dismisses jobs that concluded. */
  'dismiss-jobs': { readonly jobIds: readonly string[] };
  /** Removes a file of ours. Its undo is impossible, so it stands behind the commit step only. */
  'remove-file': { readonly path: string };
  /** UEFI variables from their template: `reset`, or only unless they are there already. */
  'create-nvram': { readonly path: string; readonly template: string; readonly reset: boolean };
  /** Starts QEMU with its CPUs stopped and waits for its monitor. */
  'start-qemu': { readonly start: QemuStart };
  /** Ends QEMU, by force if need be, and waits until the process is no more. */
  'kill-qemu': { readonly pidFile: string };
  /** Asks the guest: ACPI power button, or a reset. */
  'signal-guest': { readonly signal: 'powerdown' | 'reset' };
  /** Nothing outside: only its changes of what is known. */
  record: Record<never, never>;
}

export type StepKind = keyof Steps;

/** What becomes known when a step is done, in the same transaction as the entry `done`; and what takes it back with `undone`. */
interface Known {
  readonly changes?: readonly Change[];
  readonly reverts?: readonly Change[];
}

export type StepOf<K extends StepKind> = {
  readonly [P in K]: { readonly kind: P } & Known & Steps[P];
}[K];

export type Step = StepOf<StepKind>;

/** Steps before `commitAt` are undone after a failure; steps from it on are finished instead. */
export interface Plan {
  readonly operation: OperationName;
  /** UUID of the domain; everything in a plan is about one. */
  readonly domain: string;
  readonly domainName: string;
  readonly steps: readonly Step[];
  readonly commitAt: number;
  /**
   * Once this step is done, a QEMU that goes before the commit step does not turn the operation round: it waits for the
   * domain's next QEMU, in which the start makes again what the steps so far had made (`plan/attach.ts`).
   */
  readonly waitsFrom?: number;
  /** Of a move: what its steps were made from. */
  readonly move?: MoveData;
  /** The same of one whose domain is shut off. */
  readonly offline?: OfflineMove;
  /** Of a move: what becomes of what it leaves. Left out: kept until somebody removes it. */
  readonly source?: SourceFate;
  /** Of one that deletes what a move left. */
  readonly deletes?: SourceDeletion;
  /** The same of one by full mirrors. */
  readonly full?: FullMove;
  /** Of one that keeps the way back of a move open, or goes it. */
  readonly undo?: UndoData;
}

/** A request that cannot be planned: nothing was touched. */
export interface Refusal {
  readonly refusal: Error;
}

/** Kinds that nothing takes back: they stand at or behind the commit step. */
const final: ReadonlySet<StepKind> = new Set([
  'cancel-job',
  'seal-job',
  'seal',
  'close-sealed',
  'stamp',
  'dismiss-jobs',
  'remove-file',
  'end-fuse',
  'kill-qemu',
  'signal-guest',
  'pause-guest',
  'thaw-guest',
]);

/** Rules that every plan keeps; broken ones are bugs of a planner. */
export function checkPlan(plan: Plan): void {
  assert(
    plan.commitAt >= 0 && plan.commitAt <= plan.steps.length,
    'the commit step stands in the plan',
  );
  for (const [i, step] of plan.steps.entries()) {
    assert(
      i >= plan.commitAt || !final.has(step.kind),
      `step ${i} (${step.kind}) comes before the commit step and cannot be taken back`,
    );
    // What is known must not run ahead of what can still be undone.
    const stays = i >= plan.commitAt - 1 || step.changes === undefined;
    assert(
      stays || step.reverts !== undefined,
      `changes of step ${i} (${step.kind}) cannot be taken back`,
    );
  }
  assert(
    plan.waitsFrom === undefined || plan.waitsFrom < plan.commitAt,
    'what waits for a QEMU waits before its commit step',
  );
}
