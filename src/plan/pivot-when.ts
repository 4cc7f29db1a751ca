// When a move that is in step switches its disks. Pure: what was asked for, and whether its time has come.

import type { PivotWhen } from '../domain/pivot-when.js';

export const pivotAtOnce: PivotWhen = { how: 'auto' };

/** One look at mirrors that are in step. */
export interface LagSeen {
  /** What the destination is behind: what its jobs have still to copy, all together. */
  readonly lagBytes: bigint;
  /** By the clock of the wall, in ms since the epoch. */
  readonly nowMs: number;
  /** By a clock that nobody sets. */
  readonly steadyMs: number;
}

/** Since when (`LagSeen.steadyMs`) the lag has been as small as was asked for; null: it is not. */
export function smallSince(
  when: PivotWhen,
  before: number | null,
  { lagBytes, steadyMs }: LagSeen,
): number | null {
  return when.how === 'when' && lagBytes < when.lagBytes ? (before ?? steadyMs) : null;
}

/** Whether the time has come, nobody having said anything. */
export function isTimeToPivot(when: PivotWhen, since: number | null, seen: LagSeen): boolean {
  switch (when.how) {
    case 'auto':
      return true;
    case 'manual':
      return false;
    case 'at':
      return seen.nowMs >= when.atMs;
    case 'when':
      return since !== null && seen.steadyMs - since >= when.forMs;
  }
}

/** As it is typed: `manual`, `at 2026-01-02T03:00:00Z`, `when lag<4M for 30s`. */
export function showPivot(when: PivotWhen): string {
  if (when.how === 'at') return `at ${isoSeconds(when.atMs)}`;
  return when.how === 'when' ? `when ${showLag(when)}` : when.how;
}

/** `2026-01-02T03:00:00Z`. */
export const isoSeconds = (ms: number): string =>
  new Date(ms).toISOString().replace(/\.000Z$/, 'Z');

function showLag({ lagBytes, forMs }: Extract<PivotWhen, { readonly how: 'when' }>): string {
  return `lag<${sized(lagBytes)}${forMs === 0 ? '' : ` for ${timed(forMs)}`}`;
}

function sized(bytes: bigint): string {
  const unit = ['T', 'G', 'M', 'K'].findIndex((_, i) => bytes % (1n << BigInt(40 - 10 * i)) === 0n);
  return unit < 0 ? `${bytes}` : `${bytes >> BigInt(40 - 10 * unit)}${'TGMK'[unit]}`;
}

function timed(ms: number): string {
  if (ms % 1000 !== 0) return `${ms}ms`;
  const seconds = ms / 1000;
  if (seconds % 3600 === 0) return `${seconds / 3600}h`;
  return seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`;
}

/** What it waits for, as the end of a sentence. `command` is what a person types to have it at once. */
export function explainPivot(when: PivotWhen, command: string): string {
  switch (when.how) {
    case 'auto':
      return 'nothing';
    case 'manual':
      return `'${command}'`;
    case 'at':
      return `${isoSeconds(when.atMs)}, or '${command}'`;
    case 'when':
      return `${showLag(when)}, or '${command}'`;
  }
}
