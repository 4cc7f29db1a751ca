// Runs plans. `resume` is the only path: a first run is a resume of a journal that holds only the plan, so recovery is
// no second code path.
//
//   forward ──all steps done──────────────────────────────► end: committed
//      │ failure before the commit step, or cancelled
//      │ (entry `rollback`, durable before the first undo)
//      ├──────► back ──all steps undone──────────────────► end: rolled-back
//      │           │ failure, or the world cannot tell
//      ▼           ▼
//    failure from the commit step on: `attention`. The operation stays open; a later resume tries again, the same way.
//
// A plan with `waitsFrom` whose QEMU is gone before its commit step neither turns round nor needs anybody: `waiting`,
// until its domain has a QEMU again.

import type { Change } from '../domain/record.js';
import type { Entry, Mark } from '../journal/entry.js';
import { isRecordOnly } from '../journal/applied.js';
import { encode } from '../journal/codec.js';
import type { Progress } from '../journal/fold.js';
import { fold } from '../journal/fold.js';
import type { Plan, Refusal, Step } from '../plan/step.js';
import { present } from '../std/assert.js';
import type { FerryError } from '../std/errors.js';
import { JournalError, NeedsOperatorError, QemuError } from '../std/errors.js';
import type { Returned } from './beside.js';
import { besides, doBeside } from './beside.js';
import type { EffectContext, Probe } from './effect.js';
import type { Action } from './recover.js';
import { decide } from './recover.js';
import type { Resolution } from './resolve.js';
import { resolutionEntry, undecidedStep } from './resolve.js';
import type { Run, RunnerDeps } from './run.js';
import { isCancelled, partsOf, runOf, tell, withoutQemu } from './run.js';
import {
  cancelled,
  cannotTell,
  earlier,
  errorOf,
  interrupted,
  rethrow,
  stop,
  Stop,
} from './stop.js';

export type { RunnerDeps, StepProgress } from './run.js';

/** How an operation ended. `error`: the one that turned it round, as it was thrown. */
export type Outcome =
  | { readonly outcome: 'committed' }
  /** It stays open until its domain has a QEMU again (`Plan.waitsFrom`). */
  | { readonly outcome: 'waiting'; readonly reason: string }
  | { readonly outcome: 'rolled-back'; readonly error: Error };

/**
 * Brings an operation to its end, from wherever its journal says that it is.
 *
 * @throws {NeedsOperatorError} it stopped and stays open; the original error is the cause.
 */
export async function resume<W>(
  operation: number,
  plan: Plan,
  deps: RunnerDeps<W>,
): Promise<Outcome> {
  const [run, next] = await locked({ deps }, async (): Promise<readonly [Run<W>, Next]> => {
    // Whoever had the lock until now may have made the rest of the plan anew.
    const now = await asPlannedNow(runOf(operation, plan, deps));
    return [now, await advance(now)];
  });
  return await toTheEnd(run, next);
}

/**
 * A person's word on an operation that waits for one, and the way on from there.
 *
 * Resolves when the word is durable; `ended` is what `resume` gives.
 *
 * @throws the refusal of what does not fit; nothing was written then.
 */
export async function resolve<W>(
  operation: number,
  plan: Plan,
  resolution: Resolution,
  deps: RunnerDeps<W>,
): Promise<{ readonly ended: Promise<Outcome> }> {
  const run = runOf(operation, plan, deps);
  await locked(run, async () => {
    const at = await progressOf(run);
    const commitStep = plan.commitAt - 1;
    const isAtCommit = at.direction === 'forward' && undecidedStep(at) === commitStep;
    // What the world knows by now counts more than what anybody believes.
    const asksBack = resolution.direction === 'back' && isAtCommit;
    const known: Resolution =
      asksBack && (await ask(run, commitStep)) === 'done'
        ? { ...resolution, was: 'done' }
        : resolution;
    const entry = resolutionEntry(operation, plan, at, known);
    if ('refusal' in entry) throw entry.refusal;
    await append(run, entry);
  });
  return { ended: resume(operation, plan, deps) };
}

export interface Performed {
  readonly operation: number;
  readonly plan: Plan;
  readonly outcome: Outcome;
}

/**
 * Plans, begins and runs under one hold of the lock, so that nothing slips in between what the planner saw and the
 * first step. A plan of records only takes one transaction.
 *
 * @throws the planner's refusal; nothing was touched then.
 * @throws {NeedsOperatorError} as `resume` does.
 */
