// The verbs of snapshot objects: created, printed, redefined, deleted, their mirrors ended.

import { existsSync, statSync } from 'node:fs';
import { localPath } from '../block/layer.js';
import type { DomainRecord, LiveRecord } from '../domain/record.js';
import { alignSnapshot, checkSnapshotName } from '../domain/snapshot-align.js';
import type { Snapshot } from '../domain/snapshot.js';
import {
  parseSnapshotRedefinition,
  parseSnapshotRequest,
  printSnapshot,
  validateSnapshotRequest,
} from '../domain/snapshot-xml.js';
import { planForget, planReopen, planRemove } from '../plan/mirror-end.js';
import { refuse } from '../plan/refuse.js';
import { planSnapshotCreate } from '../plan/snapshot-create.js';
import type { Plan, Refusal } from '../plan/step.js';
import { FerryError, NotFoundError, RequestError, StateError } from '../std/errors.js';
import { lookAtMirrors } from './blockjob-verbs.js';
import { checkNoneWaits, parseContext } from './domain-verbs.js';
import type { Host } from './host.js';
import type { SnapshotCreateOptions, SnapshotDeleteOptions } from './libvirt-host.js';
import { look, sizesOf } from './look.js';
import { checkTargets } from './targets.js';

export function findSnapshot(record: DomainRecord, name: string): Snapshot {
  const found = record.snapshots.find((snapshot) => snapshot.name === name);
  if (found === undefined)
    throw new NotFoundError(
      'NO_DOMAIN_SNAPSHOT',
      `no domain snapshot with matching name '${name}'`,
    );
  return found;
}

export function snapshotXml(host: Host, uuid: string, name: string): string {
  return printSnapshot(findSnapshot(host.known.domain(uuid), name));
}

/** virDomainSnapshotCreateXML; answers the name. Checks in libvirt's order (spec: semantics 2.3). */
export async function createSnapshot(
  host: Host,
  uuid: string,
  xml: string,
  options: SnapshotCreateOptions,
): Promise<string> {
  checkFlags(options);
  if (options.redefine) return await redefine(host, uuid, xml, options.current);
  if (options.validate) validateSnapshotRequest(xml);
  const request = parseSnapshotRequest(xml);
  const mirrored = request.disks.some((disk) => disk.mirror !== null);
  let name = '';
  await host.operate(uuid, async (known): Promise<Plan | Refusal> => {
    const record = known ?? host.known.domain(uuid);
    const refusal = checkRequest(record, request.name, mirrored, options);
    if (refusal !== null) return refuse(refusal);
    await checkNoneWaits(host, uuid);
    const live = record.live;
    if (live === null) {
      return refuse(
        mirrored
          ? new StateError('OPERATION_INVALID', 'domain is not running', { from: 'domain' })
          : new RequestError(
              'OPERATION_UNSUPPORTED',
              'snapshots of a domain that is shut off are not supported; start it first',
            ),
      );
    }
    const snapshot = alignSnapshot(request, {
      live: live.definition,
      inactive: record.persistent,
      diskOnly: options.diskOnly || mirrored,
      nowSeconds: host.nowSeconds,
      parent: record.currentSnapshot,
      state: 'disk-snapshot',
      isRegularFile,
    });
    name = snapshot.name;
    if (record.snapshots.some((one) => one.name === name)) return refuse(exists(name));
    await checkTargets(host.context.images, record, 'snapshot-create');
    return await planCreate(host, record, live, snapshot, options);
  });
  return name;
}

function checkFlags(options: SnapshotCreateOptions): void {
  const flagRule = (text: string): RequestError =>
    new RequestError('INVALID_ARG', text, { from: 'domainSnapshot' });
  if (options.current && !options.redefine) {
    throw flagRule(
      "Flag 'VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT' is required by flag 'VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE'",
    );
  }
  const exclusive = (
    [
      ['NO_METADATA', options.noMetadata],
      ['HALT', options.halt],
      ['LIVE', options.live],
    ] as const
  ).find(([, on]) => on);
  if (options.redefine && exclusive !== undefined) {
    throw flagRule(
      `Flags 'VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE' and 'VIR_DOMAIN_SNAPSHOT_CREATE_${exclusive[0]}' are mutually exclusive`,
    );
  }
  if (options.quiesce && !options.diskOnly) {
    throw flagRule(
      "Flag 'VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY' is required by flag 'VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE'",
    );
  }
}

function checkRequest(
  record: DomainRecord,
  name: string | null,
  mirrored: boolean,
  options: SnapshotCreateOptions,
): Error | null {
  if (name !== null && !options.noMetadata) checkSnapshotName(name);
  if (options.halt) {
    return mirrored
      ? new RequestError(
          'CONFIG_UNSUPPORTED',
          'a mirrored snapshot cannot halt the domain: its mirror would end with it',
        )
      : new RequestError(
          'OPERATION_UNSUPPORTED',
          'halting after a snapshot is not supported; take the snapshot, then destroy the domain',
        );
  }
  if (options.live)
    return new RequestError(
      'OPERATION_UNSUPPORTED',
      'live snapshot creation is supported only during full system snapshots',
    );
  if (options.quiesce) {
    return new RequestError(
      'ARGUMENT_UNSUPPORTED',
      'quiescing by a guest agent is not supported; freeze the file systems in the guest, then take the snapshot',
    );
  }
  if (name !== null && record.snapshots.some((snapshot) => snapshot.name === name))
    return exists(name);
  return null;
}

