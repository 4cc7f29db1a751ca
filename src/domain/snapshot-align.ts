// Brings what a client asked for in line with the disks of its domain: every disk is listed, in the domain's order, with a
// mode, a place and a format (virDomainSnapshotAlignDisks; spec: semantics 2.2). Refusals with libvirt's codes and texts.

import type { Format, Image, StorageSource } from '../block/layer.js';
import { showSource } from '../block/layer.js';
import { RequestError } from '../std/errors.js';
import type { Definition } from './definition.js';
import { findDisk } from './definition.js';
import type { Disk, SnapshotMode } from './disk.js';
import type { Snapshot, SnapshotDisk, SnapshotMemory, SnapshotState } from './snapshot.js';
import type { SnapshotDiskRequest, SnapshotRequest } from './snapshot-xml.js';

export interface AlignContext {
  /** The definition whose disks count. */
  readonly live: Definition;
  readonly inactive: Definition | null;
  readonly diskOnly: boolean;
  readonly nowSeconds: number;
  readonly parent: string | null;
  readonly state: SnapshotState;
  /** For generated names: only beside a regular file. */
  readonly isRegularFile: (path: string) => boolean;
}

const refusal = (text: string): RequestError => new RequestError('CONFIG_UNSUPPORTED', text);

/** virDomainMomentDefPostParse: names become file names. */
export function checkSnapshotName(name: string): void {
  if (name.includes('/'))
    throw new RequestError(
      'XML_DETAIL',
      `invalid snapshot name '${name}': name can't contain '/'`,
      { from: 'domainSnapshot' },
    );
  if (name.startsWith('.'))
    throw new RequestError(
      'XML_DETAIL',
      `invalid snapshot name '${name}': name can't start with '.'`,
      { from: 'domainSnapshot' },
    );
}

/**
 * The snapshot that will be made. What only the host can know is not checked here: files, jobs, whether it takes
 * internal snapshots.
 *
 * @throws {RequestError} CONFIG_UNSUPPORTED, or XML_ERROR for memory beside a disk-only snapshot.
 */
export function alignSnapshot(request: SnapshotRequest, context: AlignContext): Snapshot {
  const { live, diskOnly } = context;
  const name = request.name ?? String(context.nowSeconds);
  const memory = memoryOf(request, context);
  if (request.disks.length > live.disks.length)
    throw refusal('too many disk snapshot requests for domain');
  const asked = byTarget(request.disks, live);
  const defaultMode = diskOnly || memory.mode === 'external' ? 'external' : 'internal';
  const aligned = live.disks.map((disk) =>
    alignDisk(disk, asked.get(disk.target) ?? null, defaultMode),
  );
  const disks = withImages(aligned, name, context);
  checkSelection(disks, context, memory);
  return {
    name,
    description: request.description,
    state: context.state,
    parent: context.parent,
    creationTimeSeconds: context.nowSeconds,
    memory,
    disks,
    domain: live,
    inactiveDomain: context.inactive,
  };
}

function memoryOf({ memory }: SnapshotRequest, { diskOnly, state }: AlignContext): SnapshotMemory {
  const offline = state === 'shutoff';
  if ((diskOnly || offline) && memory !== null && memory.mode !== 'no') {
    throw new RequestError(
      'XML_ERROR',
      'memory state cannot be saved with offline or disk-only snapshot',
      { from: 'domainSnapshot' },
    );
  }
  if (memory !== null) return memory;
  return { mode: diskOnly || offline ? 'no' : 'internal', file: null };
}

function byTarget(
  requests: readonly SnapshotDiskRequest[],
  definition: Definition,
): ReadonlyMap<string, SnapshotDiskRequest> {
  const found = new Map<string, SnapshotDiskRequest>();
  for (const request of requests) {
    const disk = findDisk(definition, request.name);
    if (disk === null) throw refusal(`no disk named '${request.name}'`);
    if (found.has(disk.target)) throw refusal(`disk '${request.name}' specified twice`);
    found.set(disk.target, request);
  }
  return found;
}

interface Aligned {
  readonly disk: Disk;
  readonly mode: SnapshotMode;
  readonly request: SnapshotDiskRequest | null;
}

