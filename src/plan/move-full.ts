// Plans `ferry move` by full mirrors: QEMU copies each disk as the guest sees it into one new image, keeps it in step,
// and all disks switch together. Nothing is put on the source and nothing is merged afterwards, so it is the way to what
// is no file and from what is none. What it costs: a death of QEMU makes it start over (law 2).

import { posix } from 'node:path';
import type { Destination } from '../block/destination.js';
import type { DiskFacts, FileFacts, PathFacts } from '../block/facts.js';
import type { Image, Layer } from '../block/layer.js';
import type { Fuse } from '../block/fuse.js';
import { throughFuse } from '../block/fuse.js';
import { formatNode, localPath } from '../block/layer.js';
import type { BlockdevOptions, OpenHow } from '../block/node.js';
import { blockdevOptions, chainOptions, reopenOptions } from '../block/node.js';
import { findDisk } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import type { PivotWhen } from '../domain/pivot-when.js';
import type { Change, DomainRecord, MirrorRecord } from '../domain/record.js';
import { present } from '../std/assert.js';
import { RequestError, StateError } from '../std/errors.js';
import { badDisk, mirroredObstacle, noDisk, runningObstacle } from './move.js';
import type { Place } from './move-places.js';
import { copyJobId, filterNode } from './overlay.js';
import { isRefusal, layersOf, needLive, refuse } from './refuse.js';
import { staleRoles } from './roles.js';
import type { PivotDisk, Plan, Refusal, Step, StepOf } from './step.js';

/** One disk on its way: its whole chain, active first, and the one image that it becomes. */
export interface FullWay {
  readonly target: string;
  readonly driver: OpenHow;
  readonly from: readonly Layer[];
  readonly to: Layer;
  readonly sizeBytes: bigint;
  /** What its target is behind; null: it is on this host. */
  readonly fuse: Fuse | null;
}

/** What such a plan knows of itself besides its steps. */
export interface FullMove {
  readonly ways: readonly FullWay[];
  readonly pivot: PivotWhen;
  readonly quiesce: boolean;
}

/** What was seen of a block device. */
export interface DeviceFacts {
  readonly file: FileFacts | null;
  readonly sizeBytes: bigint;
  /** Who has it, as the end of a sentence; null: nobody. */
  readonly usedBy: string | null;
}

export interface MoveFull {
  readonly record: DomainRecord;
  /** Targets or source paths, as the user said them. */
  readonly disks: readonly string[];
  /** As the user said it, or the folder of it. */
  readonly to: string;
  /** Of the file in that folder; null: as its image. */
  readonly name: string | null;
  readonly destination: Destination;
  readonly folder: FileFacts | null;
  readonly freeBytes: bigint;
  readonly spokenForBytes: bigint;
  /** Null: it goes to none. */
  readonly device: DeviceFacts | null;
  /** What was seen at every image of the chains, and at every path that would be made (`fullPathOf`). */
  readonly files: ReadonlyMap<string, PathFacts>;
  readonly sizes: ReadonlyMap<string, DiskFacts>;
  /** What each mirror may carry in a second until it is READY; null: no limit. */
  readonly bytesPerSecond: bigint | null;
  readonly pivot: PivotWhen;
  readonly quiesce: boolean;
  readonly trim: boolean;
  /** Where fuses of the domain have their files, before their number; and their log. */
  readonly fuseAt: { readonly prefix: string; readonly logFile: string };
  /** The credentials of an NBD server with TLS; null: none were named. */
  readonly tlsCreds: string | null;
  /** Who has the NBD export, as the end of a sentence; null: nobody that is known. */
  readonly exportUsedBy: string | null;
}

/** The file that a disk becomes in a folder: named as its image, or where that is none as domain and disk. */
export function fullPathOf(record: Pick<DomainRecord, 'name'>, disk: Disk, place: Place): string {
  const { source } = disk;
  const own = source?.type === 'file' ? posix.basename(source.path) : null;
  const name = place.name ?? own ?? `${record.name}-${disk.target}.${disk.format}`;
  return posix.join(place.to, name);
}

export function planMoveFull(request: MoveFull): Plan | Refusal {
  const live = needLive(request.record);
  if (isRefusal(live)) return live;
  const disks: Disk[] = [];
  for (const name of request.disks) {
    const disk = findDisk(live.definition, name);
    const refusal = disk === null ? noDisk(request, name) : checkDisk(request, disk, disks);
    if (refusal !== null || disk === null) return refuse(refusal ?? new Error('unreachable'));
    disks.push(disk);
  }
  const refusal = checkDestination(request, disks);
  if (refusal !== null) return refuse(refusal);
  const ways = disks.map((disk, i) => wayOf(request, disk, live.nextIndex + i));
  return build(request, ways, live.nextIndex + ways.length);
}