class SnapshotExistsError extends FerryError {}
const exists = (name: string): FerryError =>
  new SnapshotExistsError('OPERATION_FAILED', `domain moment ${name} already exists`, {
    from: 'domain',
  });

const isRegularFile = (path: string): boolean => existsSync(path) && statSync(path).isFile();

async function planCreate(
  host: Host,
  record: DomainRecord,
  live: LiveRecord,
  snapshot: Snapshot,
  options: SnapshotCreateOptions,
): Promise<Plan | Refusal> {
  if (snapshot.disks.some((disk) => disk.mode === 'internal')) {
    return refuse(
      new RequestError(
        'CONFIG_UNSUPPORTED',
        'internal snapshots and snapshots of memory are not supported; take a disk-only external one (--disk-only)',
      ),
    );
  }
  const images = snapshot.disks.flatMap(({ image, mirror }) =>
    [image, mirror].filter((one) => one !== null),
  );
  // Headers of images that the caller made are followed; nothing else has been made yet.
  const files = await look(host, images, options.reuseExternal ? 'data' : 'header');
  const below = await look(
    host,
    [...files.values()].flatMap((facts) => facts.below),
    'header',
  );
  return planSnapshotCreate({
    record,
    snapshot,
    reuseExternal: options.reuseExternal,
    keepMetadata: !options.noMetadata,
    files: new Map([...below, ...files]),
    disks: await sizesOf(host, record.uuid, live),
  });
}

/** `virsh snapshot-current NAME` and `snapshot-edit` give an object's own XML back. */
async function redefine(host: Host, uuid: string, xml: string, current: boolean): Promise<string> {
  const snapshot = parseSnapshotRedefinition(xml, parseContext(host));
  await host.operate(uuid, (known) => {
    const record = known ?? host.known.domain(uuid);
    const refusal = checkRedefinition(record, snapshot);
    if (refusal !== null) return refuse(refusal);
    return {
      operation: 'snapshot-redefine',
      domain: uuid,
      domainName: record.name,
      steps: [{ kind: 'record', changes: [{ change: 'put-snapshot', snapshot, current }] }],
      commitAt: 0,
    };
  });
  return snapshot.name;
}

function checkRedefinition(record: DomainRecord, snapshot: Snapshot): Error | null {
  const bad = (text: string): Error =>
    new RequestError('INVALID_ARG', text, { from: 'domainSnapshot' });
  if (snapshot.parent === snapshot.name)
    return bad(`cannot set snapshot ${snapshot.name} as its own parent`);
  if (snapshot.parent !== null && !record.snapshots.some((one) => one.name === snapshot.parent)) {
    return bad(`parent ${snapshot.parent} for moment ${snapshot.name} not found`);
  }
  if (snapshot.domain.uuid !== record.uuid)
    return bad(`definition for snapshot ${snapshot.name} must use uuid ${record.uuid}`);
  const ancestors = ancestorsOf(record, snapshot.parent);
  return ancestors.includes(snapshot.name)
    ? bad(`parent ${snapshot.parent} would create cycle to ${snapshot.name}`)
    : null;
}

function ancestorsOf(record: DomainRecord, name: string | null): readonly string[] {
  const found = record.snapshots.find((snapshot) => snapshot.name === name);
  return found === undefined ? [] : [found.name, ...ancestorsOf(record, found.parent)];
}

/** virDomainSnapshotDelete with the flags of 2012 (design §4). */
export async function deleteSnapshot(
  host: Host,
  uuid: string,
  name: string,
  options: SnapshotDeleteOptions,
): Promise<void> {
  const modes = [options.metadataOnly, options.reopenMirror, options.removeMirror].filter(
    Boolean,
  ).length;
  if (
    modes > 1 ||
    (modes > 0 && (options.children || options.childrenOnly) && !options.metadataOnly)
  ) {
    throw new RequestError(
      'INVALID_ARG',
      'METADATA_ONLY, REOPEN_MIRROR and REMOVE_MIRROR exclude one another, and the latter two exclude CHILDREN',
      {
        from: 'domainSnapshot',
      },
    );
  }
  if (modes === 0 || options.children || options.childrenOnly) {
    findSnapshot(host.known.domain(uuid), name);
    throw new RequestError(
      'OPERATION_UNSUPPORTED',
      `deleting the data of snapshot '${name}' by merging is not supported; --metadata forgets the snapshot and keeps its images, ` +
        `and a mirrored one ends with 'ferry snapshot-delete ${host.known.domain(uuid).name} ${name} --reopen-mirror' or '--remove-mirror'`,
    );
  }
  await host.operate(uuid, async (known): Promise<Plan | Refusal> => {
    const record = known ?? host.known.domain(uuid);
    const snapshot = findSnapshot(record, name);
    await checkNoneWaits(host, uuid);
    if (!options.metadataOnly) await checkTargets(host.context.images, record, 'snapshot-delete');
    const request = {
      record,
      files: options.reopenMirror ? await lookAtMirrors(host, record) : new Map(),
      nowSeconds: host.nowSeconds,
    };
    if (options.metadataOnly) return planForget(record, snapshot);
    return options.reopenMirror ? planReopen(request, snapshot) : planRemove(request, snapshot);
  });
}

/** Local paths of a snapshot's layers, for views. */
export const layerPath = (image: Snapshot['disks'][number]['image']): string | null =>
  image === null ? null : localPath(image.source);
