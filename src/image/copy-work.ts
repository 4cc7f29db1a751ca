// What a copy worker is asked and answers: plain data between threads.

import type { Extent } from '../block/copy.js';

export interface CopyPaths {
  readonly from: string;
  readonly to: string;
  /** Of the hashes, in hex. */
  readonly key: string;
}

/** One piece to be copied, or to be looked at in the target: whatever the page cache says, or past it. */
export interface Work {
  readonly id: number;
  readonly kind: 'copy' | 'check' | 'read-back';
  readonly offset: number;
  readonly length: number;
  /** Where the source has data in it. */
  readonly parts: readonly Extent[];
  /** Where the target may have some. */
  readonly used: readonly Extent[];
}

/** Of which copy the pieces that follow are; a piece; null: it ends once it has done what it was given. */
export type ToWorker = CopyPaths | Work | null;

export type Side = 'source' | 'target';

/** The operating system refused, or a file is not what it was. */
export interface Trouble {
  readonly side: Side;
  readonly doing: 'read' | 'write';
  /** As `ENOSPC`; null: the file is shorter than it was. */
  readonly code: string | null;
  readonly message: string;
}

export type Answer =
  | {
      readonly id: number;
      readonly hash: string;
      /** What of it came from the storage, by the kernel's accounts. */
      readonly storageBytes: number;
    }
  | { readonly id: number; readonly trouble: Trouble };
