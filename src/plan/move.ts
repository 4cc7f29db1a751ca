// Plans `ferry move`: an overlay on the source and its mirror on the destination, the frozen chain copied meanwhile, all
// disks switched together, the small overlay committed into the copied top layer. Afterwards the chain and its file
// names are what they were, on the other storage (design §5).

import { posix } from 'node:path';
import type { FileIdentity, VerifyMode } from '../block/copy.js';
import type { DiskFacts, FileFacts, PathFacts } from '../block/facts.js';
import type { Image, Layer } from '../block/layer.js';
import { localPath } from '../block/layer.js';
import { chainOptions } from '../block/node.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import { findDisk } from '../domain/definition.js';
import type { MoveForm } from '../domain/move-form.js';
import type { DomainRecord } from '../domain/record.js';
import { present } from '../std/assert.js';
import { RequestError, StateError } from '../std/errors.js';
import type { Destinations } from './move-places.js';
import {
  clusterOf,
  conversionOf,
  copiesOf,
  destinationsOf,
  diskFormObstacle,
  formObstacle,
} from './move-places.js';
import type { MoveWay } from '../domain/undo-window.js';
import type { MoveData } from './move-tail.js';
import { commitIn, moveTail } from './move-tail.js';
import type { OverlayDisk } from './overlay.js';
import { copyJobId, filterNode, mirrorSteps, prepareSteps, snapshotStep } from './overlay.js';
import type { PivotWhen } from '../domain/pivot-when.js';
import { isRefusal, jobObstacle, layersOf, needLive, refuse } from './refuse.js';
import { checkSteps, shareObstacle, sharedOf } from './share-base.js';
import type { Plan, Refusal, Step, StepOf } from './step.js';

export interface Move {
  readonly record: DomainRecord;
  /** Targets or source paths, as the user said them. */
  readonly disks: readonly string[];
  /** The folder; absolute. */
  readonly to: string;
  /** File name of the top image in it; null: its own. */
  readonly name: string | null;
  readonly form: MoveForm;
  readonly folder: FileFacts | null;
  /** The folder of `form.overlayDir`. */
  readonly overlayFolder: FileFacts | null;
  readonly freeBytes: bigint;
  /** Of those: what other moves have still to write there. */
  readonly spokenForBytes: bigint;
  /** What was seen at every image of the chains, and at every path that the move would make (`destinationsOf`). */
  readonly files: ReadonlyMap<string, PathFacts>;
  /** Which files were found at those of them where a base may be that is shared. */
  readonly there: ReadonlyMap<string, FileIdentity>;
  /** By target: what a converted image takes at most. */
  readonly measured: ReadonlyMap<string, bigint>;
  readonly sizes: ReadonlyMap<string, DiskFacts>;
  /** Tells the overlays of this move from those of others: no two moves have the same. */
  readonly stamp: string;
  /** Size of the live layer above which it is rotated; null: never. */
  readonly rotateBytes: bigint | null;
  /** What the copies of frozen images may read in a second, together; null: no limit. */
  readonly bytesPerSecond: bigint | null;
  /** How much of each copy is read back and compared with what was read. */
  readonly verify: VerifyMode;
  readonly pivot: PivotWhen;
  /** Freezes the guest's file systems around the pivot. */
  readonly quiesce: boolean;
  readonly trim: boolean;
  /** How long its way back is kept open from the switch on; null: not at all. */
  readonly undoSeconds: number | null;
}

/** One disk on its way: the source's layers and where each of them goes. */
interface Way {
  readonly disk: Disk;
  readonly from: readonly Layer[];
  readonly to: readonly Layer[];
  /** How many of `to`, from the base up, are there already. */
  readonly shared: number;
  readonly overlay: OverlayDisk & { readonly mirror: NonNullable<OverlayDisk['mirror']> };
}

export function planMove(request: Move): Plan | Refusal {
  const live = needLive(request.record);
  if (isRefusal(live)) return live;
  const obstacle = formObstacle(request);
  if (obstacle !== null) return refuse(obstacle);
  const disks: Disk[] = [];
  for (const name of request.disks) {
    const disk = findDisk(live.definition, name);
    const refusal = disk === null ? noDisk(request, name) : checkDisk(request, disk, disks);
    if (refusal !== null || disk === null) return refuse(refusal ?? new Error('unreachable'));
    disks.push(disk);
  }
  const refusal = checkFolder(request, disks) ?? checkOverlayFolder(request);
  if (refusal !== null) return refuse(refusal);
  let nextIndex = live.nextIndex;
  const ways = disks.map((disk) => {
    const way = wayOf(request, disk, nextIndex);
    nextIndex += 2 + way.from.length;
    return way;
  });
  return build(request, ways, nextIndex);
}

