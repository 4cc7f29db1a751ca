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
import type { Entry, Mark, Pause } from '../journal/entry.js';
import { isRecordOnly } from '../journal/applied.js';
import { encode } from '../journal/codec.js';
import type { Progress } from '../journal/fold.js';
import { fold } from '../journal/fold.js';
import type { Journal } from '../journal/journal.js';
import type { Plan, Refusal, Step, StepKind } from '../plan/step.js';
import { present } from '../std/assert.js';
import type { FerryError } from '../std/errors.js';
import { JournalError, NeedsOperatorError, QemuError } from '../std/errors.js';
import type { CopyPace, Effect, EffectContext, Effects, Probe, StepReport } from './effect.js';
import type { Action } from './recover.js';
import { decide } from './recover.js';
import type { Resolution } from './resolve.js';
import { resolutionEntry, undecidedStep } from './resolve.js';
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

export interface StepProgress {
  readonly operation: number;
  readonly step: number;
  readonly kind: StepKind;
  readonly state: 'doing' | 'done' | 'undoing' | 'undone';
  /** Null where the step only changed its state. */
  readonly report: StepReport | null;
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
    return [now, await advance(now, null)];
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
    return [begun, await advance(begun, null)];
  });
  return { operation: run.operation, plan: run.plan, outcome: await toTheEnd(run, next) };
}

interface Run<W> {
  readonly operation: number;
  readonly plan: Plan;
  readonly deps: RunnerDeps<W>;
  /** Pauses that no entry has taken along yet. */
  readonly pauses: Pause[];
  /** By step: why the world could not say what became of it. */
  readonly doubts: Map<number, Error>;
}

const runOf = <W>(operation: number, plan: Plan, deps: RunnerDeps<W>): Run<W> => ({
  operation,
  plan,
  deps,
  pauses: [],
  doubts: new Map(),
});

/** What comes after a hold of the lock: the end, or a step to be done without it. */
type Next = Outcome | { readonly background: number };

/** A background step that came back. */
interface Returned {
  readonly step: number;
  readonly failure: Error | null;
}

async function toTheEnd<W>(begun: Run<W>, first: Next): Promise<Outcome> {
  let run = begun;
  let next = first;
  while ('background' in next) {
    const i = next.background;
    const returned = await doInBackground(run, i);
    next = await locked(run, async () => {
      const was = run.plan.steps[i];
      run = await asPlannedNow(run);
      // While the lock was free the rest of the plan may have become another, and what came of a step that it has no
      // more says nothing: its jobs may have ended under it.
      const counts = isSameStep(run.plan.steps[i], was) && !(await isBack(run, returned));
      return await advance(run, counts ? returned : null);
    });
  }
  return next;
}

/** It waited in a QEMU that is gone, and by now its domain has another one, which has all that the plan needs. */
async function isBack<W>({ plan, deps }: Run<W>, { step, failure }: Returned): Promise<boolean> {
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

async function doInBackground<W>(run: Run<W>, i: number): Promise<Returned> {
  const { step, effect, context } = partsOf(run, i);
  try {
    await withoutQemu(run, i, async () => await effect.do(step, run.deps.world, context));
    return { step: i, failure: null };
  } catch (error) {
    return { step: i, failure: context.signal.aborted ? cancelled(run, i, error) : errorOf(error) };
  }
}

/** Goes on until the end or the next background step. What to do is read from the journal each time. */
async function advance<W>(run: Run<W>, returned: Returned | null): Promise<Next> {
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

async function forward<W>(
  run: Run<W>,
  { marks }: Progress,
  returned: Returned | null,
): Promise<Next> {
  for (const i of run.plan.steps.keys()) {
    const mark = present(marks[i], 'fold makes one mark a step');
    const { step, effect, context } = partsOf(run, i, { begun: mark === 'doing' });
    if (returned?.step === i) {
      await complete(run, i, async () => {
        if (returned.failure !== null) throw returned.failure;
      });
      continue;
    }
    const action = decide(mark, mark === 'doing' ? await ask(run, i) : null, 'forward');
    if (action === 'ask') throw cannotTell(run, i, run.doubts.get(i) ?? null);
    if (action === 'do') {
      await run.deps.turn?.(step.kind);
      if (isCancelled(run, i)) throw cancelled(run, i);
      if (mark !== 'doing' && effect.repeatable !== true)
        await append(run, { type: 'doing', step: i });
      tell(run, i, 'doing');
      if (effect.background === true) return { background: i };
      const attempt = async () => await effect.do(step, run.deps.world, context);
      await complete(run, i, async () => await withoutQemu(run, i, attempt));
    } else if (mark !== 'done') await complete(run, i, async () => undefined);
  }
  await append(run, { type: 'end', outcome: 'committed' });
  return { outcome: 'committed' };
}

/** From the commit step on an operation is finished without its QEMU: one that goes in the middle of a step is no failure. */
async function withoutQemu<W>(
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

/**
 * Does step `i` and makes it known. A failure of the commit step is put to the world: what it has done is not turned
 * round because an answer was lost, and what it cannot tell is not turned round either.
 */
async function complete<W>(run: Run<W>, i: number, attempt: () => Promise<void>): Promise<void> {
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
  await append(run, entry, changes).catch(isCommit ? stop : rethrow);
  tell(run, i, 'done');
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

const isCancelled = <W>({ plan, deps }: Run<W>, i: number): boolean =>
  i < plan.commitAt && deps.signal?.aborted === true;

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
): Promise<void> {
  const noted = pauses.splice(0);
  await deps.journal.append(
    operation,
    noted.length === 0 ? entry : { ...entry, pauses: noted },
    changes,
  );
}

function tell<W>(
  { operation, plan, deps }: Run<W>,
  step: number,
  state: StepProgress['state'],
  report: StepReport | null = null,
): void {
  const { kind } = present(plan.steps[step], `step ${step} stands in the plan`);
  deps.onProgress?.({ operation, step, kind, state, report });
}

interface Parts<W> {
  readonly step: Step;
  readonly effect: Effect<Step, W>;
  readonly context: EffectContext;
}

function partsOf<W>(
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
    progress: (report) => tell(run, i, 'doing', report),
    notePause: (what, ms) => void run.pauses.push({ what, ms: Math.round(ms * 10) / 10 }),
    pace: () => deps.pace?.(operation) ?? null,
    isPivotSaid: () => deps.isPivotSaid?.(operation) ?? false,
    saved: async () => await deps.journal.copy(operation, i),
    save: async (note) => await deps.journal.saveCopy(operation, i, note),
  };
  return { step, effect, context };
}

const never = new AbortController().signal;

async function locked<W, T>(
  { deps }: { readonly deps: RunnerDeps<W> },
  body: () => Promise<T>,
): Promise<T> {
  return deps.lock === undefined ? await body() : await deps.lock.run(body);
}
