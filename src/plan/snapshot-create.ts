// Plans virDomainSnapshotCreateXML for the disks of a running domain: plain external snapshots, and mirrored ones
// (design §4). Checks in the order of libvirt 9.0 (spec: semantics 2.3), then all disks or none.

import type { DiskFacts, PathFacts } from '../block/facts.js';
import { nothingThere } from '../block/facts.js';
import type { Image, Layer } from '../block/layer.js';
import { localPath, sameSource, showSource } from '../block/layer.js';
import type { Disk } from '../domain/disk.js';
import type { DomainRecord } from '../domain/record.js';
import type { Snapshot, SnapshotDisk } from '../domain/snapshot.js';
import { present } from '../std/assert.js';
import { RequestError, SystemError } from '../std/errors.js';
import type { OverlayDisk } from './overlay.js';
import { copyJobId, filterNode, mirrorSteps, prepareSteps, snapshotStep } from './overlay.js';
import { isRefusal, jobObstacle, layersOf, needLive, pathsInUse, refuse } from './refuse.js';
import type { Plan, Refusal } from './step.js';

export interface SnapshotCreate {
  readonly record: DomainRecord;
  /** Aligned with the domain's disks: every disk is listed, paths and formats are filled in. */
  readonly snapshot: Snapshot;
  readonly reuseExternal: boolean;
  readonly keepMetadata: boolean;
  /** What was seen at every path that the snapshot names. */
  readonly files: ReadonlyMap<string, PathFacts>;
  /** Per target. */
  readonly disks: ReadonlyMap<string, DiskFacts>;
}

/** A chain longer than this is refused (virStorageFile's limit; QEMU's own recursion suffers earlier). */
const MAX_CHAIN = 200;

export function planSnapshotCreate(request: SnapshotCreate): Plan | Refusal {
  const live = needLive(request.record);
  if (isRefusal(live)) return live;
  const entries: OverlayDisk[] = [];
  const taken = new Set(pathsInUse(request.record));
  let nextIndex = live.nextIndex;
  for (const wanted of request.snapshot.disks.filter((disk) => disk.mode === 'external')) {
    const disk = present(
      live.definition.disks.find((d) => d.target === wanted.name),
      'snapshot disks are aligned',
    );
    const refusal = checkDisk(request, disk, wanted, taken);
    if (refusal !== null) return refuse(refusal);
    const entry = overlayDisk(request, disk, wanted, nextIndex);
    nextIndex = entry.nextIndex;
    entries.push(entry.entry);
  }
  return build(request, entries, nextIndex);
}

function build(request: SnapshotCreate, entries: readonly OverlayDisk[], nextIndex: number): Plan {
  const steps = [
    ...prepareSteps(entries),
    snapshotStep(entries, nextIndex),
    ...entries.flatMap(mirrorSteps),
  ];
  return {
    operation: entries.some((entry) => entry.mirror !== null)
      ? 'snapshot-create (mirrored)'
      : 'snapshot-create',
    domain: request.record.uuid,
    domainName: request.record.name,
    steps: [
      ...steps,
      {
        kind: 'record',
        changes: request.keepMetadata
          ? [{ change: 'put-snapshot', snapshot: request.snapshot, current: true }]
          : [],
      },
    ],
    commitAt: steps.length,
  };
}

function checkDisk(
  request: SnapshotCreate,
  disk: Disk,
  wanted: SnapshotDisk,
  taken: Set<string>,
): Error | null {
  const image = present(wanted.image, 'an external snapshot has an image');
  if (layersOf(disk).length >= MAX_CHAIN) {
    return new RequestError(
      'OPERATION_UNSUPPORTED',
      `backing chain of disk '${disk.target}' would be longer than ${MAX_CHAIN} images; merge some first`,
    );
  }
  const remote = layersOf(disk).find(({ source }) => source.type === 'network');
  if (remote !== undefined) {
    return new RequestError(
      'OPERATION_UNSUPPORTED',
      `disk '${disk.target}' is on the network (${showSource(remote.source)}), and a header does not name that below itself; leave it out of the snapshot`,
    );
  }
  const facts = present(request.disks.get(disk.target), 'sizes of all disks were read');
  const obstacle =
    jobObstacle(disk, request.record) ?? checkFile(request, disk, image, 'source', facts, taken);
  if (obstacle !== null || wanted.mirror === null) return obstacle;
  return checkMirror(request, disk, wanted.mirror, facts, taken);
}

function checkMirror(
  request: SnapshotCreate,
  disk: Disk,
  mirror: Image,
  facts: DiskFacts,
  taken: Set<string>,
): Error | null {
  if (disk.driver.cache === 'unsafe') {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `disk '${disk.target}' has cache='unsafe': its flushes never reach the storage, so a mirror could not promise anything; use another cache mode`,
    );
  }
  const refusal = checkFile(request, disk, mirror, 'mirror', facts, taken);
  if (refusal !== null || !request.reuseExternal) return refusal;
  const seen = factsOf(request, mirror);
  if (!seen.empty) {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `mirror file for disk ${disk.target} is not empty: ${showSource(mirror.source)} has clusters of its own, which would hide what is below; make it anew`,
    );
  }
  if (seen.below.length === 0) {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `mirror file for disk ${disk.target} names no backing image: ${showSource(mirror.source)}; make it with 'qemu-img create -b … -F …'`,
    );
  }
  const unfinished = seen.below.find(({ source }) => localPath(source)?.endsWith('.part') === true);
  return unfinished === undefined
    ? null
    : new RequestError(
        'CONFIG_UNSUPPORTED',
        `mirror file for disk ${disk.target} has an unfinished copy below it: ${showSource(unfinished.source)}`,
      );
}