/** An internal snapshot is one of all disks that keep something: there a disk has no mode of its own but `no`. */
function alignDisk(
  disk: Disk,
  request: SnapshotDiskRequest | null,
  defaultMode: 'internal' | 'external',
): Aligned {
  if (request === null)
    return { disk, mode: disk.source === null ? 'no' : (disk.snapshot ?? defaultMode), request };
  const uniform = defaultMode === 'internal';
  const own = uniform && disk.snapshot !== 'no' ? null : disk.snapshot;
  const mode = request.mode ?? own ?? defaultMode;
  if (uniform && mode !== defaultMode && !(mode === 'no' && disk.snapshot === 'no')) {
    throw refusal(`disk '${request.name}' must use snapshot mode '${defaultMode}'`);
  }
  if (mode !== 'external' && request.source !== null) {
    throw refusal(
      `file '${showSource(request.source)}' for disk '${request.name}' requires use of external snapshot mode`,
    );
  }
  if (mode !== 'external' && request.mirror !== null) {
    throw refusal(
      `mirror '${showSource(request.mirror.source)}' for disk '${request.name}' requires use of external snapshot mode`,
    );
  }
  if (mode === 'external' && disk.source === null)
    throw refusal(`disk '${request.name}' is an empty drive; nothing of it can be kept`);
  return { disk, mode, request };
}

function withImages(
  aligned: readonly Aligned[],
  name: string,
  context: AlignContext,
): readonly SnapshotDisk[] {
  const taken = new Map<string, string>();
  for (const { disk, request } of aligned) {
    for (const given of [request?.source, request?.mirror?.source]) {
      if (given?.type === 'file') taken.set(given.path, disk.target);
    }
  }
  const layer = (source: StorageSource, format: Format | null): Image => ({
    source,
    format: format ?? 'qcow2',
    index: null,
  });
  return aligned.map(({ disk, mode, request }): SnapshotDisk => {
    if (mode !== 'external') return { name: disk.target, mode, image: null, mirror: null };
    const source = request?.source ?? generated(disk, name, taken, context);
    const mirror = request?.mirror ?? null;
    return {
      name: disk.target,
      mode,
      image: layer(source, request?.format ?? null),
      mirror: mirror === null ? null : layer(mirror.source, mirror.format),
    };
  });
}

/** The disk's path, its suffix replaced by the snapshot's name (virDomainSnapshotDefAssignExternalNames). */
function generated(
  disk: Disk,
  name: string,
  taken: Map<string, string>,
  { isRegularFile }: AlignContext,
): StorageSource {
  const { source } = disk;
  const cannot = `cannot generate external snapshot name for disk '${disk.target}'`;
  if (source === null) throw refusal(`${cannot} without source`);
  if (source.type !== 'file') throw refusal(`${cannot} on a '${source.type}' device`);
  if (!isRegularFile(source.path)) {
    throw refusal(
      `source for disk '${disk.target}' is not a regular file; refusing to generate external snapshot name`,
    );
  }
  const dot = source.path.lastIndexOf('.');
  const stem = dot > source.path.lastIndexOf('/') ? source.path.slice(0, dot) : source.path;
  const path = `${stem}.${name}`;
  const other = taken.get(path);
  if (other !== undefined) throw refusal(`${cannot}: collision with disk '${other}'`);
  taken.set(path, disk.target);
  return { type: 'file', path };
}

function checkSelection(
  disks: readonly SnapshotDisk[],
  { diskOnly, state }: AlignContext,
  memory: SnapshotMemory,
): void {
  const internal = disks.find((disk) => disk.mode === 'internal');
  const external = disks.some((disk) => disk.mode === 'external');
  if (internal !== undefined && state === 'disk-snapshot') {
    throw refusal(
      `active qemu domains require external disk snapshots; disk ${internal.name} requested internal`,
    );
  }
  if (memory.mode === 'no' && disks.every((disk) => disk.mode === 'no'))
    throw refusal('nothing selected for snapshot');
  if (diskOnly && !external)
    throw refusal('disk-only snapshots require at least one disk to be selected for snapshot');
  if (internal !== undefined && external)
    throw refusal('mixing internal and external targets for a snapshot is not yet supported');
}
