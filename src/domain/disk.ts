// A disk of a domain, as libvirt's `<disk>` has it: one type for what was defined and for what runs. In a running
// domain every image carries its `index`, the backing chain is whole, and `alias` and `address` are set.

import type { Format, Image, StorageSource } from '../block/layer.js';

export type DiskBus = 'virtio' | 'ide' | 'sata';

/** `<disk snapshot=>`: what a snapshot does with this disk when it does not say otherwise. */
export type SnapshotMode = 'no' | 'internal' | 'external' | 'manual';

/** Attributes of `<driver>` besides the format. Null: not said, QEMU's default. */
export interface DriverOptions {
  readonly cache: 'none' | 'writethrough' | 'writeback' | 'directsync' | 'unsafe' | null;
  readonly io: 'native' | 'threads' | 'io_uring' | null;
  readonly discard: 'ignore' | 'unmap' | null;
  readonly detectZeroes: 'off' | 'on' | 'unmap' | null;
}

/**
 * A second image kept in step with the disk, libvirt's `<mirror>`. Only in a running domain.
 * `jobId` is the QEMU block job that does it; it is not part of the XML.
 */
export interface DiskMirror {
  readonly job: 'copy' | 'active-commit';
  /** Absent in the XML while copying; READY is an event, never arithmetic (law 12). */
  readonly ready: 'no' | 'yes' | 'abort' | 'pivot';
  readonly image: Image;
  /** The chain below the mirror as it will be after a pivot. */
  readonly backing: readonly Image[];
  readonly jobId: string;
}

/** An address on a bus, printed as libvirt's `<address>`; attributes as in the XML (`type`, `domain`, `bus`, `slot`, `function`, `controller`, `target`, `unit`). */
export type DeviceAddress = Readonly<Record<string, string>>;

export interface Disk {
  readonly device: 'disk' | 'cdrom';
  readonly target: string;
  readonly bus: DiskBus;
  /** Null: an empty drive. */
  readonly source: StorageSource | null;
  /** `<source index=>`; null unless running. */
  readonly index: number | null;
  readonly format: Format;
  readonly driver: DriverOptions;
  /**
   * The images below `source`, nearest first. Null: `<backingStore>` was not given, the header is followed at start.
   * Empty: an explicit `<backingStore/>`, nothing below.
   */
  readonly backing: readonly Image[] | null;
  /** `backing` was given without its closing `<backingStore/>`: the header of its last image is followed at start. */
  readonly openEnded?: boolean;
  readonly mirror: DiskMirror | null;
  readonly readonly: boolean;
  readonly shareable: boolean;
  readonly serial: string | null;
  readonly bootOrder: number | null;
  readonly snapshot: SnapshotMode | null;
  readonly address: DeviceAddress | null;
  readonly alias: string | null;
}

/** The images of a disk, active first; empty for a drive without a medium. */
export function imagesOf(disk: Disk): readonly Image[] {
  if (disk.source === null) return [];
  return [{ source: disk.source, format: disk.format, index: disk.index }, ...(disk.backing ?? [])];
}