/** One new layer: its place, its kind, its size. Names it in `taken`, so that the next one cannot be the same. */
function checkFile(
  request: SnapshotCreate,
  disk: Disk,
  image: Image,
  role: 'source' | 'mirror',
  facts: DiskFacts,
  taken: Set<string>,
): Error | null {
  const what = role === 'source' ? 'external snapshot file' : 'mirror file';
  const path = localPath(image.source);
  if (path === null) {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `${what} for disk ${disk.target} is on the network (${showSource(image.source)}); use a file or a block device of this host`,
    );
  }
  if (!path.startsWith('/')) {
    return new RequestError('XML_ERROR', `disk snapshot image path '${path}' must be absolute`, {
      from: 'domainSnapshot',
    });
  }
  if (taken.has(path)) {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `${what} for disk ${disk.target} is in use by this domain already: ${path}`,
    );
  }
  taken.add(path);
  if (image.format !== 'qcow2') {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `external snapshot format for disk ${disk.target} is unsupported: ${image.format}`,
    );
  }
  return (
    checkExisting(request, disk, image, what) ?? checkReused(request, disk, image, what, facts)
  );
}

function checkExisting(
  request: SnapshotCreate,
  disk: Disk,
  image: Image,
  what: string,
): Error | null {
  const { file } = factsOf(request, image);
  const path = showSource(image.source);
  if (file === null) {
    if (image.source.type === 'block') {
      return new RequestError(
        'OPERATION_UNSUPPORTED',
        `block device snapshot target '${path}' doesn't exist`,
      );
    }
    return request.reuseExternal
      ? new SystemError(
          `missing existing file for disk ${disk.target}: ${path}: No such file or directory`,
        )
      : null;
  }
  const kind = image.source.type === 'block' ? 'block' : 'file';
  if (file.kind !== kind) {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `mismatch between configured type for snapshot disk '${disk.target}' and the type of existing file '${path}'`,
    );
  }
  if (kind === 'file' && file.sizeBytes > 0n && !request.reuseExternal) {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `${what} for disk ${disk.target} already exists and is not a block device: ${path}`,
    );
  }
  return null;
}

/** QEMU accepts an overlay smaller than its base and truncates the disk (law 6), so sizes are compared here. */
function checkReused(
  request: SnapshotCreate,
  disk: Disk,
  image: Image,
  what: string,
  facts: DiskFacts,
): Error | null {
  if (!request.reuseExternal) return null;
  const { info } = factsOf(request, image);
  const path = showSource(image.source);
  if (info === null)
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `${what} for disk ${disk.target} is not a ${image.format} image: ${path}`,
    );
  if (info.special.length > 0) {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `${what} for disk ${disk.target} is not usable (${info.special.join(', ')}): ${path}`,
    );
  }
  if (info.virtualSizeBytes !== facts.sizeBytes) {
    return new RequestError(
      'CONFIG_UNSUPPORTED',
      `${what} for disk ${disk.target} has ${info.virtualSizeBytes} bytes where the disk has ${facts.sizeBytes}: ${path}; make it with the size of the disk`,
    );
  }
  return null;
}

const factsOf = (request: SnapshotCreate, image: Image): PathFacts =>
  request.files.get(showSource(image.source)) ?? nothingThere;

function overlayDisk(
  request: SnapshotCreate,
  disk: Disk,
  wanted: SnapshotDisk,
  firstIndex: number,
): { readonly entry: OverlayDisk; readonly nextIndex: number } {
  let nextIndex = firstIndex;
  const open = (image: Image): Layer => ({ ...image, index: nextIndex++ });
  const image = present(wanted.image, 'an external snapshot has an image');
  const overlay = open(image);
  const made = request.reuseExternal ? 'reuse' : 'ours';
  const entry = {
    disk,
    facts: present(request.disks.get(disk.target), 'sizes of all disks were read'),
    overlay,
    made,
    overlayExisted: factsOf(request, image).file !== null,
  } as const;
  if (wanted.mirror === null) return { entry: { ...entry, mirror: null }, nextIndex };
  const layer = open(wanted.mirror);
  // What the caller's chain shares with the one that is open keeps its index; the rest is opened at the pivot.
  const known = layersOf(disk);
  const below: readonly Image[] =
    made === 'ours'
      ? known
      : factsOf(request, wanted.mirror).below.map(
          (found) => known.find((k) => sameSource(k.source, found.source)) ?? open(found),
        );
  const mirror = {
    layer,
    existed: factsOf(request, wanted.mirror).file !== null,
    below,
    record: {
      target: disk.target,
      jobId: copyJobId(disk.target, layer),
      filter: filterNode(layer),
      made,
      snapshot: request.keepMetadata ? request.snapshot.name : null,
      move: false,
      problem: null,
    },
    copyMode: 'background',
  } as const;
  return { entry: { ...entry, mirror }, nextIndex };
}
