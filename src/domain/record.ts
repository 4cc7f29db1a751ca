// What is known of a domain for good, and the changes to it. The database holds one record a domain; a change is
// applied in the same transaction as the journal entry that made it true. Pure: `applyChange` is the only way to a new record.

import type { Fuse } from '../block/fuse.js';
import type { Image, StorageSource } from '../block/layer.js';
import { localPath, sameSource } from '../block/layer.js';
import { assert } from '../std/assert.js';
import type { Definition } from './definition.js';
import type { Disk, DiskMirror } from './disk.js';
import { imagesOf } from './disk.js';
import type { DomainEvent } from './events.js';
import { mapOwed, owedAfterStop, owedBut, withOwed } from './owed.js';
import type { Snapshot } from './snapshot.js';
import type { DomainState } from './state.js';
import type { UndoWindow, WindowChange } from './undo-window.js';
import { changeWindow } from './undo-window.js';

/** Why a copy stands still: its target took no more. The guest runs on meanwhile (law 11). */
export type MirrorProblem = 'no space' | 'I/O error';

/** What we need to know of a mirror besides its `<mirror>`. */
export interface MirrorRecord {
  readonly target: string;
  readonly jobId: string;
  /** Name QEMU gives the filter node that the job puts above the source. */
  readonly filter: string;
  /**
   * `ours`: we made the destination's overlay, its header names the source's base. `reuse`: the caller made it and its
   * chain; the pivot swings to that chain (design §4).
   */
  readonly made: 'ours' | 'reuse';
  /** The snapshot object that owns it; null once it was forgotten (METADATA_ONLY) or never kept (NO_METADATA). */
  readonly snapshot: string | null;
  /** Whether a `ferry move` owns it; otherwise a libvirt client asked for it. */
  readonly move: boolean;
  readonly problem: MirrorProblem | null;
  /** What stands between QEMU and the server that its target is on. */
  readonly fuse?: Fuse;
  /** Ended softly while its guest stood still: both sides are equal from then on. */
  readonly sealed?: true;
}

/** Size and time of a file, by which it is seen whether somebody touched it. */
export interface FileStamp {
  readonly sizeBytes: bigint;
  readonly modifiedNs: bigint;
}

/**
 * A mirror whose QEMU ended. The source has everything; the next start makes the target's top layer anew and takes the
 * mirror up again before the guest runs (design §4, laws 1 and 2).
 */
export interface OwedMirror {
  readonly record: MirrorRecord;
  /** The layer that it mirrored. */
  readonly source: StorageSource;
  /** The mirror's target, as it was, and the chain below it. Without indexes. */
  readonly image: Image;
  readonly below: readonly Image[];
  readonly sinceSeconds: number;
  /** Set when it was sealed and nobody touched either side since then, if these still are what is there. */
  readonly stamp: { readonly source: FileStamp; readonly image: FileStamp } | null;
}

/** A domain that has a QEMU process. */
export interface LiveRecord {
  /** libvirt's domain id, never used twice in one life of the host. */
  readonly id: number;
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: with the pid, the identity of a process. Zero until it was read. */
  readonly startTicks: number;
  readonly definition: Definition;
  readonly state: DomainState;
  /** The index that the next opened image gets; counts up while the process lives. */
  readonly nextIndex: number;
  readonly mirrors: readonly MirrorRecord[];
  /** The guest's next poweroff is the first half of a reboot that its user asked for: it comes up again. */
  readonly rebooting: boolean;
}

/** The images of one disk, active first, without indexes. */
export interface RecordedChain {
  readonly target: string;
  readonly images: readonly Image[];
}

/** A domain, whole. Not both `persistent` and `live` are null. */
export interface DomainRecord {
  readonly uuid: string;
  readonly name: string;
  readonly persistent: Definition | null;
  readonly live: LiveRecord | null;
  readonly autostart: boolean;
  /** Oldest first. */
  readonly snapshots: readonly Snapshot[];
  readonly currentSnapshot: string | null;
  /** Why a domain that does not run does not. */
  readonly lastState: DomainState;
  /** The whole chain of each disk as it was last known: a start uses it, never a header alone (design §4), and refuses when they differ (law 7). */
  readonly chains: readonly RecordedChain[];
  /** Mirrors that ended with a QEMU and are to be taken up again; one a disk at most. */
  readonly owed: readonly OwedMirror[];
  /** Moves whose way back is kept open; left out: none. */
  readonly windows?: readonly UndoWindow[];
}