export async function perform<W>(
  planned: () => Promise<Plan | Refusal>,
  deps: RunnerDeps<W>,
): Promise<Performed> {
  const { journal } = deps;
  const [run, next] = await locked({ deps }, async (): Promise<[Run<W>, Next]> => {
    const plan = await planned();
    if ('refusal' in plan) throw plan.refusal;
    if (isRecordOnly(plan)) {
      const { operation } = await journal.commitAtOnce(plan);
      return [runOf(operation, plan, deps), { outcome: 'committed' }];
    }
    const begun = runOf(await journal.begin(plan), plan, deps);
    return [begun, await advance(begun)];
  });
  return { operation: run.operation, plan: run.plan, outcome: await toTheEnd(run, next) };
}

/** What comes after a hold of the lock: the end, or steps to be done without it. */
type Next = Outcome | { readonly background: readonly number[] };

async function toTheEnd<W>(begun: Run<W>, first: Next): Promise<Outcome> {
  let run = begun;
  let next = first;
  while ('background' in next) {
    const returned = await doBeside(run, next.background);
    next = await locked(run, async () => {
      const was = run.plan.steps;
      run = await asPlannedNow(run);
      // While the lock was free the rest of the plan may have become another, and what came of a step that it has no
      // more says nothing: its jobs may have ended under it.
      const still = new Map<number, Error | null>();
      for (const [i, failure] of returned)
        if (isSameStep(run.plan.steps[i], was[i]) && !(await isBack(run, i, failure)))
          still.set(i, failure);
      return await advance(run, still);
    });
  }
  return next;
}

/** It waited in a QEMU that is gone, and by now its domain has another one, which has all that the plan needs. */
async function isBack<W>(
  { plan, deps }: Run<W>,
  step: number,
  failure: Error | null,
): Promise<boolean> {
  const isLost = failure instanceof QemuError && failure.qmpClass === 'Gone';
  if (!isLost || plan.waitsFrom === undefined || step >= plan.commitAt) return false;
  return (await deps.isGone?.()) === false;
}

/** As the journal would write them: one of the two may have been read from there. */
const isSameStep = (one: Step | undefined, other: Step | undefined): boolean =>
  encode(one ?? null) === encode(other ?? null);

async function asPlannedNow<W>(run: Run<W>): Promise<Run<W>> {
  const found = await run.deps.journal.operation(run.operation);
  return found === null ? run : { ...run, plan: found.plan };
}

/** Goes on until the end or the next background step. What to do is read from the journal each time. */
async function advance<W>(run: Run<W>, returned: Returned = new Map()): Promise<Next> {
  try {
    const at = await progressOf(run);
    if (at.ended === 'committed') return { outcome: 'committed' };
    if (at.ended === 'rolled-back') return { outcome: 'rolled-back', error: earlier(run, at) };
    if (at.direction === 'back') return await back(run, at, earlier(run, at));
    const obstacle = await obstacleOf(run, at);
    if (obstacle !== null) return await wait(run, obstacle);
    return await forward(run, at, returned).catch(
      async (error: unknown) => await turnRound(run, errorOf(error)),
    );
  } catch (error) {
    throw await stopped(run, errorOf(error));
  }
}

async function forward<W>(run: Run<W>, { marks }: Progress, returned: Returned): Promise<Next> {
  /** The step whose `doing` was written together with the `done` of the one before. */
  let begun: number | null = null;
  for (const i of run.plan.steps.keys()) {
    const mark = present(marks[i], 'fold makes one mark a step');
    const { step, effect, context } = partsOf(run, i, { begun: mark === 'doing' });
    const failure = returned.get(i);
    if (failure !== undefined) {
      const result = async (): Promise<void> => {
        if (failure !== null) throw failure;
      };
      begun = await complete(run, i, marks, result);
      continue;
    }
    const action = decide(mark, mark === 'doing' ? await ask(run, i) : null, 'forward');
    if (action === 'ask') throw cannotTell(run, i, run.doubts.get(i) ?? null);
    if (action === 'do') {
      await run.deps.turn?.(step.kind);
      if (isCancelled(run, i)) throw cancelled(run, i);
      if (begun !== i && mark !== 'doing' && effect.repeatable !== true)
        await append(run, { type: 'doing', step: i });
      tell(run, i, 'doing');
      if (effect.background === true)
        return { background: [i, ...(await alsoBegun(run, i, marks))] };
      const attempt = async () => await effect.do(step, run.deps.world, context);
      begun = await complete(run, i, marks, async () => await withoutQemu(run, i, attempt));
    } else if (mark !== 'done') begun = await complete(run, i, marks, async () => undefined);
  }
  await append(run, { type: 'end', outcome: 'committed' });
  return { outcome: 'committed' };
}

