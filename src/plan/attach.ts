// Mirrors that are taken up again after their QEMU ended (design §4). Law 2: what a dead QEMU left of a target is not
// trusted, so its top layer is made anew and filled from the source's top layer; the layers below it are complete and
// are not copied again. Only a mirror that was sealed, and of which nobody touched either side since, goes on as it is.

import type { ImageInfo, PathFacts } from '../block/facts.js';
import type { Image, Layer, StorageSource } from '../block/layer.js';
import { formatNode, localPath, sameSource, showSource } from '../block/layer.js';
import { blockdevOptions } from '../block/node.js';
import type { Disk } from '../domain/disk.js';
import type {
  Change,
  DomainRecord,
  FileStamp,
  MirrorRecord,
  OwedMirror,
} from '../domain/record.js';
import { present } from '../std/assert.js';
import { StateError } from '../std/errors.js';
import { copyJobId, filterNode, topOf } from './overlay.js';
import { layersOf } from './refuse.js';
import { unfinished } from './roles.js';
import type { ImageFile, Plan, Step } from './step.js';

/** What was seen of one owed mirror before it is taken up. */
export interface OwedFacts {
  /** The layer that the guest writes, and the mirror's target. */
  readonly source: PathFacts;
  readonly image: PathFacts;
  /** Free space beside the target; null where that is no question (a block device). */
  readonly freeBytes: bigint | null;
}

/** Steps that make a mirror run: those that need no QEMU, then those in it. */
export interface Attach {
  readonly target: string;
  readonly before: readonly Step[];
  readonly inQemu: readonly Step[];
}

/** Why an owed mirror cannot be taken up now, in words that follow `the mirror of vda cannot be taken up: `; null: it can. */
export function obstacleOf(owed: OwedMirror, disk: Disk | null, facts: OwedFacts): string | null {
  if (disk?.source == null || !sameSource(disk.source, owed.source)) {
    const now = disk?.source == null ? 'gone' : `on ${showSource(disk.source)}`;
    return `it mirrored ${showSource(owed.source)}, and the disk is ${now}`;
  }
  const { file, info } = facts.image;
  const path = showSource(owed.image.source);
  const source = facts.source.info;
  if (source === null) return `its source ${showSource(owed.source)} cannot be read`;
  if (file === null) return `${path} is not there`;
  if (!file.writable) return `${path} cannot be written to`;
  if (info === null) return `${path} is no ${owed.image.format} image any more`;
  if (info.special.length > 0) return `${path} has ${info.special.join(', ')}`;
  if (info.virtualSizeBytes !== source.virtualSizeBytes)
    return `${path} has ${info.virtualSizeBytes} bytes where the disk has ${source.virtualSizeBytes}`;
  return changedBelow(owed, disk, facts.image) ?? tooSmall(owed, source, info, facts.freeBytes);
}

/** The header of a target of ours names the source's base; below one of the caller's is the chain that he made. */
function changedBelow(owed: OwedMirror, disk: Disk, seen: PathFacts): string | null {
  const names = (images: readonly Image[]): readonly string[] =>
    images.map((image) => showSource(image.source));
  // A move's own twin: a pivot that did not come to its end may have written the other name already.
  if (owed.record.move) return null;
  const isOurs = owed.record.made === 'ours';
  const expected = names(isOurs ? (disk.backing ?? []).slice(0, 1) : owed.below);
  const header = seen.info?.backing?.filename;
  const found = isOurs ? (header === undefined ? [] : [header]) : names(seen.below);
  if (expected.join('\n') === found.join('\n')) return null;
  const show = (list: readonly string[]): string =>
    list.length === 0 ? 'nothing' : list.join(' ← ');
  return `${showSource(owed.image.source)} was changed: it stood over ${show(expected)} and stands over ${show(found)}`;
}

function tooSmall(
  owed: OwedMirror,
  source: ImageInfo,
  target: ImageInfo,
  freeBytes: bigint | null,
): string | null {
  if (freeBytes === null) return null;
  // What the target takes now is given back when it is made anew.
  const missing = source.actualSizeBytes - target.actualSizeBytes - freeBytes;
  return missing <= 0n
    ? null
    : `the storage of ${showSource(owed.image.source)} is full: ${missing} bytes are missing for the layer that is copied`;
}

/** Refuses a start with the three ways out (design §4). `move`: the operation that the mirror belongs to. */
export function refuseOwed(
  record: Pick<DomainRecord, 'name'>,
  { record: mirror }: OwedMirror,
  obstacle: string,
  move: number | null,
): StateError {
  const { name } = record;
  const own =
    mirror.snapshot === null
      ? `ferry blockjob ${name} ${mirror.target} --abort`
      : `ferry snapshot-delete ${name} ${mirror.snapshot} --remove-mirror`;
  const drop = move === null ? own : `ferry cancel ${move}`;
  const later = `ferry start ${name} --mirror-later`;
  return new StateError(
    'OPERATION_INVALID',
    `start ${name}: the mirror of ${mirror.target} cannot be taken up: ${obstacle}; the source is complete. ` +
      `Bring the destination back and start again; or drop the mirror: '${drop}'; or run now and mirror when it is back: '${later}'`,
    { sourceIntact: true, next: [`ferry start ${name}`, drop, later] },
  );
}