const doing = ({ record, to }: Pick<MoveFull, 'record' | 'to'>): string =>
  `move ${record.name} to ${to}`;

function checkDisk(request: MoveFull, disk: Disk, before: readonly Disk[]): Error | null {
  const obstacle = runningObstacle(request, disk, before);
  if (obstacle !== null) return obstacle;
  const unfit = mirroredObstacle(request, disk);
  return unfit === null ? null : badDisk(request, disk)(unfit);
}

function checkDestination(request: MoveFull, disks: readonly Disk[]): Error | null {
  const { destination } = request;
  if (disks.length === 0)
    return new RequestError(
      'INVALID_ARG',
      `${doing(request)}: no disk named; see 'ferry chain ${request.record.name}'`,
    );
  if (destination.kind === 'folder' && request.name === null) return checkFolder(request, disks);
  if (disks.length > 1)
    return new RequestError(
      'INVALID_ARG',
      `${doing(request)}: ${disks.length} disks do not go to one place; move them one after the other, each to its own`,
    );
  if (destination.kind === 'folder') return checkFolder(request, disks);
  return destination.kind === 'block' ? checkDevice(request, disks[0]) : checkExport(request);
}

/** What its server is, and how large, is seen when the fuse connects to it. */
function checkExport(request: MoveFull): Error | null {
  const { destination, tlsCreds, exportUsedBy } = request;
  const bad = (text: string): Error =>
    new RequestError('INVALID_ARG', `${doing(request)}: ${text}`);
  const isTls = destination.kind === 'nbd' && destination.isTls;
  if (isTls && tlsCreds === null)
    return bad("with TLS it needs credentials: name their folder with '--tls-creds DIR'");
  if (!isTls && tlsCreds !== null)
    return bad('credentials are for TLS: say nbds://, or leave them out');
  return exportUsedBy === null
    ? null
    : new StateError('OPERATION_INVALID', `${doing(request)}: ${exportUsedBy}`);
}

function checkDevice(request: MoveFull, disk: Disk | undefined): Error | null {
  const { device, sizes } = request;
  const bad = (text: string): Error =>
    new RequestError('INVALID_ARG', `${doing(request)}: ${text}`);
  const neededBytes = sizes.get(disk?.target ?? '')?.sizeBytes ?? 0n;
  if (device?.file == null) return bad('there is no such device');
  if (device.file.kind !== 'block')
    return bad('it is no block device; for a file, name its folder');
  if (!device.file.writable) return bad('ferryd cannot write to it; check the permissions');
  if (device.usedBy !== null)
    return new StateError('OPERATION_INVALID', `${doing(request)}: ${device.usedBy}`);
  if (device.sizeBytes < neededBytes)
    return bad(
      `the disk has ${neededBytes} bytes and the device ${device.sizeBytes}; name a larger one`,
    );
  return null;
}

function checkFolder(request: MoveFull, disks: readonly Disk[]): Error | null {
  const { folder, files, record, to } = request;
  const bad = (text: string): Error =>
    new RequestError('INVALID_ARG', `${doing(request)}: ${text}`);
  if (!to.startsWith('/')) return bad('the folder must be an absolute path');
  if (folder === null) return bad('there is no such folder; create it or mount the storage');
  if (folder.kind !== 'folder') return bad('it is not a folder');
  if (!folder.writable) return bad('ferryd cannot write there; check the permissions');
  const paths = disks.map((disk) => fullPathOf(record, disk, request));
  const twice = paths.find((path, i) => paths.indexOf(path) < i);
  if (twice !== undefined)
    return bad(`two disks would become ${twice}; move them one after the other`);
  const taken = paths.find((path) => files.get(path)?.file != null);
  if (taken !== undefined)
    return bad(
      `${taken} exists already and is not overwritten; remove it or choose another folder`,
    );
  const neededBytes = fullBytesOf(request, disks);
  if (neededBytes <= request.freeBytes - request.spokenForBytes) return null;
  return new StateError(
    'OPERATION_INVALID',
    `${doing(request)}: the images need up to ${neededBytes} bytes and ${request.freeBytes} are free there; make room or choose another storage`,
  );
}

