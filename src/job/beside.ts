// Steps that are done while the domain is not locked: one, or several side by side. Those that follow one another and have
// a lane each are done together, lane by lane; in a lane one comes after the other. All have come back before the journal
// hears of any of them and the next step is looked at, so that everything else of a plan keeps its order.

import type { Mark } from '../journal/entry.js';
import type { StepReport } from './effect.js';
import type { Run } from './run.js';
import { partsOf, tell, withoutQemu } from './run.js';
import { cancelled, errorOf } from './stop.js';

/** By step: null, or why it failed. One that was stopped because another one failed has that one's reason. */
export type Returned = ReadonlyMap<number, Error | null>;

export const laneOf = <W>(run: Run<W>, i: number): string | null => {
  if (run.plan.steps[i] === undefined) return null;
  const { step, effect } = partsOf(run, i);
  return effect.lane?.(step) ?? null;
};

/** The steps behind `i` that may be done together with it, and are still to be done. */
export async function besides<W>(
  run: Run<W>,
  i: number,
  marks: readonly Mark[],
): Promise<readonly number[]> {
  const found: number[] = [];
  if (laneOf(run, i) === null) return found;
  for (let j = i + 1; laneOf(run, j) !== null; j++) {
    const { step, effect, context } = partsOf(run, j);
    // Asked again when it is its turn, so nothing is used up here of what a person said.
    const was =
      marks[j] === 'doing'
        ? await effect.probe(step, run.deps.world, context).catch(() => 'unknown' as const)
        : marks[j] === 'done'
          ? 'done'
          : 'absent';
    if (was === 'unknown') break;
    if (was !== 'done') found.push(j);
  }
  return found;
}

export async function doBeside<W>(run: Run<W>, steps: readonly number[]): Promise<Returned> {
  const returned = new Map<number, Error | null>();
  const reports = new Map<number, StepReport>();
  const others = new AbortController();
  let first: Error | null = null;
  await Promise.all(
    lanesOf(run, steps).map(async (lane) => {
      for (const i of lane) {
        const failure = first === null ? await attempt(run, i, reports, others.signal) : first;
        if (failure !== null) first ??= failure;
        if (failure !== null) others.abort();
        returned.set(i, failure === null ? null : first);
      }
    }),
  );
  return returned;
}

function lanesOf<W>(run: Run<W>, steps: readonly number[]): readonly (readonly number[])[] {
  const lanes = new Map<string | null, number[]>();
  for (const i of steps) {
    const lane = laneOf(run, i);
    lanes.set(lane, [...(lanes.get(lane) ?? []), i]);
  }
  return [...lanes.values()];
}

/** Null: it was done. */
async function attempt<W>(
  run: Run<W>,
  i: number,
  reports: Map<number, StepReport>,
  others: AbortSignal,
): Promise<Error | null> {
  const { step, effect, context: alone } = partsOf(run, i);
  const context = {
    ...alone,
    signal: AbortSignal.any([alone.signal, others]),
    progress: (report: StepReport) => {
      reports.set(i, report);
      tell(run, i, 'doing', { report, beside: reports });
    },
  };
  try {
    await withoutQemu(run, i, async () => await effect.do(step, run.deps.world, context));
    return null;
  } catch (error) {
    return context.signal.aborted ? cancelled(run, i, error) : errorOf(error);
  }
}
