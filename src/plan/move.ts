// Plans `ferry move`: an overlay on the source and its mirror on the destination, the frozen chain copied meanwhile, all
// disks switched together, the small overlay committed into the copied top layer. Afterwards the chain and its file
// names are what they were, on the other storage (design §5).

import { posix } from 'node:path';
import type { DiskFacts, FileFacts, PathFacts } from '../block/facts.js';
import type { Layer } from '../block/layer.js';
import { formatNode, localPath } from '../block/layer.js';
import type { BlockdevOptions } from '../block/node.js';
import { blockdevOptions, chainOptions, reopenOptions } from '../block/node.js';
import type { Disk } from '../domain/disk.js';
import { findDisk } from '../domain/definition.js';
import type { Change, DomainRecord } from '../domain/record.js';
import type { Snapshot } from '../domain/snapshot.js';
import { present } from '../std/assert.js';
import { RequestError, StateError } from '../std/errors.js';
import { staleRoles } from './mirror-end.js';
import type { OverlayDisk } from './overlay.js';
import {
  commitJobId,
  copyJobId,
  filterNode,
  mirrorSteps,
  prepareSteps,
  snapshotStep,
} from './overlay.js';
import { isRefusal, jobObstacle, layersOf, needLive, refuse } from './refuse.js';
import type { Plan, PivotDisk, Refusal, Step } from './step.js';

export interface Move {
  readonly record: DomainRecord;
  /** Targets or source paths, as the user said them. */
  readonly disks: readonly string[];
  /** Absolute. */
  readonly to: string;
  readonly folder: FileFacts | null;
  readonly freeBytes: bigint;
  /** What was seen at every image of the chains, and at every path that the move would make (`destinationsOf`). */
  readonly files: ReadonlyMap<string, PathFacts>;
  readonly sizes: ReadonlyMap<string, DiskFacts>;
  /** Tells the overlays of this move from those of others: no two moves have the same. */
  readonly stamp: string;
  readonly nowSeconds: number;
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
  const paths = layersOf(disk).map((layer) => localPath(layer.source));
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
    const refusal =
      disk === null
        ? new RequestError(
            'INVALID_ARG',
            `${doing(request)}: no disk '${name}' in domain '${request.record.name}'; see 'ferry chain ${request.record.name}'`,
          )
        : checkDisk(request, disk, disks);
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

const doing = (request: Move): string => `move ${request.record.name} to ${request.to}`;

function checkDisk(request: Move, disk: Disk, before: readonly Disk[]): Error | null {
  const what = `move ${request.record.name}/${disk.target}`;
  const bad = (text: string): Error => new RequestError('CONFIG_UNSUPPORTED', `${what}: ${text}`);
  if (before.includes(disk)) return bad('it is named twice; name each disk once');
  if (disk.source === null) return bad('the drive is empty; there is nothing to move');
  if (disk.readonly || disk.device === 'cdrom')
    return bad(
      'the disk is read-only; nothing writes to it, so copy its image and change the definition',
    );
  const obstacle = jobObstacle(disk);
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

function checkDestinations(
  request: Move,
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

function checkFolder(request: Move, disks: readonly Disk[]): Error | null {
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
  const neededBytes = disks
    .flatMap(layersOf)
    .reduce(
      (sum, layer) =>
        sum + (request.files.get(localPath(layer.source) ?? '')?.info?.actualSizeBytes ?? 0n),
      0n,
    );
  if (neededBytes > request.freeBytes) {
    return new StateError(
      'OPERATION_INVALID',
      `${doing(request)}: the images need ${neededBytes} bytes and ${request.freeBytes} are free there; make room or choose another storage`,
    );
  }
  return null;
}

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
  const before: readonly Step[] = [
    ...prepareSteps(overlays),
    snapshotStep(overlays, nextIndex),
    ...overlays.flatMap(mirrorSteps),
    ...ways.flatMap((way) => copySteps(request, way)),
    ...ways.flatMap(openCopies),
    { kind: 'wait-ready', job: 'copy', jobIds: ways.map((way) => way.overlay.mirror.record.jobId) },
  ];
  const jobIds = ways.map((way) => way.overlay.mirror.record.jobId);
  const commitIds = ways.map((way) => commitJobId(way.disk.target, way.overlay.mirror.layer));
  const steps: readonly Step[] = [
    ...before,
    {
      kind: 'pivot',
      disks: ways.map(toDestination),
      changes: ways.flatMap((way) => arrived(request, way)),
    },
    { kind: 'resume-guest', when: 'if-running' },
    { kind: 'dismiss-jobs', jobIds },
    ...ways.flatMap(closeSource),
    ...ways.map(startCommit),
    { kind: 'wait-ready', job: 'commit', jobIds: commitIds },
    {
      kind: 'pivot',
      disks: ways.map(intoCopy),
      changes: ways.flatMap((way) => settled(request, way)),
    },
    { kind: 'resume-guest', when: 'if-running' },
    { kind: 'dismiss-jobs', jobIds: commitIds },
    ...ways.flatMap(removeTwin),
  ];
  return {
    operation: 'move',
    domain: request.record.uuid,
    domainName: request.record.name,
    steps,
    commitAt: before.length + 1,
  };
}

/** The frozen chain, base first, so that what a copy names is there before it. */
function copySteps(request: Move, way: Way): readonly Step[] {
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
      };
    })
    .toReversed();
}