/** What the copies of `disks` hold: what their images take, but no more than the disk; of devices all of it. */
export const fullBytesOf = (
  { files, sizes }: Pick<MoveFull, 'files' | 'sizes'>,
  disks: readonly Disk[],
): bigint => disks.reduce((sum, disk) => sum + bytesOf(files, sizes, disk), 0n);

function bytesOf(files: MoveFull['files'], sizes: MoveFull['sizes'], disk: Disk): bigint {
  const whole = sizes.get(disk.target)?.sizeBytes ?? 0n;
  const taken = layersOf(disk).map(({ source }) =>
    source.type !== 'file'
      ? whole
      : (files.get(localPath(source) ?? '')?.info?.actualSizeBytes ?? 0n),
  );
  const all = taken.reduce((sum, bytes) => sum + bytes, 0n);
  return all < whole ? all : whole;
}

function wayOf(request: MoveFull, disk: Disk, index: number): FullWay {
  const { sizeBytes } = present(request.sizes.get(disk.target), 'sizes of all disks were read');
  const common = { target: disk.target, driver: disk.driver, from: layersOf(disk), sizeBytes };
  const to = { ...imageAt(request, disk), index };
  const { prefix, logFile } = request.fuseAt;
  const files = fuseFilesOf(prefix, index);
  const fuse =
    to.source.type !== 'network'
      ? null
      : {
          ...files,
          name: disk.target,
          logFile,
          server: to.source,
        };
  return { ...common, to, fuse };
}

/** What has no file system around it is raw: the disk, byte by byte. */
export function imageAt(
  { record, to, name: file, destination, tlsCreds }: MoveFull,
  disk: Disk,
): Omit<Image, 'index'> {
  switch (destination.kind) {
    case 'folder': {
      const path = fullPathOf(record, disk, { to, name: file });
      return { source: { type: 'file', path }, format: disk.format };
    }
    case 'block':
      return { source: { type: 'block', path: destination.path }, format: 'raw' };
    case 'nbd': {
      const { name, host } = destination;
      const tls = tlsCreds === null ? {} : { tlsCreds };
      return { source: { type: 'network', protocol: 'nbd', name, host, ...tls }, format: 'raw' };
    }
  }
}

const topOf = ({ from }: FullWay): Layer => present(from[0], 'a chain is never empty');
const jobOf = ({ target, to }: FullWay): string => copyJobId(target, to);

function build(request: MoveFull, ways: readonly FullWay[], nextIndex: number): Plan {
  const { record, pivot, quiesce, trim } = request;
  const jobIds = ways.map(jobOf);
  const fuses = ways.flatMap(({ fuse }) => fuse ?? []);
  const behind = fuses.length === 0 ? {} : { fuses };
  const mirrors = ways.flatMap((way) => mirrorOf(way, request.bytesPerSecond, nextIndex));
  const made = ways.flatMap((way) => makeSteps(request, way));
  const held: readonly Step[] =
    pivot.how === 'auto' ? [] : [{ kind: 'wait-pivot', when: pivot, jobIds, ...behind }];
  const before: readonly Step[] = [
    ...made,
    ...mirrors,
    { kind: 'wait-ready', job: 'copy', jobIds, isPaced: true, ...behind },
    ...held,
    {
      kind: 'pivot',
      disks: ways.map(toDestination),
      ...(quiesce ? { quiesce } : {}),
      changes: ways.flatMap((way) => arrived(record, way)),
    },
  ];
  return {
    operation: 'move',
    domain: record.uuid,
    domainName: record.name,
    steps: [
      ...before,
      { kind: 'resume-guest', when: 'if-running' },
      ...(quiesce ? [{ kind: 'thaw-guest' } as const] : []),
      { kind: 'dismiss-jobs', jobIds },
      ...ways.flatMap(closeSource),
      ...ways.flatMap((way) => endFuses(request, way)),
      ...(trim ? [{ kind: 'trim-guest' } as const] : []),
    ],
    commitAt: before.length,
    // Once the last of them runs, a QEMU that goes takes nothing along that the next start does not make again.
    waitsFrom: made.length + mirrors.length - 1,
    full: { ways, pivot, quiesce },
  };
}

