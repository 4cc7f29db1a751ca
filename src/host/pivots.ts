// Which moves somebody told to switch without waiting any longer (`ferry pivot`). It outlives the daemon.

import type { Journal } from '../journal/journal.js';

export class Pivots {
  private readonly journal: Journal;
  private readonly said = new Set<number>();

  constructor(journal: Journal) {
    this.journal = journal;
  }

  /** Reads what was said of operations that are open, before any of them goes on. */
  async load(operations: readonly number[]): Promise<void> {
    for (const operation of operations)
      if ((await this.journal.setting(keyOf(operation))) !== null) this.said.add(operation);
  }

  isSaid(operation: number): boolean {
    return this.said.has(operation);
  }

  /** Durable when it resolves, and then it holds. */
  async say(operation: number): Promise<void> {
    await this.journal.putSetting(keyOf(operation), 'now');
    this.said.add(operation);
  }

  /** Of an operation that has ended. */
  async forget(operation: number): Promise<void> {
    if (!this.said.delete(operation)) return;
    await this.journal.putSetting(keyOf(operation), null);
  }
}

const keyOf = (operation: number): string => `pivot-${operation}`;
