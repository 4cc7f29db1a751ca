// Brings what a client asked for in line with the disks of its domain: every disk is listed, in the domain's order, with a
// mode, a place and a format (virDomainSnapshotAlignDisks; spec: semantics 2.2). Refusals with libvirt's codes and texts.

import type { Image, StorageSource } from '../block/layer.js';
import { RequestError } from '../std/errors.js';
import type { Definition } from './definition.js';
import { findDisk } from './definition.js';
import type { Disk, SnapshotMode } from './disk.js';
import type { Snapshot, SnapshotDisk, SnapshotState } from './snapshot.js';
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
  if (name.includes('/')) throw new RequestError('XML_DETAIL', `invalid snapshot name '${name}': name can't contain '/'`, { from: 'domainSnapshot' });
  if (name.startsWith('.')) throw new RequestError('XML_DETAIL', `invalid snapshot name '${name}': name can't start with '.'`, { from: 'domainSnapshot' });
}

export function alignSnapshot(request: SnapshotRequest, context: AlignContext): Snapshot {
  const { live, diskOnly } = context;
  const name = request.name ?? String(context.nowSeconds);
  const isExternal = diskOnly || request.memory?.mode === 'external';
  if (diskOnly && request.memory !== null && request.memory.mode !== 'no') {
    throw new RequestError('XML_ERROR', 'memory state cannot be saved with offline or disk-only snapshot', { from: 'domainSnapshot' });
  }
  if (request.disks.length > live.disks.length) throw refusal('too many disk snapshot requests for domain');
  const asked = byTarget(request.disks, live);
  const defaultMode: SnapshotMode = isExternal ? 'external' : 'internal';
  const disks = live.disks.map((disk) => alignDisk(disk, asked.get(disk.target) ?? null, defaultMode));
  const named = withGeneratedNames(disks, live, name, context);
  checkSelection(named, diskOnly);
  return {
    name,
    description: request.description,
    state: context.state,
    parent: context.parent,
    creationTimeSeconds: context.nowSeconds,
    memory: isExternal || diskOnly ? { mode: 'no', file: null } : (request.memory ?? { mode: 'internal', file: null }),
    disks: named,
    domain: live,
    inactiveDomain: context.inactive,
  };
}

function byTarget(requests: readonly SnapshotDiskRequest[], definition: Definition): ReadonlyMap<string, SnapshotDiskRequest> {
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

function alignDisk(disk: Disk, request: SnapshotDiskRequest | null, defaultMode: SnapshotMode): Aligned {
  if (request === null) return { disk, mode: disk.source === null ? 'no' : (disk.snapshot ?? defaultMode), request };
  const mode = request.mode ?? disk.snapshot ?? defaultMode;
  const { source } = request;
  if (mode !== 'external' && source !== null && source.type !== 'network') {
    throw refusal(`file '${source.path}' for disk '${disk.target}' requires use of external snapshot mode`);
  }
  if (mode !== 'external' && request.mirror !== null) {
    throw refusal(`mirror of disk '${disk.target}' requires use of external snapshot mode`);
  }
  if (mode !== 'no' && disk.source === null) throw refusal(`disk '${disk.target}' is an empty drive and cannot be snapshotted`);
  return { disk, mode, request };
}

function withGeneratedNames(aligned: readonly Aligned[], live: Definition, name: string, context: AlignContext): readonly SnapshotDisk[] {
  const taken = new Map<string, string>();
  void live;
  return aligned.map(({ disk, mode, request }): SnapshotDisk => {
    if (mode !== 'external') return { name: disk.target, mode, image: null, mirror: null };
    const source = request?.source ?? generated(disk, name, taken, context);
    const image: Image = { source, format: request?.format ?? 'qcow2', index: null };
    const mirror = request?.mirror ?? null;
    return {
      name: disk.target,
      mode,
      image,
      mirror: mirror === null ? null : { source: mirror.source, format: mirror.format ?? 'qcow2', index: null },
    };
  });
}

/** The disk's path, its suffix replaced by the snapshot's name (virDomainSnapshotDefAssignExternalNames). */
function generated(disk: Disk, name: string, taken: Map<string, string>, { isRegularFile }: AlignContext): StorageSource {
  const { source } = disk;
  const cannot = `cannot generate external snapshot name for disk '${disk.target}'`;
  if (source === null) throw refusal(`${cannot} without source`);
  if (source.type !== 'file') throw refusal(`${cannot} on a '${source.type}' device`);
  if (!isRegularFile(source.path)) {
    throw refusal(`source for disk '${disk.target}' is not a regular file; refusing to generate external snapshot name`);
  }
  const dot = source.path.lastIndexOf('.');
  const stem = dot > source.path.lastIndexOf('/') ? source.path.slice(0, dot) : source.path;
  const path = `${stem}.${name}`;
  const other = taken.get(path);
  if (other !== undefined) throw refusal(`${cannot}: collision with disk '${other}'`);
  taken.set(path, disk.target);
  return { type: 'file', path };
}

function checkSelection(disks: readonly SnapshotDisk[], diskOnly: boolean): void {
  const selected = disks.filter((disk) => disk.mode === 'external' || disk.mode === 'internal' || disk.mode === 'manual');
  if (selected.length === 0) throw refusal('nothing selected for snapshot');
  if (diskOnly && !selected.some((disk) => disk.mode === 'external')) {
    const internal = selected.find((disk) => disk.mode === 'internal');
    throw refusal(
      internal === undefined
        ? 'disk-only snapshots require at least one disk to be selected for snapshot'
        : `active qemu domains require external disk snapshots; disk ${internal.name} requested internal`,
    );
  }
}
