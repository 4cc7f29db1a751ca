// What was seen of one disk of a move, second by second, and the rates that follow. Pure but for what it keeps.

import type { ProgressRates } from '../ferry-host.js';
import type { Histogram, Latency } from './latency.js';
import { latencyOf, since } from './latency.js';

/** One look at one disk. */
export interface Look {
  readonly atMs: number;
  /** What of its frozen images is at the destination. */
  readonly copiedBytes: bigint;
  /** Its mirror, or after the switch its merge; null: there is none. */
  readonly job: JobLook | null;
  /** What the guest has written since its QEMU began. */
  readonly writtenBytes: bigint;
  readonly writes: Histogram | null;
}

export interface JobLook {
  readonly id: string;
  /** What it has carried over, and what it would have if nothing more were written. */
  readonly doneBytes: bigint;
  readonly totalBytes: bigint;
}

/** What a disk does in a second; null: too little was seen. */
export type DiskRates = Omit<ProgressRates, 'lagBytes' | 'latency'>;

/** Pieces of 8 MiB make shorter times jump. */
const SHOWN_MS = 10_000;
const LATENCY_MS = 5000;
const KEPT_MS = 60_000;
/** Less says nothing. */
const LEAST_MS = 400;

export class Meter {
  private looks: readonly Look[] = [];

  add(look: Look): void {
    this.looks = [...this.looks, look].filter(({ atMs }) => look.atMs - atMs <= KEPT_MS);
  }

  /** What was before says nothing of what comes: a limit was changed. */
  forget(): void {
    this.looks = this.looks.slice(-1);
  }

  get latest(): Look | null {
    return this.looks.at(-1) ?? null;
  }

  /** Looks of the last `ms`, oldest first. */
  within(ms: number): readonly Look[] {
    const now = this.latest?.atMs ?? 0;
    return this.looks.filter(({ atMs }) => now - atMs <= ms);
  }

  get rates(): DiskRates {
    const looks = this.within(SHOWN_MS);
    return {
      copyBytesPerSecond: rateOf(looks, ({ copiedBytes }) => copiedBytes),
      mirrorBytesPerSecond: carriedRate(looks),
      dirtyBytesPerSecond: dirtyRate(looks),
      guestBytesPerSecond: rateOf(looks, ({ writtenBytes }) => writtenBytes),
    };
  }

  /** What the mirror is behind the guest; null: there is none. */
  get lagBytes(): bigint | null {
    const job = this.latest?.job ?? null;
    return job === null ? null : lagOf(job);
  }

  /** Of the guest's writes of the last seconds. */
  get latency(): Latency | null {
    return latencyOf(this.recentWrites);
  }

  get recentWrites(): Histogram | null {
    return this.writesWithin(LATENCY_MS);
  }

  writesWithin(ms: number): Histogram | null {
    const looks = this.within(ms);
    const [first, last] = [looks[0]?.writes ?? null, looks.at(-1)?.writes ?? null];
    return first === null || last === null ? null : since(last, first);
  }
}

export const lagOf = ({ doneBytes, totalBytes }: JobLook): bigint =>
  totalBytes > doneBytes ? totalBytes - doneBytes : 0n;

/** A rotation and the switch begin new jobs, whose counters begin anew: what is of the last one. */
export function sameJob(looks: readonly Look[]): readonly Look[] {
  const id = looks.at(-1)?.job?.id;
  return id === undefined ? [] : looks.filter(({ job }) => job?.id === id);
}

export const carriedRate = (looks: readonly Look[]): bigint | null =>
  rateOf(sameJob(looks), ({ job }) => job?.doneBytes ?? null);
export const dirtyRate = (looks: readonly Look[]): bigint | null =>
  rateOf(sameJob(looks), ({ job }) => job?.totalBytes ?? null);

/** Bytes a second between the first and the last look that have the number; null: too little was seen. */
export function rateOf(
  looks: readonly Look[],
  bytesOf: (look: Look) => bigint | null,
): bigint | null {
  const seen = looks.flatMap((look) => {
    const bytes = bytesOf(look);
    return bytes === null ? [] : [{ atMs: look.atMs, bytes }];
  });
  const [first, last] = [seen[0], seen.at(-1)];
  if (first === undefined || last === undefined) return null;
  const ms = last.atMs - first.atMs;
  if (ms < LEAST_MS) return null;
  const bytes = Number(last.bytes - first.bytes);
  // A new QEMU counts from nothing.
  return bytes < 0 ? null : BigInt(Math.round((bytes * 1000) / ms));
}
