// Plans `ferry move`: an overlay on the source and its mirror on the destination, the frozen chain copied meanwhile, all
// disks switched together, the small overlay committed into the copied top layer. Afterwards the chain and its file
// names are what they were, on the other storage (design §5).

import { posix } from 'node:path';
import type { VerifyMode } from '../block/copy.js';
import type { DiskFacts, FileFacts, PathFacts } from '../block/facts.js';
import type { Image, Layer } from '../block/layer.js';
import { localPath } from '../block/layer.js';
import { chainOptions } from '../block/node.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import { findDisk } from '../domain/definition.js';
import type { DomainRecord } from '../domain/record.js';
import { present } from '../std/assert.js';
import { RequestError, StateError } from '../std/errors.js';
import type { MoveWay } from '../domain/undo-window.js';
import type { MoveData } from './move-tail.js';
import { commitIn, moveTail } from './move-tail.js';
import type { OverlayDisk } from './overlay.js';
import { copyJobId, filterNode, mirrorSteps, prepareSteps, snapshotStep } from './overlay.js';
import type { PivotWhen } from '../domain/pivot-when.js';
import { isRefusal, jobObstacle, layersOf, needLive, refuse } from './refuse.js';
import type { Plan, Refusal, Step } from './step.js';

export interface Move {
  readonly record: DomainRecord;
  /** Targets or source paths, as the user said them. */
  readonly disks: readonly string[];
  /** Absolute. */
  readonly to: string;
  readonly folder: FileFacts | null;
  readonly freeBytes: bigint;
  /** Of those: what other moves have still to write there. */
  readonly spokenForBytes: bigint;
  /** What was seen at every image of the chains, and at every path that the move would make (`destinationsOf`). */
  readonly files: ReadonlyMap<string, PathFacts>;
  readonly sizes: ReadonlyMap<string, DiskFacts>;
  /** Tells the overlays of this move from those of others: no two moves have the same. */
  readonly stamp: string;
  /** Size of the live layer above which it is rotated; null: never. */
  readonly rotateBytes: bigint | null;
  /** What each copy of a frozen image may read in a second; null: no limit. */
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
  readonly overlay: OverlayDisk & { readonly mirror: NonNullable<OverlayDisk['mirror']> };
}

/** Paths that a move of `disk` would make in `folder`: the copies, then the overlays on both sides. */
export function destinationsOf(
  disk: Disk,
  folder: string,
  stamp: string,
): { readonly copies: readonly string[]; readonly overlays: readonly [string, string] } | null {
  const paths = imagesOf(disk).map((image) => localPath(image.source));
  const top = paths[0];
  if (top == null || paths.some((path) => path === null)) return null;
  const overlay = `${posix.basename(top)}.move-${stamp}`;
  return {
    copies: paths.flatMap((path) =>
      path === null ? [] : [posix.join(folder, posix.basename(path))],
    ),
    overlays: [posix.join(posix.dirname(top), overlay), posix.join(folder, overlay)],
  };
}