/** What is done together with step `i`, written down as begun as that is. */
async function alsoBegun<W>(
  run: Run<W>,
  i: number,
  marks: readonly Mark[],
): Promise<readonly number[]> {
  const others = await besides(run, i, marks);
  for (const j of others) {
    if (marks[j] !== 'doing') await append(run, { type: 'doing', step: j });
    tell(run, j, 'doing');
  }
  return others;
}

/**
 * Does step `i` and makes it known. A failure of the commit step is put to the world: what it has done is not turned
 * round because an answer was lost, and what it cannot tell is not turned round either.
 *
 * Resolves to the step that was written down as begun in the same transaction, which saves an fsync; null: none was.
 */
async function complete<W>(
  run: Run<W>,
  i: number,
  marks: readonly Mark[],
  attempt: () => Promise<void>,
): Promise<number | null> {
  const isCommit = i === run.plan.commitAt - 1;
  let changes: readonly Change[];
  try {
    await attempt();
    changes = await changesOf(run, i);
  } catch (error) {
    if (!isCommit || isCancelled(run, i)) throw error;
    const found = await ask(run, i);
    if (found === 'absent' || found === 'partial') throw error;
    if (found === 'unknown') throw new Stop(errorOf(error));
    changes = await changesOf(run, i).catch(stop);
  }
  const entry = { type: 'done', step: i } as const;
  const next = nextToBegin(run, i, marks);
  const then: Entry | null = next === null ? null : { type: 'doing', step: next };
  await append(run, entry, changes, then).catch(isCommit ? stop : rethrow);
  tell(run, i, 'done');
  return next;
}

/** The step behind `i`, if nothing but its `doing` stands between it and being done. */
function nextToBegin<W>(run: Run<W>, i: number, marks: readonly Mark[]): number | null {
  const next = i + 1;
  if (marks[next] !== 'none' || run.deps.turn !== undefined || isCancelled(run, next)) return null;
  return partsOf(run, next).effect.repeatable === true ? null : next;
}

/** After a failure on the way forward: back, unless the commit step is done. */
async function turnRound<W>(run: Run<W>, error: Error): Promise<Outcome> {
  // What the journal cannot take just now is not the step's fault: it is done again when the journal is well.
  if (error instanceof Stop || error instanceof JournalError) throw error;
  const { marks } = await progressOf(run);
  if (marks.slice(0, run.plan.commitAt).every((mark) => mark === 'done')) throw error;
  if (await waits(run, marks)) return await wait(run, error.message);
  await append(run, { type: 'rollback', reason: error.message });
  return await back(run, await progressOf(run), error);
}

async function wait<W>(run: Run<W>, reason: string): Promise<Outcome> {
  await append(run, { type: 'waiting', reason });
  return { outcome: 'waiting', reason };
}

async function obstacleOf<W>({ plan, deps }: Run<W>, { marks }: Progress): Promise<string | null> {
  const { waitsFrom: from, commitAt } = plan;
  if (from === undefined || marks[from] !== 'done' || marks[commitAt - 1] === 'done') return null;
  return deps.signal?.aborted === true ? null : ((await deps.obstacle?.()) ?? null);
}

async function waits<W>({ plan, deps }: Run<W>, marks: readonly Mark[]): Promise<boolean> {
  const from = plan.waitsFrom;
  if (from === undefined || marks[from] !== 'done' || deps.signal?.aborted === true) return false;
  return (await deps.isGone?.()) === true;
}

