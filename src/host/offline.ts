// What a move of a shut-off domain stands in the way of, and what in its: the domain's lock is free while it copies.

import { sameSource, showSource } from '../block/layer.js';
import type { Image } from '../block/layer.js';
import type { Definition } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import type { DomainRecord, ImageRole } from '../domain/record.js';
import type { OperationRecord } from '../journal/journal.js';
import { rolesOfOffline } from '../plan/move-offline.js';
import { StateError } from '../std/errors.js';
import type { Host } from './host.js';

/** Not at its end and not turned round: what its domain's definition names is what it copies. */
export const isOpenOffline = ({ plan, steps, direction }: OperationRecord): boolean =>
  plan.offline !== undefined &&
  direction === 'forward' &&
  steps[plan.commitAt - 1]?.mark !== 'done';

/** Of all domains. */
export async function offlineMoves(host: Host): Promise<readonly OperationRecord[]> {
  return (await host.known.journal.openOperations()).filter(isOpenOffline);
}

/** Law 13 for their copies. */
export async function rolesOfOfflineMoves(host: Host): Promise<readonly ImageRole[]> {
  return (await offlineMoves(host)).flatMap(({ plan }) => rolesOfOffline(plan, host.nowSeconds));
}

/** Why `ferry start` and whatever else needs the domain's images has to wait. */
export const heldText = ({ id, domainName }: OperationRecord): string =>
  `the disks of '${domainName}' are being moved while it is shut off (operation ${id}), and nobody may write to their images meanwhile; ` +
  `wait for it ('ferry ops wait ${id}'), or end it with 'ferry cancel ${id}'`;

/**
 * @throws {StateError} 55: `definition` would write to an image that is being copied for another domain. QEMU's locks
 * would not let it either; this says why.
 */
export async function checkForeignOffline(host: Host, definition: Definition): Promise<void> {
  for (const operation of await offlineMoves(host)) {
    if (operation.domain === definition.uuid) continue;
    const ways = operation.plan.offline?.ways ?? [];
    const held = new Set(ways.flatMap(({ from }) => from.map(({ source }) => showSource(source))));
    const taken = definition.disks.find(
      ({ source, readonly }) => source !== null && !readonly && held.has(showSource(source)),
    );
    if (taken?.source == null) continue;
    throw new StateError(
      'OPERATION_INVALID',
      `start ${definition.name}: image ${showSource(taken.source)} of disk '${taken.target}': ${heldText(operation)}`,
      { operation: operation.id, next: [`ferry ops show ${operation.id}`] },
    );
  }
}

/** @throws {StateError} 55: something is under way, or waits, that has to do with the domain's images. */
export async function checkNothingOpen(host: Host, { uuid, name }: DomainRecord): Promise<void> {
  const open = await host.known.journal.openOperations();
  const found = open.find(({ domain }) => domain === uuid);
  if (found === undefined) return;
  const { id, kind, waiting } = found;
  const way =
    waiting === null
      ? `wait for it ('ferry ops wait ${id}')`
      : `it waits for the next start of '${name}': start it, or take it back with 'ferry ops cancel ${id}'`;
  throw new StateError(
    'OPERATION_INVALID',
    `move ${name}: operation ${id} (${kind}) of this domain has not ended; ${way}`,
    { operation: id, next: [`ferry ops show ${id}`] },
  );
}

/**
 * @throws {StateError} 55: the new definition has other images where a move is about to put its copies; null: the domain
 * is to be forgotten.
 */
export async function checkRedefined(
  host: Host,
  uuid: string,
  definition: Definition | null,
): Promise<void> {
  const moving = (await offlineMoves(host)).find(({ domain }) => domain === uuid);
  if (moving === undefined) return;
  const ways = moving.plan.offline?.ways ?? [];
  const other = ways.find(({ target, from }) => {
    const disk = definition?.disks.find((one) => one.target === target);
    return disk === undefined || !names(disk, from);
  });
  if (other === undefined) return;
  throw new StateError(
    'OPERATION_INVALID',
    definition === null
      ? `undefine: ${heldText(moving)}`
      : `define: other images for disk '${other.target}': ${heldText(moving)}`,
    { operation: moving.id, next: [`ferry ops show ${moving.id}`] },
  );
}

/** As far as it does not leave the chain to the headers. */
function names(disk: Disk, chain: readonly Image[]): boolean {
  const images = imagesOf(disk);
  const isWhole = disk.backing !== null && disk.openEnded !== true;
  return (
    images.length > 0 &&
    (isWhole ? images.length === chain.length : images.length <= chain.length) &&
    images.every(({ source, format }, i) => {
      const other = chain[i];
      return other !== undefined && format === other.format && sameSource(source, other.source);
    })
  );
}