/**
 * Law 13: an image that must not be opened writably although nobody has it open. `sealed`: it lies below the live one;
 * kept only where no record says so (of a transient domain that ended).
 */
export interface ImageRole {
  readonly path: string;
  readonly role: 'stale' | 'unfinished' | 'sealed';
  /** UUID, and the name that it had. */
  readonly domain: string;
  readonly domainName: string;
  readonly target: string;
  /** The image that is live for that disk instead. */
  readonly live: string;
  readonly sinceSeconds: number;
}

/** One change of what is known. Data only: it is stored with the journal entry that made it true. */
export type Change =
  | {
      readonly change: 'define';
      readonly definition: Definition;
      readonly chains: readonly RecordedChain[];
    }
  | { readonly change: 'undefine' }
  | { readonly change: 'autostart'; readonly on: boolean }
  | { readonly change: 'start'; readonly live: LiveRecord }
  | {
      readonly change: 'identify';
      readonly pid: number;
      readonly startTicks: number;
      readonly definition: Definition | null;
    }
  /** Its QEMU is no more. A persistent domain owes its mirrors from now on. */
  | { readonly change: 'stop'; readonly state: DomainState; readonly nowSeconds: number }
  | { readonly change: 'state'; readonly state: DomainState }
  | { readonly change: 'rebooting'; readonly on: boolean }
  | { readonly change: 'owe'; readonly owed: OwedMirror }
  | { readonly change: 'settle-owed'; readonly target: string }
  | {
      readonly change: 'stamp';
      readonly target: string;
      readonly source: FileStamp;
      readonly image: FileStamp;
    }
  | { readonly change: 'next-index'; readonly nextIndex: number }
  /** The disk now reads and writes `images` (active first). The persistent definition follows iff it named `was`. */
  | {
      readonly change: 'chain';
      readonly target: string;
      readonly images: readonly Image[];
      readonly was: StorageSource;
    }
  | { readonly change: 'mirror'; readonly mirror: MirrorRecord; readonly disk: DiskMirror }
  | {
      readonly change: 'mirror-ready';
      readonly target: string;
      readonly ready: DiskMirror['ready'];
    }
  | {
      readonly change: 'mirror-problem';
      readonly target: string;
      readonly problem: MirrorProblem | null;
    }
  /** Of a mirror, or of one that is owed. */
  | { readonly change: 'mirror-owner'; readonly target: string; readonly snapshot: string | null }
  | { readonly change: 'mirror-sealed'; readonly target: string }
  /** It is over, and nothing is owed of it. */
  | { readonly change: 'mirror-end'; readonly target: string }
  | { readonly change: 'put-snapshot'; readonly snapshot: Snapshot; readonly current: boolean }
  | { readonly change: 'delete-snapshot'; readonly name: string }
  | { readonly change: 'current-snapshot'; readonly name: string | null }
  /** `since`: as the role says; or the time of this commit; or that of the role which the image has already. */
  | { readonly change: 'role'; readonly role: ImageRole; readonly since?: 'commit' | 'kept' }
  /** Snapshot objects that name images which moved name the new places from now on. */
  | {
      readonly change: 'moved-images';
      readonly target: string;
      readonly moved: readonly { readonly path: string; readonly image: Image }[];
    }
  /**
   * The rest of another operation's plan is another one: from step `from` on, of which the first `done` are done.
   * `plan` is a Plan (plan/step), which is only data here.
   */
  | {
      readonly change: 'replan';
      readonly operation: number;
      readonly from: number;
      readonly done: number;
      readonly plan: object;
    }
  | { readonly change: 'forget-role'; readonly path: string }
  | WindowChange
  | { readonly change: 'event'; readonly event: DomainEvent };

/**
 * The record after `change`; null when nothing is left of the domain (undefined while off, or a transient one that stopped).
 * Roles, events and plans belong to the host, not to a record, and leave it as it is.
 */
