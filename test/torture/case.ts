// One strike at one point of one operation, and whether everything held.

import { messageOf } from '../../src/std/errors.js';
import type { Blow, Note } from './blow.js';
import { checkOutcome, outcomeOf, type Outcome, type Over, type Problem } from './checks.js';
import { checkDead } from './death.js';
import { checkLiving } from './living.js';
import type { Rig } from './rig.js';
import { arrange, type Scenario } from './scenarios.js';
import { untilSettled } from './settle.js';
import { viewOf, type View } from './view.js';

export interface CaseResult {
  readonly scenario: string;
  readonly disks: number;
  /** Null: nobody was struck. */
  readonly blow: Blow | null;
  /** Whether the run came to that point at all. */
  readonly struck: boolean;
  readonly outcome: Outcome;
  readonly problems: readonly Problem[];
  /** Points that the run came to, in order. */
  readonly points: readonly { readonly point: string; readonly asks: boolean }[];
}

const SOON_MS = 5000;

/** `again` strikes the daemon that recovers from the first blow. */
export async function strike(
  rig: Rig,
  scenario: Scenario,
  blow: Blow | null,
  again: Blow | null = null,
): Promise<CaseResult> {
  await arrange(rig, scenario.from);
  const before = await viewOf(rig);
  await Promise.all([rig.newEvents(), rig.newOperations()]);
  await rig.arm(blow);
  const said = await scenario.run(rig).then(
    () => null,
    (error: unknown) => messageOf(error),
  );
  // What follows the answer is struck as well: looks at QEMU, events of jobs.
  const quiet = said === null ? await untilSettled(rig).catch(() => null) : null;
  await rig.disarm();
  const notes = await rig.notes();
  const end = notes.findIndex((note) => 'struck' in note);
  const struck = end >= 0;
  // What comes after the strike is the way back from it, and no part of the operation.
  const points = (struck ? notes.slice(0, end) : notes).flatMap((note) =>
    'point' in note ? [note] : [],
  );
  const result = { scenario: scenario.name, disks: rig.disks, blow, struck, points };
  if (said !== null && !struck) return failed(result, `it failed without a strike: ${said}`);

  const { view, all } = await afterwards(rig, quiet, notes, again);
  if (typeof view === 'string') return failed(result, view, 'hang');
  const over = {
    scenario,
    before,
    after: view,
    operations: await rig.newOperations(),
    events: await rig.newEvents(),
  };
  const problems = await problemsOf(rig, over, all);
  // One that waited for its guest's next life has ended by now.
  const [first] = over.operations;
  const operations = first === undefined ? [] : [await rig.client.operation(first.id)];
  return { ...result, outcome: outcomeOf({ operations }), problems };
}

async function problemsOf(
  rig: Rig,
  over: Over,
  notes: readonly Note[],
): Promise<readonly Problem[]> {
  const blows = notes.flatMap((note) => ('struck' in note ? [note] : []));
  const killed = blows.flatMap((blow) => blow.killed);
  if (killed.length > 0) return await checkDead(rig, over, killed);
  const wentWrong = blows.some(
    ({ struck }) => struck.deed === 'refuse' || struck.deed === 'cancel',
  );
  // Commands that went wrong may cost a mirror; that it is gone is found by a look of its own.
  if (wentWrong) return await soonLiving(rig);
  return [...checkOutcome(rig, over), ...(await checkLiving(rig, over.after))];
}

/** What is still wrong when it has had time to come right. */
async function soonLiving(rig: Rig): Promise<readonly Problem[]> {
  const look = async (): Promise<readonly Problem[]> => {
    const view = await untilSettled(rig);
    return await checkLiving(rig, view);
  };
  let problems = await look();
  const end = performance.now() + SOON_MS;
  while (problems.length > 0 && performance.now() < end) problems = await look();
  return problems;
}

interface Afterwards {
  /** Text: it did not settle. */
  readonly view: View | string;
  readonly all: readonly Note[];
}

/** A daemon that lives, and nothing under way any more. */
async function afterwards(
  rig: Rig,
  quiet: View | null,
  notes: readonly Note[],
  again: Blow | null,
): Promise<Afterwards> {
  if (rig.daemon.running() && quiet !== null) return { view: quiet, all: notes };
  let all = notes;
  let next = again;
  for (let news = notes; ; news = await rig.notes()) {
    if (news !== notes) all = [...all, ...news];
    if (!rig.daemon.running()) {
      await rig.daemonAgain(news, next);
      next = null;
    }
    const view = await untilSettled(rig).catch((error: unknown) => messageOf(error));
    // Settled, or hanging, but not struck once more.
    await rig.disarm();
    if (rig.daemon.running()) return { view, all: [...all, ...(await rig.notes())] };
  }
}

function failed(
  result: Omit<CaseResult, 'outcome' | 'problems'>,
  text: string,
  kind: Problem['kind'] = 'wrong',
): CaseResult {
  return { ...result, outcome: 'nothing', problems: [{ kind, text }] };
}