function makeSteps({ sizes }: MoveFull, { to, target, sizeBytes, fuse }: FullWay): readonly Step[] {
  const { source, format } = to;
  switch (source.type) {
    case 'file': {
      const cluster = sizes.get(target)?.clusterSizeBytes ?? null;
      return [
        {
          kind: 'create-image',
          path: source.path,
          sizeBytes,
          backing: null,
          clusterSizeBytes: format === 'qcow2' ? cluster : null,
          existed: false,
          format,
        },
      ];
    }
    case 'block':
      return [{ kind: 'take-device', path: source.path, sizeBytes }];
    case 'network':
      return [{ kind: 'start-fuse', fuse: present(fuse, 'what is on the network has its fuse') }];
  }
}

/**
 * While it is filled, what is zero in the source is discarded at the target (block/mirror.c asks whether it can write
 * zeroes by unmapping, and that is what `discard` allows); otherwise all of a device would be written.
 */
const whileFilled = (driver: OpenHow): OpenHow => ({ ...driver, discard: 'unmap' });

/** As QEMU opens it. */
const openedOf = ({ to, fuse }: FullWay): Layer =>
  fuse === null ? to : { ...to, source: throughFuse(fuse) };

const openHow = ({ driver, sizeBytes }: FullWay, isFilled: boolean) => ({
  driver: isFilled ? whileFilled(driver) : driver,
  readOnly: false,
  backing: null,
  sizeBytes,
});

export const fillOptions = (way: FullWay): BlockdevOptions =>
  blockdevOptions(openedOf(way), openHow(way, true));

function mirrorOf(
  way: FullWay,
  bytesPerSecond: bigint | null,
  nextIndex: number,
): readonly [StepOf<'open-node'>, StepOf<'start-mirror'>] {
  const { target, to } = way;
  const record: MirrorRecord = {
    target,
    jobId: jobOf(way),
    filter: filterNode(to),
    made: 'ours',
    snapshot: null,
    move: true,
    problem: null,
    ...(way.fuse === null ? {} : { fuse: way.fuse }),
  };
  return [
    { kind: 'open-node', options: fillOptions(way) },
    {
      kind: 'start-mirror',
      jobId: record.jobId,
      device: formatNode(topOf(way)),
      target: formatNode(to),
      filter: record.filter,
      sync: 'full',
      copyMode: 'background',
      ...(bytesPerSecond === null ? {} : { bytesPerSecond }),
      changes: [
        { change: 'next-index', nextIndex },
        {
          change: 'mirror',
          mirror: record,
          disk: { job: 'copy', ready: 'no', image: to, backing: [], jobId: record.jobId },
        },
      ],
      reverts: [{ change: 'mirror-end', target }],
    },
  ];
}

function toDestination(way: FullWay): PivotDisk {
  const isSame = way.driver.discard === 'unmap';
  return {
    target: way.target,
    jobId: jobOf(way),
    job: 'copy',
    from: formatNode(topOf(way)),
    to: formatNode(way.to),
    path: localPath(way.to.source),
    ...(way.fuse === null ? {} : { fuse: way.fuse }),
    // From the guest's first write on it is opened as its XML says.
    swing: isSame ? null : reopenOptions(way.to, openHow(way, false)),
    // What is not switched to is closed, or filled on as it is; a target that is lost could not even be reopened, and
    // the guest would be left standing (seen: `Error flushing drive`).
    swingBack: null,
    header: null,
    offline: null,
  };
}

/** From now on the destination is live, and what stays behind is a point in time. */
function arrived(record: DomainRecord, { target, from, to }: FullWay): readonly Change[] {
  return [
    {
      change: 'chain',
      target,
      images: [to],
      was: present(from[0], 'a chain is never empty').source,
    },
    { change: 'mirror-end', target },
    ...staleRoles(record, target, from, [to]),
    {
      change: 'event',
      event: {
        type: 'block-job',
        path: localPath(to.source),
        target,
        job: 'copy',
        status: 'completed',
      },
    },
  ];
}

/** A domain that was started on its server has none. */
const endFuses = ({ fuseAt }: MoveFull, { from }: FullWay): readonly Step[] =>
  from
    .filter(({ source }) => source.type === 'network')
    .map(({ index }) => ({ kind: 'end-fuse', fuse: fuseFilesOf(fuseAt.prefix, index) }));

const fuseFilesOf = (prefix: string, index: number) => ({
  socket: `${prefix}${index}.sock`,
  pidFile: `${prefix}${index}.pid`,
  stateFile: `${prefix}${index}.json`,
});

const closeSource = (way: FullWay): readonly Step[] =>
  chainOptions(way.from, way.driver, false)
    .toReversed()
    .map((options) => ({ kind: 'close-node', options }));