export function planMove(request: Move): Plan | Refusal {
  const live = needLive(request.record);
  if (isRefusal(live)) return live;
  const disks: Disk[] = [];
  for (const name of request.disks) {
    const disk = findDisk(live.definition, name);
    const refusal = disk === null ? noDisk(request, name) : checkDisk(request, disk, disks);
    if (refusal !== null || disk === null) return refuse(refusal ?? new Error('unreachable'));
    disks.push(disk);
  }
  const refusal = checkFolder(request, disks);
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
type AtDestination = Pick<
  Move,
  'record' | 'to' | 'folder' | 'freeBytes' | 'spokenForBytes' | 'files' | 'stamp'
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

function checkDisk(request: Move, disk: Disk, before: readonly Disk[]): Error | null {
  const bad = badDisk(request, disk);
  const obstacle = diskObstacle(request, disk, before);
  if (obstacle !== null) return obstacle;
  if (disk.driver.cache === 'unsafe')
    return bad(
      "cache='unsafe' drops the guest's flushes, so nothing could be promised; use another cache mode",
    );
  const paths = destinationsOf(disk, request.to, request.stamp);
  if (paths === null || layersOf(disk).some((layer) => layer.source.type !== 'file')) {
    return bad(
      'an image of its chain is not a file; moves of block devices and network images are not supported',
    );
  }
  for (const layer of layersOf(disk)) {
    const path = present(localPath(layer.source), 'checked above');
    const seen = request.files.get(path);
    if (seen?.info == null)
      return bad(`image ${path} cannot be read by ferryd; check its path and permissions`);
    if (seen.info.snapshots > 0)
      return bad(
        `image ${path} holds internal snapshots, which a mirror does not carry; delete them first ('qemu-img snapshot -l ${path}')`,
      );
    if (seen.info.special.length > 0)
      return bad(`image ${path} has ${seen.info.special.join(', ')}`);
  }
  return checkDestinations(request, paths, before, bad);
}

export function checkDestinations(
  request: AtDestination,
  paths: NonNullable<ReturnType<typeof destinationsOf>>,
  before: readonly Disk[],
  bad: (text: string) => Error,
): Error | null {
  const others = new Set(
    before.flatMap((other) => destinationsOf(other, request.to, request.stamp)?.copies ?? []),
  );
  if (new Set(paths.copies).size < paths.copies.length)
    return bad('two images of its chain have the same file name and would become one');
  for (const path of [...paths.copies, ...paths.overlays]) {
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
      `${doing(request)}: there is no such folder; create it or mount the storage`,
    );
  if (request.folder.kind !== 'folder')
    return new RequestError('INVALID_ARG', `${doing(request)}: it is not a folder`);
  if (!request.folder.writable)
    return new RequestError(
      'INVALID_ARG',
      `${doing(request)}: ferryd cannot write there; check the permissions`,
    );
  const neededBytes = copyBytesOf(request, disks);
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

/** What the images of `disks` take on their storage, and so what is read and written. */
export const copyBytesOf = ({ files }: Pick<Move, 'files'>, disks: readonly Disk[]): bigint =>
  disks
    .flatMap(imagesOf)
    .reduce(
      (sum, image) => sum + (files.get(localPath(image.source) ?? '')?.info?.actualSizeBytes ?? 0n),
      0n,
    );

function wayOf(request: Move, disk: Disk, firstIndex: number): Way {
  const paths = present(destinationsOf(disk, request.to, request.stamp), 'checked before');
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
  const to = from.map((layer, i): Layer => ({
    source: { type: 'file', path: present(paths.copies[i], 'a copy per image') },
    format: layer.format,
    index: firstIndex + 2 + i,
  }));
  return {
    disk,
    from,
    to,
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
    ...ways.flatMap((way) => copySteps(request, way)),
    ...ways.flatMap(openCopies),
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

const dataOf = ({ disk, from, to, overlay }: Way): MoveWay => ({
  target: disk.target,
  driver: disk.driver,
  from,
  to,
  epochs: [{ source: overlay.overlay, twin: overlay.mirror.layer }],
  sizeBytes: overlay.facts.sizeBytes,
  clusterSizeBytes: overlay.facts.clusterSizeBytes,
});

/** The frozen chain, base first, so that what a copy names is there before it. */
export function copySteps(
  request: Pick<Move, 'files' | 'bytesPerSecond' | 'verify'>,
  way: { readonly from: readonly Image[]; readonly to: readonly Image[] },
): readonly Step[] {
  return way.from
    .map((layer, i): Step => {
      const below = way.to[i + 1];
      const path = present(localPath(layer.source), 'checked before');
      const named = request.files.get(path)?.info?.backing?.filename ?? null;
      // A relative name stays true in the new folder when it is a bare file name.
      const keeps = named !== null && !named.includes('/') && !named.includes(':');
      return {
        kind: 'copy-image',
        from: path,
        to: present(localPath(present(way.to[i], 'a copy per image').source), 'a file'),
        format: layer.format,
        backing:
          below === undefined || keeps
            ? null
            : { path: present(localPath(below.source), 'a file'), format: below.format },
        ...(request.bytesPerSecond === null ? {} : { bytesPerSecond: request.bytesPerSecond }),
        // Left out is full, as in the plans of a ferryd that did not know of it.
        ...(request.verify === 'full' ? {} : { verify: request.verify }),
      };
    })
    .toReversed();
}

const openCopies = (way: Way): readonly Step[] =>
  chainOptions(way.to, way.disk.driver, true).map((options) => ({ kind: 'open-node', options }));