export function applyChange(record: DomainRecord | null, change: Change): DomainRecord | null {
  if (isOfTheHost(change)) return record;
  if (change.change === 'define') return define(record, change.definition, change.chains);
  if (change.change === 'start') return start(record, change.live);
  // A transient domain may be gone with its QEMU before its operation is undone: then nothing is left to change.
  if (record === null) return null;
  switch (change.change) {
    case 'undefine':
      return record.live === null ? null : { ...record, persistent: null, autostart: false };
    case 'owe':
      return { ...record, owed: [...owedBut(record, change.owed.record.target), change.owed] };
    case 'settle-owed':
      return { ...record, owed: owedBut(record, change.target) };
    case 'stamp': {
      const { target, source, image } = change;
      return mapOwed(record, target, (owed) => ({ ...owed, stamp: { source, image } }));
    }
    case 'autostart':
      return { ...record, autostart: change.on };
    case 'stop':
      return record.persistent === null
        ? null
        : {
            ...record,
            live: null,
            lastState: change.state,
            owed: owedAfterStop(record, change.nowSeconds),
          };
    case 'put-snapshot':
      return {
        ...record,
        snapshots: [
          ...record.snapshots.filter((s) => s.name !== change.snapshot.name),
          change.snapshot,
        ],
        currentSnapshot: change.current ? change.snapshot.name : record.currentSnapshot,
      };
    case 'moved-images':
      return { ...record, snapshots: record.snapshots.map((one) => afterMove(one, change)) };
    case 'delete-snapshot':
      return deleteSnapshot(record, change.name);
    case 'current-snapshot':
      return { ...record, currentSnapshot: change.name };
    case 'chain':
      return changeChain(record, change.target, change.images, change.was);
    case 'open-window':
    case 'close-window':
    case 'end-window':
      return changeWindow(record, change);
    default:
      return changeLive(record, change);
  }
}

type HostChange = Extract<Change, { readonly change: 'role' | 'forget-role' | 'event' | 'replan' }>;

const isOfTheHost = (change: Change): change is HostChange =>
  ['role', 'forget-role', 'event', 'replan'].includes(change.change);

function afterMove(
  snapshot: Snapshot,
  { target, moved }: Extract<Change, { readonly change: 'moved-images' }>,
): Snapshot {
  const disks = snapshot.disks.map((disk) => {
    const path = disk.image === null ? null : localPath(disk.image.source);
    const found = disk.name === target ? moved.find((one) => one.path === path) : undefined;
    return found === undefined ? disk : { ...disk, image: found.image };
  });
  return disks.every((disk, i) => disk === snapshot.disks[i]) ? snapshot : { ...snapshot, disks };
}

function define(
  record: DomainRecord | null,
  definition: Definition,
  chains: readonly RecordedChain[],
): DomainRecord {
  const fresh: DomainRecord = {
    uuid: definition.uuid,
    name: definition.name,
    persistent: definition,
    live: null,
    autostart: false,
    snapshots: [],
    currentSnapshot: null,
    lastState: { state: 'shutoff', reason: 'unknown' },
    chains: [],
    owed: [],
  };
  // While it runs, what is open counts, not what was read now.
  return {
    ...(record ?? fresh),
    name: definition.name,
    persistent: definition,
    chains: record?.live == null ? chains : record.chains,
  };
}

function start(record: DomainRecord | null, live: LiveRecord): DomainRecord {
  const transient: DomainRecord = {
    uuid: live.definition.uuid,
    name: live.definition.name,
    persistent: null,
    live,
    autostart: false,
    snapshots: [],
    currentSnapshot: null,
    lastState: { state: 'shutoff', reason: 'unknown' },
    chains: [],
    owed: [],
  };
  const chains = live.definition.disks.flatMap((disk) =>
    disk.source === null
      ? []
      : [
          {
            target: disk.target,
            images: imagesOf(disk).map((image) => ({ ...image, index: null })),
          },
        ],
  );
  return { ...(record ?? transient), live, chains };
}

/** Children of the deleted snapshot get its parent; if it was current, its parent becomes current (virDomainSnapshotDelete METADATA_ONLY). */
function deleteSnapshot(record: DomainRecord, name: string): DomainRecord {
  const gone = record.snapshots.find((s) => s.name === name);
  if (gone === undefined) return record;
  return {
    ...record,
    snapshots: record.snapshots
      .filter((s) => s.name !== name)
      .map((s) => (s.parent === name ? { ...s, parent: gone.parent } : s)),
    currentSnapshot: record.currentSnapshot === name ? gone.parent : record.currentSnapshot,
  };
}

