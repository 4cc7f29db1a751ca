// What was seen of the files that may have been left, as data.

import type { Older } from '../../domain/source-fate.js';
import type { Holder } from '../open-files.js';
import type { Candidate } from './candidates.js';

export interface GcFacts {
  readonly nowSeconds: number;
  readonly candidates: readonly Candidate[];
  /** By path; those that are not there are missing. */
  readonly files: ReadonlyMap<string, FileSeen>;
  /** By path, of those that are stale. */
  readonly older: ReadonlyMap<string, Older>;
}

export interface FileSeen {
  /** A symbolic link is none of ours. */
  readonly kind: 'file' | 'socket' | 'other';
  readonly allocatedBytes: bigint;
  /** The last change of its content, its name or its owner (st_ctime). */
  readonly changedMs: number;
  /** Who names or needs it: domains, snapshots, open operations, in words. */
  readonly usedBy: readonly string[];
  readonly holders: readonly Holder[];
  /** Files of its folder that name it. */
  readonly namedBy: readonly string[];
  /** Images of the disk that it belonged to, as they are now, that are not there; null: not known which those are. */
  readonly liveMissing: readonly string[] | null;
  /** Why it could not be looked at, or could not be removed; null: nothing. */
  readonly problem: string | null;
}