/** What is asked of the destination, whether the domain runs or not. */
export type AtDestination = Pick<
  Move,
  | 'record'
  | 'disks'
  | 'to'
  | 'name'
  | 'form'
  | 'folder'
  | 'freeBytes'
  | 'spokenForBytes'
  | 'files'
  | 'there'
  | 'measured'
  | 'stamp'
  | 'bytesPerSecond'
>;

const doing = (request: Pick<Move, 'record' | 'to'>): string =>
  `move ${request.record.name} to ${request.to}`;

export const noDisk = (request: Pick<Move, 'record' | 'to'>, name: string): RequestError =>
  new RequestError(
    'INVALID_ARG',
    `${doing(request)}: no disk '${name}' in domain '${request.record.name}'; see 'ferry chain ${request.record.name}'`,
  );

/** A refusal of one disk. */
export const badDisk =
  ({ record }: Pick<Move, 'record'>, disk: Disk) =>
  (text: string): Error =>
    new RequestError('CONFIG_UNSUPPORTED', `move ${record.name}/${disk.target}: ${text}`);

/** What is in the way of any move of a disk, whether its domain runs or not. */
export function diskObstacle(
  request: Pick<Move, 'record'>,
  disk: Disk,
  before: readonly Disk[],
): Error | null {
  const bad = badDisk(request, disk);
  if (before.some(({ target }) => target === disk.target))
    return bad('it is named twice; name each disk once');
  if (disk.source === null) return bad('the drive is empty; there is nothing to move');
  if (disk.readonly || disk.device === 'cdrom')
    return bad(
      'the disk is read-only; nothing writes to it, so copy its image and change the definition',
    );
  return jobObstacle(disk, request.record);
}

/** The same where the guest runs, its images left out. */
export function runningObstacle(
  request: Pick<Move, 'record'>,
  disk: Disk,
  before: readonly Disk[],
): Error | null {
  const obstacle = diskObstacle(request, disk, before);
  if (obstacle !== null || disk.driver.cache !== 'unsafe') return obstacle;
  return badDisk(
    request,
    disk,
  )(
    "cache='unsafe' drops the guest's flushes, so nothing could be promised; use another cache mode",
  );
}

/** Why an image of this host cannot be moved, in whichever way. */
export function imageObstacle(path: string, seen: PathFacts | undefined): string | null {
  if (seen?.info == null)
    return `image ${path} cannot be read by ferryd; check its path and permissions`;
  return seen.info.special.length > 0 ? `image ${path} has ${seen.info.special.join(', ')}` : null;
}

/** The same of a running disk's images on this host: whoever serves one over the network knows what it is. */
export function mirroredObstacle({ files }: Pick<Move, 'files'>, disk: Disk): string | null {
  for (const path of layersOf(disk).flatMap(({ source }) => localPath(source) ?? [])) {
    const seen = files.get(path);
    if ((seen?.info?.snapshots ?? 0) > 0)
      return `image ${path} holds internal snapshots, which a mirror does not carry; delete them first ('qemu-img snapshot -l ${path}')`;
    const obstacle = imageObstacle(path, seen);
    if (obstacle !== null) return obstacle;
  }
  return null;
}

function checkDisk(request: Move, disk: Disk, before: readonly Disk[]): Error | null {
  const bad = badDisk(request, disk);
  const obstacle = runningObstacle(request, disk, before);
  if (obstacle !== null) return obstacle;
  const paths = destinationsOf(disk, request);
  if (paths === null || layersOf(disk).some((layer) => layer.source.type !== 'file')) {
    return bad("an image of its chain is not a file; leave out '--strategy overlay'");
  }
  const unfit = mirroredObstacle(request, disk);
  if (unfit !== null) return bad(unfit);
  return checkDestinations(request, disk, paths, before);
}

export function checkDestinations(
  request: AtDestination,
  disk: Disk,
  paths: Destinations,
  before: readonly Disk[],
): Error | null {
  const bad = badDisk(request, disk);
  const obstacle = diskFormObstacle(request, disk, bad) ?? shareObstacle(request, disk, bad);
  if (obstacle !== null) return obstacle;
  const shared = sharedOf(request, imagesOf(disk));
  const made = paths.copies.slice(0, paths.copies.length - shared);
  const others = new Set(
    before.flatMap((other) => {
      const theirs = destinationsOf(other, request)?.copies ?? [];
      return theirs.slice(0, theirs.length - sharedOf(request, imagesOf(other)));
    }),
  );
  if (new Set(paths.copies).size < paths.copies.length)
    return bad('two images of its chain have the same file name and would become one');
  for (const path of [...made, ...paths.overlays]) {
    if (others.has(path))
      return bad(
        `another disk of this move would become ${path} too; move them one after the other, to different folders`,
      );
    if (request.files.get(path)?.file != null)
      return bad(
        `${path} exists already and is not overwritten; remove it or choose another folder`,
      );
    if (request.files.get(`${path}.part`)?.file != null)
      return bad(
        `${path}.part exists already: an unfinished copy of somebody; remove it or choose another folder`,
      );
  }
  return null;
}

