// What `ferry plan move` says, as data: apart from what makes it, for programs that only read it.

import type { VerifyMode } from '../block/copy.js';

/** A plan of a move as a person and a program see it. Null: it could not be told. */
export interface MovePlan {
  readonly hash: string;
  readonly domain: string;
  readonly domainName: string;
  readonly to: string;
  readonly strategy: {
    /** `full-mirror`: QEMU copies each disk into one image. `offline-copy`: of a domain that is shut off, so there is no guest to pause or to keep up with. */
    readonly name: 'mirrored-snapshot' | 'full-mirror' | 'offline-copy';
    readonly why: string;
  };
  /** When it switches, once it is in step: `auto` (at once), `manual`, `at TIME`, `when LAG`. */
  readonly pivot: string;
  readonly disks: readonly PlannedDisk[];
  /** What all copies read: what the images take on their storage now. */
  readonly copyBytes: bigint;
  /** What of the copies is read back at the destination and compared. */
  readonly verify: { readonly how: VerifyMode; readonly readBackBytes: bigint };
  /** Its room is null where nobody tells it before: a server's, which is asked when it is connected to. */
  readonly destination: Omit<Room, 'freeBytes' | 'afterBytes'> & {
    readonly freeBytes: bigint | null;
    readonly afterBytes: bigint | null;
    readonly spokenForBytes: bigint;
  };
  /** Where what the guest writes until the switch goes: folders of the live images, or that of `--overlay-dir`. */
  readonly sources: readonly Room[];
  readonly rates: {
    readonly readBytesPerSecond: bigint | null;
    readonly writeBytesPerSecond: bigint | null;
    readonly limitBytesPerSecond: bigint | null;
    /** What the guest writes to these disks. */
    readonly guestBytesPerSecond: bigint;
  };
  /** From a copy alone on its storages to one that has a third of them. */
  readonly seconds: { readonly least: number; readonly most: number } | null;
  /** What moves on this host took, by what the guest stood still for. */
  readonly pauses: readonly {
    readonly what: string;
    readonly leastMs: number;
    readonly mostMs: number;
  }[];
  readonly risks: readonly string[];
  readonly stages: readonly { readonly stage: string; readonly wayBack: string }[];
}

export interface PlannedDisk {
  readonly target: string;
  /** Active first, as is `after`; that one has a single image where the chain becomes one. */
  readonly before: readonly {
    readonly path: string;
    readonly format: string;
    readonly actualSizeBytes: bigint;
  }[];
  /** `shared`: it is there already. `flattened`: one image of all of `before`. `converted`: not byte for byte. */
  readonly after: readonly {
    readonly path: string;
    readonly format: string;
    readonly how: 'copied' | 'shared' | 'converted' | 'flattened';
  }[];
}

export interface Room {
  readonly folder: string;
  readonly freeBytes: bigint;
  /** When the move is over, and nothing else was written there. */
  readonly afterBytes: bigint;
}
