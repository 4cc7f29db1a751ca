// How fast the copies of a move go, and whether they go: what a person said last. It outlives the daemon.

import type { CopyPace } from '../job/effect.js';
import type { Journal } from '../journal/journal.js';

export class Paces {
  private readonly journal: Journal;
  private readonly byOperation = new Map<number, CopyPace>();

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
  of(operation: number): CopyPace | null {
    return this.byOperation.get(operation) ?? null;
  }

  /** Durable when it resolves, and then it holds. */
  async set(operation: number, pace: CopyPace): Promise<void> {
    await this.journal.putSetting(keyOf(operation), printed(pace));
    this.byOperation.set(operation, pace);
  }

  /** Of an operation that has ended. */
  async forget(operation: number): Promise<void> {
    if (!this.byOperation.delete(operation)) return;
    await this.journal.putSetting(keyOf(operation), null);
  }
}

const keyOf = (operation: number): string => `pace-${operation}`;

/** `10485760`, `none`, and either with ` paused` behind it. */
const printed = ({ limitBytesPerSecond, isPaused }: CopyPace): string =>
  `${limitBytesPerSecond ?? 'none'}${isPaused ? ' paused' : ''}`;

function parsed(text: string): CopyPace {
  const [limit = 'none', paused] = text.split(' ');
  return {
    limitBytesPerSecond: limit === 'none' ? null : BigInt(limit),
    isPaused: paused === 'paused',
  };
}
