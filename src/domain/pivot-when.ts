// When a move that is in step switches its disks; what that means is in plan/pivot-when.ts.

/** What was asked for when the move was planned; `ferry pivot` overrules it. */
export type PivotWhen =
  /** As soon as it is in step. */
  | { readonly how: 'auto' }
  /** When somebody says so. */
  | { readonly how: 'manual' }
  /** Not before a moment, in ms since the epoch. */
  | { readonly how: 'at'; readonly atMs: number }
  /** Once the destination has been less than so much behind for so long. */
  | { readonly how: 'when'; readonly lagBytes: bigint; readonly forMs: number };