export function checkFolder(request: AtDestination, disks: readonly Disk[]): Error | null {
  if (disks.length === 0)
    return new RequestError(
      'INVALID_ARG',
      `${doing(request)}: no disk named; see 'ferry chain ${request.record.name}'`,
    );
  if (!request.to.startsWith('/'))
    return new RequestError(
      'INVALID_ARG',
      `${doing(request)}: the folder must be an absolute path`,
    );
  if (request.folder === null)
    return new RequestError(
      'INVALID_ARG',
      `${doing(request)}: there is no such folder; create it or mount the storage. The name of a file would end in the suffix of an image, as in ${posix.join(request.to, 'disk.qcow2')}`,
    );
  if (request.folder.kind !== 'folder')
    return new RequestError('INVALID_ARG', `${doing(request)}: it is not a folder`);
  if (!request.folder.writable)
    return new RequestError(
      'INVALID_ARG',
      `${doing(request)}: ferryd cannot write there; check the permissions`,
    );
  const neededBytes = roomBytesOf(request, disks);
  if (neededBytes > request.freeBytes - request.spokenForBytes) {
    const others =
      request.spokenForBytes === 0n
        ? ''
        : `, of which other moves have still to write ${request.spokenForBytes}`;
    return new StateError(
      'OPERATION_INVALID',
      `${doing(request)}: the images need ${neededBytes} bytes and ${request.freeBytes} are free there${others}; make room or choose another storage`,
    );
  }
  return null;
}

function checkOverlayFolder({ record, form, overlayFolder }: Move): Error | null {
  const { overlayDir } = form;
  if (overlayDir === null) return null;
  const bad = (text: string): Error =>
    new RequestError(
      'INVALID_ARG',
      `move ${record.name}: the folder of the overlay, ${overlayDir}: ${text}`,
    );
  if (overlayFolder?.kind !== 'folder') return bad('there is no such folder; create it');
  return overlayFolder.writable
    ? null
    : bad('ferryd cannot write there; check the permissions, or choose another folder');
}

/** What the images of `disks` that are copied take on their storage, and so what is read. */
export const copyBytesOf = (request: AtDestination, disks: readonly Disk[]): bigint =>
  disks.reduce((sum, disk) => sum + readBytesOf(request, disk), 0n);

function readBytesOf(request: AtDestination, disk: Disk): bigint {
  const images = imagesOf(disk);
  return images
    .slice(0, images.length - sharedOf(request, images))
    .reduce(
      (sum, { source }) =>
        sum + (request.files.get(localPath(source) ?? '')?.info?.actualSizeBytes ?? 0n),
      0n,
    );
}

/** What the copies of `disks` take at the destination. */
export const roomBytesOf = (request: AtDestination, disks: readonly Disk[]): bigint =>
  disks.reduce((sum, disk) => {
    const all = readBytesOf(request, disk);
    const measured = request.measured.get(disk.target);
    if (measured === undefined) return sum + all;
    // Of a chain that stays one, only the top image becomes another.
    const top = request.files.get(localPath(present(disk.source, 'it has an image')) ?? '')?.info;
    const converted = request.form.flatten ? all : (top?.actualSizeBytes ?? 0n);
    return sum + all - converted + measured;
  }, 0n);

/** What each image takes on its storage, by path. */
export const sizesIn = (files: Move['files']): ReadonlyMap<string, bigint> =>
  new Map(
    [...files].flatMap(([path, { info }]): [string, bigint][] =>
      info === null ? [] : [[path, info.actualSizeBytes]],
    ),
  );

function wayOf(request: Move, disk: Disk, firstIndex: number): Way {
  const paths = present(destinationsOf(disk, request), 'checked before');
  const from = layersOf(disk);
  const overlay: Layer = {
    source: { type: 'file', path: paths.overlays[0] },
    format: 'qcow2',
    index: firstIndex,
  };
  const twin: Layer = {
    source: { type: 'file', path: paths.overlays[1] },
    format: 'qcow2',
    index: firstIndex + 1,
  };
  const to = copiesOf(from, request).map(({ path, format }, i): Layer => ({
    source: { type: 'file', path },
    format,
    index: firstIndex + 2 + i,
  }));
  return {
    disk,
    from,
    to,
    shared: sharedOf(request, from),
    overlay: {
      disk,
      facts: present(request.sizes.get(disk.target), 'sizes of all disks were read'),
      overlay,
      made: 'ours',
      overlayExisted: false,
      mirror: {
        layer: twin,
        existed: false,
        below: from,
        record: {
          target: disk.target,
          jobId: copyJobId(disk.target, twin),
          filter: filterNode(twin),
          made: 'ours',
          snapshot: null,
          move: true,
          problem: null,
        },
        copyMode: 'background',
      },
    },
  };
}

