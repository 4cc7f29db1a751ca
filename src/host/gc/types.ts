// What `ferry gc` says of each file that we left somewhere.

import type { Older } from '../../domain/source-fate.js';

export interface GcReport {
  readonly time: string;
  readonly lookedBy: 'ferryd' | 'ferry';
  readonly items: readonly GcItem[];
}

/**
 * `unfinished`: the target of a mirror that ended. `stale`: live until a switch. `leftover`: made by an operation that
 * was rolled back. `part`: of a copy that never got its name. The others belong to domains that are gone.
 */
export type GcKind = 'unfinished' | 'stale' | 'leftover' | 'part' | 'log' | 'run-file' | 'nvram';

/** `removable`: `--yes` takes it. `by-name`: only when it is named. `kept`: a proof is missing (law 14). */
export type GcFate = 'removable' | 'by-name' | 'kept';

export interface GcItem {
  readonly path: string;
  readonly kind: GcKind;
  /** Null where no domain is known for it. */
  readonly domain: string | null;
  readonly domainName: string | null;
  readonly target: string | null;
  readonly allocatedBytes: bigint;
  /** When it was left; null: not known. */
  readonly sinceSeconds: number | null;
  /** Of one that is stale: how much older than the live image it is. */
  readonly older: Older | null;
  /** The operation that left it; null: not remembered, or none did. */
  readonly operation: number | null;
  /** When it is deleted, if law 14 allows it then; null: only when somebody removes it. */
  readonly keptUntilSeconds: number | null;
  readonly fate: GcFate;
  /** What is proven: that it is ours, that what it holds is elsewhere, that nobody uses it. */
  readonly proof: readonly string[];
  /** Why it is kept, or why only its name removes it. */
  readonly against: readonly string[];
  /** Images whose headers name it: it goes only after them. */
  readonly namedBy: readonly string[];
}

export interface GcRemoved {
  readonly removed: readonly GcItem[];
  /** Numbers of the operations that did it. */
  readonly operations: readonly number[];
}
