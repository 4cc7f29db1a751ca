// One run of an operation: its plan, what it works with, and what an effect gets to know of it.

import type { Pause } from '../journal/entry.js';
import type { Journal } from '../journal/journal.js';
import { Pace } from '../image/pace.js';
import type { Plan, Step, StepKind } from '../plan/step.js';
import { present } from '../std/assert.js';
import type { JournalError } from '../std/errors.js';
import type { CopyPace, Effect, EffectContext, Effects, StepReport } from './effect.js';

export interface StepProgress {
  readonly operation: number;
  readonly step: number;
  readonly kind: StepKind;
  readonly state: 'doing' | 'done' | 'undoing' | 'undone';
  /** Null where the step only changed its state. */
  readonly report: StepReport | null;
  /** Of those that are done beside it: what they said last, by step. */
  readonly beside?: ReadonlyMap<number, StepReport>;
}

export interface RunnerDeps<W> {
  readonly journal: Journal;
  readonly effects: Effects<W>;
  readonly world: W;
  /** The domain's lock: held all the time, except while a background step is done. */
  readonly lock?: { run<T>(body: () => Promise<T>): Promise<T> };
  /** Cancels before a step or in a background step; ignored once the commit step is done. */
  readonly signal?: AbortSignal;
  /** Whether the domain's QEMU is gone. */
  readonly isGone?: () => Promise<boolean>;
  /** Why an operation that may wait has to, although its QEMU is there; null: it need not. */
  readonly obstacle?: () => Promise<string | null>;
  readonly onProgress?: (progress: StepProgress) => void;
  /** Of an operation; null: as planned. */
  readonly pace?: (operation: number) => CopyPace | null;
  readonly isPivotSaid?: (operation: number) => boolean;
  /** Awaited before a step is done on the way forward: who goes on with many operations at once puts them in order. */
  readonly turn?: (kind: StepKind) => Promise<void>;
  /** Told, still under the lock, that the journal could not be written: the operation is half-way until it is resumed. */
  readonly onInterrupted?: (error: JournalError) => void;
}

export interface Run<W> {
  readonly operation: number;
  readonly plan: Plan;
  readonly deps: RunnerDeps<W>;
  /** Pauses that no entry has taken along yet. */
  readonly pauses: Pause[];
  /** By step: why the world could not say what became of it. */
  readonly doubts: Map<number, Error>;
  /** Of all its copies together; null until the first asks for it. */
  readonly budget: { pace: Pace | null };
}

export const runOf = <W>(operation: number, plan: Plan, deps: RunnerDeps<W>): Run<W> => ({
  operation,
  plan,
  deps,
  pauses: [],
  doubts: new Map(),
  budget: { pace: null },
});

/** From the commit step on an operation is finished without its QEMU: one that goes in the middle of a step is no failure. */
export async function withoutQemu<W>(
  { plan, deps }: Run<W>,
  i: number,
  attempt: () => Promise<void>,
): Promise<void> {
  try {
    await attempt();
  } catch (error) {
    if (i < plan.commitAt || (await deps.isGone?.()) !== true) throw error;
    await attempt();
  }
}

export const isCancelled = <W>({ plan, deps }: Run<W>, i: number): boolean =>
  i < plan.commitAt && deps.signal?.aborted === true;

export function tell<W>(
  { operation, plan, deps }: Run<W>,
  step: number,
  state: StepProgress['state'],
  said: Pick<StepProgress, 'report' | 'beside'> = { report: null },
): void {
  const { kind } = present(plan.steps[step], `step ${step} stands in the plan`);
  deps.onProgress?.({ operation, step, kind, state, ...said });
}

export interface Parts<W> {
  readonly step: Step;
  readonly effect: Effect<Step, W>;
  readonly context: EffectContext;
}

export function partsOf<W>(
  run: Run<W>,
  i: number,
  {
    direction = 'forward',
    begun = false,
  }: Partial<Pick<EffectContext, 'direction' | 'begun'>> = {},
): Parts<W> {
  const { operation, plan, deps } = run;
  const step = present(plan.steps[i], `step ${i} stands in the plan`);
  const effect: Effect<Step, W> = deps.effects[step.kind];
  const cancellable = effect.background === true && i < plan.commitAt;
  const context: EffectContext = {
    operation,
    direction,
    begun,
    signal: (cancellable ? deps.signal : undefined) ?? never,
    progress: (report) => tell(run, i, 'doing', { report }),
    notePause: (what, ms) => void run.pauses.push({ what, ms: Math.round(ms * 10) / 10 }),
    pace: () => deps.pace?.(operation) ?? null,
    budget: (limit) => (run.budget.pace ??= new Pace(limit)),
    isPivotSaid: () => deps.isPivotSaid?.(operation) ?? false,
    saved: async () => await deps.journal.copy(operation, i),
    save: async (note) => await deps.journal.saveCopy(operation, i, note),
  };
  return { step, effect, context };
}

const never = new AbortController().signal;
