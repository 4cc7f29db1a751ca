// A snapshot of a domain, libvirt's `<domainsnapshot>`, with `<mirror>` as proposed on libvir-list in March 2012.

import type { Image } from '../block/layer.js';
import type { Definition } from './definition.js';
import type { SnapshotMode } from './disk.js';

/** The state that the domain was in; `disk-snapshot` when only its disks were taken while it ran. */
export type SnapshotState =
  | 'disk-snapshot'
  | 'running'
  | 'paused'
  | 'shutdown'
  | 'shutoff'
  | 'crashed'
  | 'blocked';

export interface SnapshotDisk {
  /** `<target dev=>` of the disk. */
  readonly name: string;
  readonly mode: SnapshotMode;
  /** The new layer of an external snapshot. */
  readonly image: Image | null;
  /** The second new layer, kept in step on other storage until it is reopened or removed. */
  readonly mirror: Image | null;
}

export interface SnapshotMemory {
  readonly mode: 'no' | 'internal' | 'external';
  readonly file: string | null;
}

export interface Snapshot {
  readonly name: string;
  readonly description: string | null;
  readonly state: SnapshotState;
  readonly parent: string | null;
  readonly creationTimeSeconds: number;
  readonly memory: SnapshotMemory;
  /** Every disk of the domain, in its order. */
  readonly disks: readonly SnapshotDisk[];
  /** The running definition, or the only one, as it was before. */
  readonly domain: Definition;
  /** The persistent definition as it was before, when the domain ran and had one. */
  readonly inactiveDomain: Definition | null;
}
