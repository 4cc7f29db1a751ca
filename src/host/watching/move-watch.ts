// What is known of one move while it runs: what was seen of its disks, and what follows for how it goes on. In memory only:
// the next daemon looks anew.

import type { Look } from './meter.js';
import { Meter } from './meter.js';
import type { Band, Convergence } from './foresight.js';
import { convergenceOf, readyBand, unknown } from './foresight.js';
import type { CopyProgress } from './copies.js';
import { workDoneOf, workOf } from './copies.js';
import type { Histogram, Latency } from './latency.js';
import { latencyOf, sumOf } from './latency.js';
import type { CommandHint, ProgressRates } from '../ferry-host.js';

export interface DiskSight extends ProgressRates {
  /** Its job as QEMU tells of it. */
  readonly job: Look['job'];
}

/** What of a running move can be seen from outside. */
export interface Sight {
  readonly disks: ReadonlyMap<string, DiskSight>;
  readonly together: ProgressRates;
  readonly readySeconds: Band | null;
  readonly convergence: Convergence;
  readonly ladder: readonly CommandHint[];
}

/** What one look at a move brought. */
export interface Seen {
  readonly atMs: number;
  readonly copies: readonly CopyProgress[];
  readonly disks: ReadonlyMap<string, Pick<Look, 'job' | 'writtenBytes' | 'writes'>>;
  readonly limitBytesPerSecond: bigint | null;
  readonly isPaused: boolean;
}

const COURSE_MS = 60_000;

export class MoveWatch {
  /** What images that are not begun take, by path: they are frozen. */
  readonly sizes = new Map<string, bigint>();
  /** It was said in the event stream that the move does not converge. */
  isTold = false;
  /** What a person may type just now. */
  ladder: readonly CommandHint[] = [];
  private readonly meters = new Map<string, Meter>();
  private readonly before: ReadonlyMap<string, Histogram>;
  private last: Seen | null = null;

  /** `before`: the guest's writes before the move began, by target. */
  constructor(before: ReadonlyMap<string, Histogram>) {
    this.before = before;
  }

  add(seen: Seen): void {
    const { limitBytesPerSecond = null, isPaused = false } = this.last ?? {};
    const isChanged =
      seen.limitBytesPerSecond !== limitBytesPerSecond || seen.isPaused !== isPaused;
    for (const [target, disk] of seen.disks) {
      const meter = this.meters.get(target) ?? new Meter();
      this.meters.set(target, meter);
      if (isChanged) meter.forget();
      const copies = seen.copies.filter((copy) => copy.target === target);
      meter.add({ atMs: seen.atMs, copiedBytes: workDoneOf(copies), ...disk });
    }
    this.last = seen;
  }

  get seenAtMs(): number {
    return this.last?.atMs ?? Number.NEGATIVE_INFINITY;
  }

  get sight(): Sight {
    const disks = new Map(
      [...this.meters].map(([target, meter]) => [target, this.diskOf(target, meter)]),
    );
    const course = this.course();
    return {
      disks,
      together: this.togetherOf([...disks.values()]),
      readySeconds: course === null ? null : readyBand(course),
      convergence: this.convergence,
      ladder: this.ladder,
    };
  }

  get convergence(): Convergence {
    const course = this.course();
    return course === null ? unknown : convergenceOf(course);
  }

  /** Of the slowest disk: the writes of the last `ms`; null: nothing was written. */
  p99Within(ms: number): number | null {
    const all = [...this.meters.values()].map((meter) => latencyOf(meter.writesWithin(ms)));
    return highest(all);
  }

  /** Of the slowest disk before the move began, where enough was written to tell. */
  p99Before(leastWrites: number): number | null {
    const all = [...this.before.values()].map(latencyOf);
    return highest(all.map((one) => (one === null || one.writes < leastWrites ? null : one)));
  }

  get copyBytesPerSecond(): bigint | null {
    return sum([...this.meters.values()].map(({ rates }) => rates.copyBytesPerSecond));
  }

  private diskOf(target: string, meter: Meter): DiskSight {
    return {
      ...meter.rates,
      lagBytes: meter.lagBytes,
      job: meter.latest?.job ?? null,
      latency: { before: latencyOf(this.before.get(target) ?? null), now: meter.latency },
    };
  }

  private togetherOf(disks: readonly DiskSight[]): Sight['together'] {
    const writes = [...this.meters.values()].flatMap((meter) => meter.recentWrites ?? []);
    return {
      copyBytesPerSecond: sum(disks.map((disk) => disk.copyBytesPerSecond)),
      mirrorBytesPerSecond: sum(disks.map((disk) => disk.mirrorBytesPerSecond)),
      dirtyBytesPerSecond: sum(disks.map((disk) => disk.dirtyBytesPerSecond)),
      guestBytesPerSecond: sum(disks.map((disk) => disk.guestBytesPerSecond)),
      lagBytes: sum(disks.map((disk) => disk.lagBytes)),
      latency: {
        before: latencyOf(sumOf([...this.before.values()])),
        now: latencyOf(sumOf(writes)),
      },
    };
  }

  private course() {
    if (this.last === null) return null;
    const { copies, limitBytesPerSecond, isPaused } = this.last;
    const total = workOf(copies);
    const disks = new Map(
      [...this.meters].map(([target, meter]) => [target, meter.within(COURSE_MS)]),
    );
    // All disks are looked at together, so their looks stand side by side.
    const [first = [], ...others] = [...disks.values()];
    return {
      leftBytes: total === null ? null : total - workDoneOf(copies),
      copies: first.map(({ atMs, copiedBytes }, i) => ({
        atMs,
        copiedBytes: others.reduce(
          (all, looks) => all + (looks[i]?.copiedBytes ?? 0n),
          copiedBytes,
        ),
      })),
      disks,
      limitBytesPerSecond,
      isPaused,
    };
  }
}

/** Null: it is known of none. */
function sum(values: readonly (bigint | null)[]): bigint | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((all, value) => all + value, 0n);
}

function highest(all: readonly (Latency | null)[]): number | null {
  const known = all.flatMap((one) => (one === null ? [] : [one.p99Ms]));
  return known.length === 0 ? null : Math.max(...known);
}
