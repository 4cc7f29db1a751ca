// How fast the copies of a move go, and whether they go: what a person said last. It outlives the daemon.

import type { CopyPace } from '../job/effect.js';
import type { Journal } from '../journal/journal.js';
import { firstLimit } from './watching/auto-limit.js';

/** The limit moves by itself, so that the p99 of the guest's writes keeps within so many ms. Null: not known yet. */
export interface AutoPace {
  readonly latencyMs: number | null;
}

export interface SaidPace extends CopyPace {
  /** Null: the limit is what somebody said. */
  readonly auto: AutoPace | null;
}

export class Paces {
  private readonly journal: Journal;
  private readonly byOperation = new Map<number, SaidPace>();
  /** Where the limit is that moves by itself. */
  private readonly steered = new Map<number, bigint>();

  constructor(journal: Journal) {
    this.journal = journal;
  }

  /** Reads what was said of operations that are open, before any of them goes on. */
  async load(operations: readonly number[]): Promise<void> {
    for (const operation of operations) {
      const text = await this.journal.setting(keyOf(operation));
      if (text !== null) this.byOperation.set(operation, parsed(text));
    }
  }

  /** Null: nobody said anything, so it is as planned. */
  of(operation: number): SaidPace | null {
    const said = this.byOperation.get(operation) ?? null;
    if (said?.auto == null) return said;
    const limitBytesPerSecond = this.steered.get(operation) ?? firstLimit(null).limitBytesPerSecond;
    return { ...said, limitBytesPerSecond };
  }

  /** Where the limit is from now on, for one that moves by itself. In memory: the next daemon feels for it anew. */
  steer(operation: number, limitBytesPerSecond: bigint): void {
    this.steered.set(operation, limitBytesPerSecond);
  }

  /** Durable when it resolves, and then it holds. */
  async set(operation: number, pace: SaidPace): Promise<void> {
    await this.journal.putSetting(keyOf(operation), printed(pace));
    this.byOperation.set(operation, pace);
  }

  /** Of an operation that has ended. */
  async forget(operation: number): Promise<void> {
    this.steered.delete(operation);
    if (!this.byOperation.delete(operation)) return;
    await this.journal.putSetting(keyOf(operation), null);
  }
}

const keyOf = (operation: number): string => `pace-${operation}`;

/** `10485760`, `none`, `auto`, `auto:20.5` (ms), and each with ` paused` behind it. */
const printed = ({ limitBytesPerSecond, isPaused, auto }: SaidPace): string => {
  const latency = auto?.latencyMs == null ? '' : `:${auto.latencyMs}`;
  const limit = auto === null ? (limitBytesPerSecond ?? 'none') : `auto${latency}`;
  return `${limit}${isPaused ? ' paused' : ''}`;
};

function parsed(text: string): SaidPace {
  const [limit = 'none', paused] = text.split(' ');
  const [word = '', latency] = limit.split(':');
  const isAuto = word === 'auto';
  return {
    limitBytesPerSecond: isAuto || limit === 'none' ? null : BigInt(limit),
    isPaused: paused === 'paused',
    auto: isAuto ? { latencyMs: latency === undefined ? null : Number(latency) } : null,
  };
}