function changeChain(
  record: DomainRecord,
  target: string,
  images: readonly Image[],
  was: StorageSource,
): DomainRecord {
  const live =
    record.live === null
      ? null
      : { ...record.live, definition: withChain(record.live.definition, target, images) };
  const named = record.persistent?.disks.find((disk) => disk.target === target);
  const follows = named?.source != null && sameSource(named.source, was);
  if (!follows || record.persistent === null) return { ...record, live };
  const unindexed = images.map((image) => ({ ...image, index: null }));
  const persistent = withChain(record.persistent, target, unindexed);
  // Who left the chain to be followed from the headers still does; what was found is in `chains`.
  return {
    ...record,
    live,
    persistent:
      named.backing === null
        ? mapDisk(persistent, target, (disk) => ({ ...disk, backing: null }))
        : persistent,
    chains: withRecordedChain(record.chains, target, unindexed),
  };
}

function withRecordedChain(
  chains: readonly RecordedChain[],
  target: string,
  images: readonly Image[],
): readonly RecordedChain[] {
  return [...chains.filter((chain) => chain.target !== target), { target, images }];
}

function withChain(definition: Definition, target: string, images: readonly Image[]): Definition {
  const top = images[0];
  assert(top !== undefined, `a disk without an image: ${target}`);
  return mapDisk(definition, target, (disk) => ({
    ...disk,
    source: top.source,
    format: top.format,
    index: top.index,
    backing: images.slice(1),
    openEnded: false,
  }));
}

function mapDisk(definition: Definition, target: string, change: (disk: Disk) => Disk): Definition {
  return {
    ...definition,
    disks: definition.disks.map((disk) => (disk.target === target ? change(disk) : disk)),
  };
}

export type LiveChange = Extract<
  Change,
  {
    readonly change:
      | 'identify'
      | 'state'
      | 'rebooting'
      | 'next-index'
      | 'mirror'
      | 'mirror-ready'
      | 'mirror-problem'
      | 'mirror-owner'
      | 'mirror-sealed'
      | 'mirror-end';
  }
>;

function changeLive(before: DomainRecord, change: LiveChange): DomainRecord {
  const record = withOwed(before, change);
  // A QEMU that died in between took all of this with it.
  return record.live === null ? record : { ...record, live: liveAfter(record.live, change) };
}

function liveAfter(live: LiveRecord, change: LiveChange): LiveRecord {
  const withDisk = (target: string, changeDisk: (disk: Disk) => Disk): Definition =>
    mapDisk(live.definition, target, changeDisk);
  const withMirror = (target: string, change: Partial<MirrorRecord>): LiveRecord => ({
    ...live,
    mirrors: live.mirrors.map((one) => (one.target === target ? { ...one, ...change } : one)),
  });
  const mirrorsBut = (target: string): readonly MirrorRecord[] =>
    live.mirrors.filter((mirror) => mirror.target !== target);
  switch (change.change) {
    case 'identify': {
      const { pid, startTicks, definition } = change;
      return { ...live, pid, startTicks, definition: definition ?? live.definition };
    }
    case 'state':
      return { ...live, state: change.state };
    case 'rebooting':
      return { ...live, rebooting: change.on };
    case 'next-index':
      return { ...live, nextIndex: Math.max(live.nextIndex, change.nextIndex) };
    case 'mirror': {
      const { mirror, disk } = change;
      const definition = withDisk(mirror.target, (one) => ({ ...one, mirror: disk }));
      return { ...live, mirrors: [...mirrorsBut(mirror.target), mirror], definition };
    }
    case 'mirror-ready':
      return {
        ...live,
        definition: withDisk(change.target, (disk) => readyAs(disk, change.ready)),
      };
    case 'mirror-problem':
      return withMirror(change.target, { problem: change.problem });
    case 'mirror-owner':
      return withMirror(change.target, { snapshot: change.snapshot });
    case 'mirror-sealed':
      return withMirror(change.target, { sealed: true });
    case 'mirror-end': {
      const definition = withDisk(change.target, (disk) => ({ ...disk, mirror: null }));
      return { ...live, mirrors: mirrorsBut(change.target), definition };
    }
  }
}

const readyAs = (disk: Disk, ready: DiskMirror['ready']): Disk =>
  disk.mirror === null ? disk : { ...disk, mirror: { ...disk.mirror, ready } };
