// The steps of one overlay that goes on top of a running disk, and of the mirror that keeps its twin in step. Shared
// by plain snapshots, mirrored snapshots and moves.

import { blockdevOptions } from '../block/node.js';
import type { Image, Layer } from '../block/layer.js';
import { formatNode, localPath } from '../block/layer.js';
import type { DiskFacts } from '../block/facts.js';
import type { Disk, DiskMirror } from '../domain/disk.js';
import type { MirrorRecord } from '../domain/record.js';
import { assert, present } from '../std/assert.js';
import { layersOf } from './refuse.js';
import type { SnapshotDisk, Step, StepOf } from './step.js';

/** One disk that gets a new layer, and where that layer and its mirror live. */
export interface OverlayDisk {
  readonly disk: Disk;
  readonly facts: DiskFacts;
  readonly overlay: Layer;
  /** Made by us, or by the caller (REUSE_EXT). */
  readonly made: 'ours' | 'reuse';
  /** An empty file stood there before. */
  readonly overlayExisted: boolean;
  readonly mirror: {
    readonly layer: Layer;
    readonly existed: boolean;
    /** The chain below the mirror after a pivot. */
    readonly below: readonly Image[];
    readonly record: MirrorRecord;
    readonly copyMode: 'background' | 'write-blocking';
  } | null;
}

/** Names of the job and of its filter follow from the mirror's index, so they are never used twice either. */
export const copyJobId = (target: string, mirror: Layer): string =>
  `copy-${target}-${mirror.index}`;
export const commitJobId = (target: string, top: Layer): string => `commit-${target}-${top.index}`;
export const filterNode = (layer: Layer): string => `ferry-${layer.index}-filter`;

/** The layer that the guest writes now. */
export const topOf = (disk: Disk): Layer =>
  present(layersOf(disk)[0], `disk ${disk.target} has an open image`);

const pathOf = (image: Image): string =>
  present(localPath(image.source), 'images of this plan are on this host');

/** Images of ours, then every destination opened once so that bad ones fail while nothing has changed, then the overlays' nodes. */
export function prepareSteps(disks: readonly OverlayDisk[]): readonly Step[] {
  return [
    ...disks.flatMap(imageSteps),
    ...disks.flatMap(tryTargetSteps),
    ...disks.map(openOverlay),
  ];
}

function imageSteps(entry: OverlayDisk): readonly Step[] {
  if (entry.made === 'reuse') return [];
  const top = topOf(entry.disk);
  const make = (image: Layer, existed: boolean): StepOf<'create-image'> => ({
    kind: 'create-image',
    path: pathOf(image),
    sizeBytes: entry.facts.sizeBytes,
    // The destination too names the source's base: true from the first byte (design §4).
    backing: { path: pathOf(top), format: top.format },
    clusterSizeBytes: entry.facts.clusterSizeBytes,
    existed,
  });
  const overlay = make(entry.overlay, entry.overlayExisted);
  return entry.mirror === null
    ? [overlay]
    : [overlay, make(entry.mirror.layer, entry.mirror.existed)];
}

function tryTargetSteps(entry: OverlayDisk): readonly Step[] {
  if (entry.mirror === null) return [];
  const options = blockdevOptions(entry.mirror.layer, {
    driver: entry.disk.driver,
    readOnly: false,
    backing: null,
  });
  return [
    { kind: 'open-node', options },
    { kind: 'close-node', options },
  ];
}

function openOverlay(entry: OverlayDisk): Step {
  // `backing: null`: QEMU would open the base a second time and fail on its lock; QAPI blockdev-snapshot attaches it.
  return {
    kind: 'open-node',
    options: blockdevOptions(entry.overlay, {
      driver: entry.disk.driver,
      readOnly: false,
      backing: null,
    }),
  };
}

/** One transaction over all disks; from then on the live XML names the overlays. */
export function snapshotStep(disks: readonly OverlayDisk[], nextIndex: number): StepOf<'snapshot'> {
  return {
    kind: 'snapshot',
    disks: disks.map(({ disk, overlay }): SnapshotDisk => {
      const top = topOf(disk);
      return {
        target: disk.target,
        node: formatNode(top),
        overlay: formatNode(overlay),
        overlayPath: pathOf(overlay),
        base: { path: pathOf(top), format: top.format },
      };
    }),
    changes: [
      ...disks.map(({ disk, overlay }) => ({
        change: 'chain' as const,
        target: disk.target,
        images: [overlay, ...layersOf(disk)],
        was: topOf(disk).source,
      })),
      { change: 'next-index', nextIndex },
    ],
    reverts: disks.map(({ disk, overlay }) => ({
      change: 'chain' as const,
      target: disk.target,
      images: layersOf(disk),
      was: overlay.source,
    })),
  };
}

/**
 * Opens the twin over the base that the guest has open and starts to copy. After the snapshot, not before it: until then
 * the base is the root of the disk, and QEMU would call it busy (`node is used as backing hd`).
 */
export function mirrorSteps(entry: OverlayDisk): readonly Step[] {
  const { disk, overlay, mirror } = entry;
  if (mirror === null) return [];
  const { record, layer } = mirror;
  assert(record.target === disk.target, 'a mirror belongs to its disk');
  const shown: DiskMirror = {
    job: 'copy',
    ready: 'no',
    image: layer,
    backing: mirror.below,
    jobId: record.jobId,
  };
  return [
    {
      kind: 'open-node',
      options: blockdevOptions(layer, {
        driver: disk.driver,
        readOnly: false,
        backing: formatNode(topOf(disk)),
      }),
    },
    {
      kind: 'start-mirror',
      jobId: record.jobId,
      device: formatNode(overlay),
      target: formatNode(layer),
      filter: record.filter,
      sync: 'top',
      copyMode: mirror.copyMode,
      changes: [{ change: 'mirror', mirror: record, disk: shown }],
      reverts: [{ change: 'mirror-end', target: disk.target }],
    },
  ];
}