async function back<W>(run: Run<W>, { marks }: Progress, error: Error): Promise<Outcome> {
  for (const i of [...run.plan.steps.keys()].toReversed()) {
    const mark = present(marks[i], 'fold makes one mark a step');
    const action = await actionBack(run, i, marks);
    if (action === 'ask') throw cannotTell(run, i, error);
    if (action === 'undo') await undo(run, i, error);
    // Only a step whose entry `done` was written made its changes known.
    const reverts = mark === 'done' ? (run.plan.steps[i]?.reverts ?? []) : [];
    if (action === 'undo' || action === 'forget')
      await append(run, { type: 'undone', step: i }, reverts);
    if (action === 'undo') tell(run, i, 'undone');
  }
  await append(run, { type: 'end', outcome: 'rolled-back', reason: error.message });
  return { outcome: 'rolled-back', error };
}

async function actionBack<W>(run: Run<W>, i: number, marks: readonly Mark[]): Promise<Action> {
  const mark = present(marks[i], 'fold makes one mark a step');
  // No entry tells whether a repeatable step was done: it was, if it was, where the journal ends.
  const journalEndsHere =
    mark === 'none' && marks.slice(0, i).every((earlierMark) => earlierMark === 'done');
  if (journalEndsHere && partsOf(run, i).effect.repeatable === true) return 'undo';
  return decide(mark, mark === 'doing' ? await ask(run, i, 'back') : null, 'back');
}

async function undo<W>(run: Run<W>, i: number, original: Error): Promise<void> {
  const { step, effect, context } = partsOf(run, i, { direction: 'back' });
  tell(run, i, 'undoing');
  const failure = await effect.undo(step, run.deps.world, context).then(() => null, errorOf);
  if (failure === null) return;
  const text = `${original.message}; then undoing step ${i + 1} (${step.kind}) failed: ${failure.message}`;
  throw new AggregateError([original, failure], text, { cause: original });
}

/** Writes down that a person is needed, and makes the error that says so. */
async function stopped<W>(run: Run<W>, thrown: Error): Promise<FerryError> {
  const error = thrown instanceof Stop ? thrown.original : thrown;
  const { operation, plan } = run;
  if (error instanceof JournalError) {
    const waiting = interrupted(run, error);
    run.deps.onInterrupted?.(waiting);
    return waiting;
  }
  // When the journal is what fails there is nowhere to write it. The operation is open either way.
  await append(run, { type: 'attention', reason: error.message }).catch(() => undefined);
  return new NeedsOperatorError(
    `${error.message}; operation ${operation} (${plan.operation} of ${plan.domainName}) stays open, 'ferry ops show ${operation}' tells how far it is`,
    { operation, next: [`ferry ops show ${operation}`], cause: error },
  );
}

async function ask<W>(
  run: Run<W>,
  i: number,
  direction: EffectContext['direction'] = 'forward',
): Promise<Probe> {
  const { step, effect, context } = partsOf(run, i, { direction });
  run.doubts.delete(i);
  const found = await effect.probe(step, run.deps.world, context).catch((error: unknown) => {
    run.doubts.set(i, errorOf(error));
    return 'unknown' as const;
  });
  return found === 'unknown' ? await answered(run, i) : found;
}

/** What a person said of step `i` stands in for the world, once: the new `doing` uses it up. */
async function answered<W>(run: Run<W>, i: number): Promise<Probe> {
  const { answer } = await progressOf(run);
  if (answer?.of !== i) return 'unknown';
  const again: Entry = { type: 'doing', step: i };
  await append(run, again);
  return answer.was;
}

async function changesOf<W>(run: Run<W>, i: number): Promise<readonly Change[]> {
  const { step, effect, context } = partsOf(run, i);
  const found = (await effect.changes?.(step, run.deps.world, context)) ?? [];
  return [...(step.changes ?? []), ...found];
}

async function progressOf<W>({ operation, plan, deps }: Run<W>): Promise<Progress> {
  const entries = await deps.journal.entries(operation);
  return fold(
    entries.map(({ entry }) => entry),
    plan.steps.length,
  );
}

async function append<W>(
  { operation, deps, pauses }: Run<W>,
  entry: Entry,
  changes: readonly Change[] = [],
  then: Entry | null = null,
): Promise<void> {
  const noted = pauses.splice(0);
  await deps.journal.append(
    operation,
    noted.length === 0 ? entry : { ...entry, pauses: noted },
    changes,
    then,
  );
}

async function locked<W, T>(
  { deps }: { readonly deps: RunnerDeps<W> },
  body: () => Promise<T>,
): Promise<T> {
  return deps.lock === undefined ? await body() : await deps.lock.run(body);
}
