// Refusals that several planners share, with libvirt's codes and texts.

import type { Layer } from '../block/layer.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import type { DomainRecord, LiveRecord } from '../domain/record.js';
import { windowOf } from '../domain/undo-window.js';
import { RequestError, StateError } from '../std/errors.js';
import type { Refusal } from './step.js';

export const refuse = (refusal: Error): Refusal => ({ refusal });

export const isRefusal = (value: object): value is Refusal => 'refusal' in value;

/** virDomainObjCheckActive. */
export function needLive(record: DomainRecord): LiveRecord | Refusal {
  return (
    record.live ??
    refuse(new StateError('OPERATION_INVALID', 'domain is not running', { from: 'domain' }))
  );
}

/** The open images of a disk of a running domain, active first. Empty for an empty drive. */
export function layersOf(disk: Disk): readonly Layer[] {
  return imagesOf(disk).flatMap((image) =>
    image.index === null ? [] : [{ ...image, index: image.index }],
  );
}

/** qemuDomainSupportsNewBlockJob and qemuDomainDiskBlockJobIsSupported: what every job and snapshot of a disk asks first. */
export function jobObstacle(
  disk: Disk,
  record: Pick<DomainRecord, 'owed' | 'windows'>,
): Error | null {
  const { owed } = record;
  const window = windowOf(record, disk.target);
  if (window !== null) {
    const close = `ferry undo ${window.operation} --close`;
    return new StateError(
      'BLOCK_COPY_ACTIVE',
      `the way back of disk '${disk.target}' from operation ${window.operation} is open; close it first ('${close}'), or go it ('ferry undo ${window.operation}')`,
      { next: [close] },
    );
  }
  if (disk.mirror !== null) {
    return new StateError('BLOCK_COPY_ACTIVE', `disk '${disk.target}' already in active block job`);
  }
  if (owed.some((one) => one.record.target === disk.target)) {
    return new StateError(
      'BLOCK_COPY_ACTIVE',
      `disk '${disk.target}' has a mirror that is taken up again once its destination is back; drop it first`,
    );
  }
  if (disk.shareable && !disk.readonly) {
    return new RequestError(
      'OPERATION_UNSUPPORTED',
      `disk '${disk.target}' is shareable: other guests write to it too`,
    );
  }
  return null;
}

/** Every local path that a domain names, running or defined. */
export function pathsInUse(record: DomainRecord): ReadonlySet<string> {
  const definitions = [record.live?.definition, record.persistent].filter(
    (definition) => definition != null,
  );
  const images = definitions
    .flatMap((definition) => definition.disks)
    .flatMap((disk) => [
      ...imagesOf(disk),
      ...(disk.mirror === null ? [] : [disk.mirror.image, ...disk.mirror.backing]),
    ]);
  const recorded = record.chains.flatMap((chain) => chain.images);
  return new Set(
    [...images, ...recorded].flatMap(({ source }) =>
      source.type === 'network' ? [] : [source.path],
    ),
  );
}
