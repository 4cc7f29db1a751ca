// All strikes of one kind at one operation: the points are those that its runs came to, an unharmed one first. A run that
// comes to a point which no run before it knew adds that one, so nothing is listed by hand and nothing is left out.

import type { Blow, Deed, Moment } from './blow.js';
import type { CaseResult } from './case.js';
import { randomOf, type Random } from './random.js';
import type { Scenario } from './scenarios.js';

export interface HuntOptions {
  /** Points at which QEMU is only asked something, too. */
  readonly questions: boolean;
  /** Of the order in which points are struck, so that a hunt that is cut short has seen all parts of the operation. */
  readonly seed?: number;
  /** Strikes (`keyOf`) that were made by a run before this one. */
  readonly done?: ReadonlySet<string>;
}

export const keyOf = ({ moment, point }: Pick<Blow, 'moment' | 'point'>): string =>
  `${moment} ${point}`;

/** One that is asked for its next strike until it has none. */
export class Hunt {
  readonly scenario: Scenario;
  readonly deed: Deed;
  readonly results: CaseResult[] = [];
  private readonly options: HuntOptions;
  private readonly known = new Set<string>();
  private readonly due: Blow[] = [];
  private readonly again = new Set<string>();
  private readonly random: Random;
  private unharmed = false;

  constructor(scenario: Scenario, deed: Deed, options: HuntOptions) {
    this.scenario = scenario;
    this.deed = deed;
    this.options = options;
    this.random = randomOf(options.seed ?? 1);
  }

  get isOver(): boolean {
    return this.unharmed && this.due.length === 0;
  }

  /** How many strikes are due, as far as is known: before a first run nothing is. */
  get left(): number {
    return this.unharmed ? this.due.length : Number.POSITIVE_INFINITY;
  }

  /** The points of the operation that runs came to so far. */
  get points(): ReadonlySet<string> {
    return this.known;
  }

  /** Null: a run in which nobody is struck. */
  next(): Blow | null {
    return this.due.shift() ?? null;
  }

  /** What became of the last one. */
  take(result: CaseResult): void {
    this.unharmed ||= result.blow === null;
    for (const { point, asks } of result.points) this.learn(point, asks);
    const { blow, struck } = result;
    if (blow === null || struck) {
      this.results.push(result);
      return;
    }
    // Its run did not come to that point: once more, because the order of what runs side by side differs.
    const key = keyOf(blow);
    if (this.again.has(key)) return;
    this.again.add(key);
    this.due.push(blow);
  }

  private learn(point: string, asks: boolean): void {
    if (this.known.has(point)) return;
    this.known.add(point);
    if (asks && !this.options.questions) return;
    // A question changes nothing: what is true before its answer is true after it.
    const moments: readonly Moment[] = asks ? ['before'] : ['before', 'after'];
    for (const moment of moments) {
      if (this.options.done?.has(keyOf({ moment, point })) === true) continue;
      const at = this.random(this.due.length + 1);
      this.due.splice(at, 0, { point, moment, deed: this.deed });
    }
  }
}
