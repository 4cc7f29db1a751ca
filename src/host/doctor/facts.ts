// What `ferry doctor` has seen, as data: the journal, every QEMU that can be found, the images. Read by `look.ts`,
// in the daemon or without one; judged by `report.ts`, which touches nothing.

import type { ImageInfo } from '../../block/facts.js';
import type { DomainRecord, ImageRole } from '../../domain/record.js';
import type { Older } from '../../domain/source-fate.js';
import type { OperationRecord } from '../../journal/journal.js';
import type { Holder } from '../open-files.js';

export interface DoctorFacts {
  readonly nowSeconds: number;
  /** The domain that was asked about; null: all. */
  readonly asked: string | null;
  readonly lookedBy: 'ferryd' | 'ferry';
  readonly daemon: DaemonFacts;
  readonly journal: JournalFacts;
  readonly runDir: string;
  readonly stateDir: string;
  readonly domains: readonly DomainFacts[];
  /** Numbers of operations that the daemon is at. */
  readonly running: ReadonlySet<number>;
  /** Open operations of domains that are gone: transient ones whose QEMU died. */
  readonly orphans: readonly OperationRecord[];
  /** QEMU processes of the run directory that no record tells of. */
  readonly strangers: readonly QemuFacts[];
  /** By path. */
  readonly images: ReadonlyMap<string, ImageFacts>;
  /** Domains that only an XML file tells of. */
  readonly xml: readonly XmlFacts[];
}

export type DaemonFacts =
  | { readonly state: 'answers' }
  /** Nobody wanted to ask it. */
  | { readonly state: 'unasked' }
  | {
      readonly state: 'absent';
      /** Why it could not be asked. */
      readonly problem: string;
      /** A ferryd that has the state directory all the same. */
      readonly holder: number | null;
    };

export type JournalFacts =
  | { readonly state: 'read'; readonly path: string }
  | {
      readonly state: 'missing' | 'unreadable';
      readonly path: string;
      readonly problem: string;
    };

export interface DomainFacts {
  readonly record: DomainRecord;
  /** Null: no process. */
  readonly qemu: QemuFacts | null;
  /** Oldest first. */
  readonly open: readonly OperationRecord[];
  readonly roles: readonly ImageRole[];
  /** By path, of those that are stale. */
  readonly older: ReadonlyMap<string, Older>;
}

export interface QemuFacts {
  readonly uuid: string;
  /** From its command line. */
  readonly name: string;
  readonly pid: number;
  /** False: it was found by the journal's pid, and its pid file is not in the run directory. */
  readonly inRunDir: boolean;
  readonly monitor: MonitorFacts;
}

export type MonitorFacts =
  | {
      readonly state: 'answered';
      /** QAPI RunState. */
      readonly runState: string;
      readonly disks: readonly QemuDisk[];
      /** Images that are open for writing and are no disk's active one: targets of jobs. */
      readonly alsoWritten: readonly string[];
      readonly jobs: readonly JobFacts[];
    }
  | { readonly state: 'busy' | 'silent'; readonly problem: string };

export interface JobFacts {
  readonly id: string;
  readonly isReady: boolean;
  /** Why it does not go on; null: it does. */
  readonly problem: string | null;
}

/** A device with its images as QEMU has them open, active first. */
export interface QemuDisk {
  /** libvirt's alias of the device, `virtio-disk0`. */
  readonly device: string;
  readonly images: readonly { readonly path: string; readonly format: string }[];
}

export interface ImageFacts {
  readonly path: string;
  /** Null: nothing there, or it could not be looked at. */
  readonly sizeBytes: bigint | null;
  /** What it takes on its storage. */
  readonly allocatedBytes: bigint | null;
  readonly modifiedSeconds: number | null;
  /** Null when its format is not known, or its header cannot be read. */
  readonly info: ImageInfo | null;
  /** The image that its own header names, if it has one of qcow2. */
  readonly names: string | null;
  /** No cluster of its own; null: not asked. */
  readonly isEmpty: boolean | null;
  /** Why it cannot be used as it is; null: nothing wrong was seen. */
  readonly problem: string | null;
  readonly holders: readonly Holder[];
}

/** A definition that somebody gave because there is no journal, and what stands beside its images. */
export interface XmlFacts {
  readonly name: string;
  readonly uuid: string;
  readonly disks: readonly {
    readonly target: string;
    readonly path: string;
    /** Images in its folder whose header names it, so that they may be newer. */
    readonly namedBy: readonly string[];
  }[];
}