export interface TakeUp {
  readonly domain: Pick<DomainRecord, 'uuid' | 'name'>;
  readonly owed: OwedMirror;
  /** With the indexes that its images have in the QEMU to come. */
  readonly disk: Disk;
  /** Index of the target, and of the first image below it that the source has not open. */
  readonly nextIndex: number;
  readonly facts: OwedFacts;
}

/** Takes an owed mirror up; `nextIndex` is the first that is free afterwards. */
export function attachOwed({ domain, owed, disk, nextIndex: first, facts }: TakeUp): {
  readonly attach: Attach;
  readonly nextIndex: number;
} {
  let nextIndex = first;
  const open = (image: Image): Layer => ({ ...image, index: nextIndex++ });
  const twin = open(owed.image);
  const known = layersOf(disk);
  // As at its creation: what both sides share keeps its index, the rest is opened at the pivot.
  const below = owed.below.map(
    (image) => known.find((one) => sameSource(one.source, image.source)) ?? open(image),
  );
  const { sealed: _, ...before } = owed.record;
  const record: MirrorRecord = {
    ...before,
    problem: null,
    jobId: copyJobId(disk.target, twin),
    filter: filterNode(twin),
  };
  const asSealed = isStillEqual(owed, facts);
  const attach: Attach = {
    target: disk.target,
    before: asSealed ? [] : [makeAnew(owed, disk, facts)],
    inQemu: mirrorAgain({ domain, disk, twin, below, record, owed, asSealed }),
  };
  return { attach, nextIndex };
}

const stampOf = ({ file }: PathFacts): FileStamp | null =>
  file === null ? null : { sizeBytes: file.sizeBytes, modifiedNs: file.modifiedNs };

function isStillEqual({ record, stamp }: OwedMirror, { source, image }: OwedFacts): boolean {
  if (record.sealed !== true || stamp === null) return false;
  const same = (a: FileStamp, b: FileStamp | null): boolean =>
    a.sizeBytes === b?.sizeBytes && a.modifiedNs === b.modifiedNs;
  return same(stamp.source, stampOf(source)) && same(stamp.image, stampOf(image));
}

function makeAnew(owed: OwedMirror, disk: Disk, facts: OwedFacts): Step {
  const source = present(facts.source.info, 'checked by obstacleOf');
  const named = facts.image.info?.backing ?? null;
  const base = present(layersOf(disk)[1], 'a mirror stands over a base');
  const backing: ImageFile | null =
    owed.record.made === 'ours'
      ? { path: pathOf(base.source), format: base.format }
      : // As its caller wrote it: a relative name stays relative.
        named === null
        ? null
        : { path: named.filename, format: present(owed.below[0], 'has a backing').format };
  return {
    kind: 'recreate-image',
    path: pathOf(owed.image.source),
    sizeBytes: source.virtualSizeBytes,
    backing,
    clusterSizeBytes: facts.image.info?.clusterSizeBytes ?? source.clusterSizeBytes,
  };
}

const pathOf = (source: StorageSource): string =>
  present(localPath(source), 'images of this plan are on this host');

interface Again {
  readonly domain: TakeUp['domain'];
  readonly disk: Disk;
  readonly twin: Layer;
  readonly below: readonly Image[];
  readonly record: MirrorRecord;
  readonly owed: OwedMirror;
  readonly asSealed: boolean;
}

function mirrorAgain({
  domain,
  disk,
  twin,
  below,
  record,
  owed,
  asSealed,
}: Again): readonly Step[] {
  const path = pathOf(twin.source);
  const changes: readonly Change[] = [
    {
      change: 'mirror',
      mirror: record,
      disk: { job: 'copy', ready: 'no', image: twin, backing: below, jobId: record.jobId },
    },
    { change: 'forget-role', path },
  ];
  const reverts: readonly Change[] = [
    { change: 'mirror-end', target: disk.target },
    { change: 'owe', owed },
    ...unfinished(domain, { ...owed, target: disk.target }),
  ];
  return [
    {
      kind: 'open-node',
      options: blockdevOptions(twin, {
        driver: disk.driver,
        readOnly: false,
        backing: formatNode(present(layersOf(disk)[1], 'a mirror stands over a base')),
      }),
    },
    {
      kind: 'start-mirror',
      jobId: record.jobId,
      device: formatNode(topOf(disk)),
      target: formatNode(twin),
      filter: record.filter,
      sync: asSealed ? 'none' : 'top',
      copyMode: 'background',
      changes,
      reverts,
    },
  ];
}

/** Takes mirrors up in a QEMU that runs already (`ferry start --mirror-later`, once the destination is back). */
export function planAttach(
  record: DomainRecord,
  found: {
    readonly attach: readonly Attach[];
    readonly open: readonly Step[];
    readonly nextIndex: number;
  },
): Plan {
  const { attach, open, nextIndex } = found;
  const steps: readonly Step[] = [
    ...attach.flatMap(({ before }) => before),
    { kind: 'record', changes: [{ change: 'next-index', nextIndex }], reverts: [] },
    ...open,
    ...attach.flatMap(({ inQemu }) => inQemu),
  ];
  return {
    operation: 'mirror-attach',
    domain: record.uuid,
    domainName: record.name,
    steps,
    commitAt: steps.length,
  };
}