const openCopies = (way: Way): readonly Step[] =>
  chainOptions(way.to, way.disk.driver, true).map((options) => ({ kind: 'open-node', options }));

const topCopy = (way: Way): Layer => present(way.to[0], 'a chain is never empty');

function twinOptions(way: Way, base: Layer): BlockdevOptions {
  return blockdevOptions(way.overlay.mirror.layer, {
    driver: way.disk.driver,
    readOnly: false,
    backing: formatNode(base),
  });
}

function toDestination(way: Way): PivotDisk {
  const twin = way.overlay.mirror.layer;
  return {
    target: way.disk.target,
    jobId: way.overlay.mirror.record.jobId,
    job: 'copy',
    from: formatNode(way.overlay.overlay),
    to: formatNode(twin),
    path: localPath(twin.source),
    swing: reopenOptions(twin, {
      driver: way.disk.driver,
      readOnly: false,
      backing: formatNode(topCopy(way)),
    }),
    swingBack: reopenOptions(twin, {
      driver: way.disk.driver,
      readOnly: false,
      backing: formatNode(present(way.from[0], 'a chain is never empty')),
    }),
    header: localPath(topCopy(way).source),
    offline: null,
  };
}

/** From now on the destination is live, and what stays behind is a point in time. */
function arrived(request: Move, way: Way): readonly Change[] {
  const twin = way.overlay.mirror.layer;
  const before = [way.overlay.overlay, ...way.from];
  const after = [twin, ...way.to];
  return [
    { change: 'chain', target: way.disk.target, images: after, was: way.overlay.overlay.source },
    { change: 'mirror-end', target: way.disk.target },
    ...staleRoles(request.record.uuid, way.disk.target, before, after, request.nowSeconds),
    ...rewrittenSnapshots(request.record, way),
    {
      change: 'event',
      event: {
        type: 'block-job',
        path: localPath(twin.source),
        target: way.disk.target,
        job: 'copy',
        status: 'completed',
      },
    },
  ];
}

/** Snapshot objects whose layers moved name the new places. The move's own overlay is no snapshot object. */
function rewrittenSnapshots(record: DomainRecord, way: Way): readonly Change[] {
  const moved = new Map(way.from.map((layer, i) => [localPath(layer.source), way.to[i]]));
  return record.snapshots.flatMap((snapshot): readonly Change[] => {
    const disks = snapshot.disks.map((disk) => {
      const copy =
        disk.name !== way.disk.target || disk.image === null
          ? undefined
          : moved.get(localPath(disk.image.source));
      return copy === undefined
        ? disk
        : { ...disk, image: { source: copy.source, format: copy.format, index: null } };
    });
    const rewritten: Snapshot = { ...snapshot, disks };
    return disks.every((disk, i) => disk === snapshot.disks[i])
      ? []
      : [
          {
            change: 'put-snapshot',
            snapshot: rewritten,
            current: record.currentSnapshot === snapshot.name,
          },
        ];
  });
}

function closeSource(way: Way): readonly Step[] {
  return chainOptions([way.overlay.overlay, ...way.from], way.disk.driver, false)
    .toReversed()
    .map((options) => ({ kind: 'close-node', options }));
}

const offline = (way: Way) => ({
  overlayPath: present(localPath(way.overlay.mirror.layer.source), 'a file'),
  base: { path: present(localPath(topCopy(way).source), 'a file'), format: topCopy(way).format },
});

function startCommit(way: Way): Step {
  const twin = way.overlay.mirror.layer;
  return {
    kind: 'start-commit',
    jobId: commitJobId(way.disk.target, twin),
    device: formatNode(twin),
    base: formatNode(topCopy(way)),
    filter: `${filterNode(twin)}-c`,
    offline: offline(way),
  };
}

function intoCopy(way: Way): PivotDisk {
  const twin = way.overlay.mirror.layer;
  return {
    target: way.disk.target,
    jobId: commitJobId(way.disk.target, twin),
    job: 'commit',
    from: formatNode(twin),
    to: formatNode(topCopy(way)),
    path: localPath(topCopy(way).source),
    swing: null,
    swingBack: null,
    header: null,
    offline: offline(way),
  };
}

function settled(request: Move, way: Way): readonly Change[] {
  const twin = way.overlay.mirror.layer;
  const { record, disk, nowSeconds } = { ...request, disk: way.disk };
  return [
    { change: 'chain', target: disk.target, images: way.to, was: twin.source },
    // The images of the source are stale since the first pivot; only the name of the live one is new.
    ...staleRoles(record.uuid, disk.target, [way.overlay.overlay, ...way.from], way.to, nowSeconds),
  ];
}

function removeTwin(way: Way): readonly Step[] {
  const path = present(localPath(way.overlay.mirror.layer.source), 'a file');
  return [
    { kind: 'close-node', options: twinOptions(way, topCopy(way)) },
    { kind: 'remove-file', path },
  ];
}