function build(request: Move, ways: readonly Way[], nextIndex: number): Plan {
  const overlays = ways.map((way) => way.overlay);
  const { rotateBytes, pivot, quiesce, trim, undoSeconds } = request;
  const move: MoveData = {
    ...{ ways: ways.map(dataOf), rotateBytes, pivot, quiesce, trim },
    ...(undoSeconds === null ? {} : { undoSeconds }),
  };
  const before: readonly Step[] = [
    ...prepareSteps(overlays),
    snapshotStep(overlays, nextIndex),
    ...overlays.flatMap(mirrorSteps),
    // Open first: QEMU's lock keeps writers off what is compared.
    ...ways.flatMap((way) => openCopies(way).slice(0, way.shared)),
    ...ways.flatMap((way) => checkSteps(request, way.from)),
    ...inLanes(
      request,
      ways.flatMap((way) => copySteps(request, way.from)),
    ),
    ...ways.flatMap((way) => openCopies(way).slice(way.shared)),
  ];
  const tail = moveTail(request.record, move);
  return {
    operation: 'move',
    domain: request.record.uuid,
    domainName: request.record.name,
    steps: [...before, ...tail],
    commitAt: before.length + commitIn(tail),
    waitsFrom: before.findIndex((step) => step.kind === 'snapshot'),
    move,
  };
}

const dataOf = ({ disk, from, to, shared, overlay }: Way): MoveWay => ({
  target: disk.target,
  driver: disk.driver,
  from,
  to,
  ...(shared === 0 ? {} : { shared }),
  epochs: [{ source: overlay.overlay, twin: overlay.mirror.layer }],
  sizeBytes: overlay.facts.sizeBytes,
  clusterSizeBytes: overlay.facts.clusterSizeBytes,
});

/** The frozen chain, base first, so that what a copy names is there before it. Not what is shared. */
export function copySteps(
  request: AtDestination & Pick<Move, 'verify'>,
  images: readonly Image[],
): readonly StepOf<'copy-image'>[] {
  const copies = copiesOf(images, request);
  const conversion = conversionOf(images, request, clusterOf(request.files, images));
  return copies
    .slice(0, copies.length - sharedOf(request, images))
    .map((copy, i): StepOf<'copy-image'> => {
      const { source, format } = present(images[i], 'a copy is of an image');
      const below = copies[i + 1];
      const path = present(localPath(source), 'checked before');
      const named = request.files.get(path)?.info?.backing?.filename ?? null;
      // A relative name stays true in the new folder when it is a bare file name.
      const keeps = named !== null && !named.includes('/') && !named.includes(':');
      return {
        kind: 'copy-image',
        from: path,
        to: copy.path,
        format,
        backing: below === undefined || keeps ? null : below,
        ...(request.bytesPerSecond === null ? {} : { bytesPerSecond: request.bytesPerSecond }),
        // Left out is full, as in the plans of a ferryd that did not know of it.
        ...(request.verify === 'full' ? {} : { verify: request.verify }),
        ...(i > 0 || conversion === null ? {} : { convert: conversion, backing: null }),
      };
    })
    .toReversed();
}

/** Copies that share neither storage, or one of them only, go on at once: what holds one up need not hold up another. */
export function inLanes(
  { files, folder }: Pick<Move, 'files' | 'folder'>,
  steps: readonly StepOf<'copy-image'>[],
): readonly StepOf<'copy-image'>[] {
  const laneOf = ({ from, convert }: StepOf<'copy-image'>): string | null => {
    // qemu-img is held back by itself, so nothing is done beside it: the budget is one.
    const source = convert === undefined ? files.get(from)?.file?.device : null;
    return source == null || folder === null ? null : `${source}-${folder.device}`;
  };
  const lanes = steps.map(laneOf);
  if (lanes.includes(null) || new Set(lanes).size === 1) return steps;
  return steps.map((step, i) => ({ ...step, lane: present(lanes[i], 'all have one') }));
}

const openCopies = (way: Way): readonly Step[] =>
  chainOptions(way.to, way.disk.driver, true).map((options) => ({ kind: 'open-node', options }));
