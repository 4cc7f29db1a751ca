// One strike at one point of one operation, and whether everything held.

import { messageOf } from '../../src/std/errors.js';
import type { Blow, Note } from './blow.js';
import {
  checkGuest,
  checkOutcome,
  checkStorage,
  outcomeOf,
  type Outcome,
  type Over,
  type Problem,
} from './checks.js';
import { checkDead } from './death.js';
import type { Rig } from './rig.js';
import { arrange, type Scenario } from './scenarios.js';
import { namedDisks, stateOf, viewOf, type View } from './view.js';

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

const SETTLE_MS = 60_000;
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
  return { ...result, outcome: outcomeOf(over), problems: await problemsOf(rig, over, all) };
}

async function problemsOf(
  rig: Rig,
  over: Over,
  notes: readonly Note[],
): Promise<readonly Problem[]> {
  const blows = notes.flatMap((note) => ('struck' in note ? [note] : []));
  if (blows.some(({ killed }) => killed.length > 0)) return await checkDead(rig, over);
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

async function checkLiving(rig: Rig, after: View): Promise<readonly Problem[]> {
  if (['off', 'owed'].includes(stateOf(after))) return await checkStorage(rig, after);
  const { serial } = rig.life.guest;
  const [writes, guest, storage] = await Promise.all([
    checkWrites(rig),
    checkGuest(rig, after),
    checkStorage(rig, after),
  ]);
  const setbacks = serial.setbacks.map(({ acked, start }): Problem => ({
    kind: 'lost',
    text: `the guest came up with ${start} of ${acked}`,
  }));
  return [...writes, ...guest, ...storage, ...setbacks];
}

async function checkWrites({ isSuspended, life }: Rig): Promise<readonly Problem[]> {
  if (isSuspended) return [];
  return await life.guest.serial.waitProgress(16, SETTLE_MS).then(
    () => [],
    (error: unknown) => [{ kind: 'hang', text: messageOf(error) }],
  );
}

/** Nothing is under way any more, and mirrors are in step. */
async function untilSettled(rig: Rig): Promise<View> {
  return await rig.until(
    `${rig.life.name} settles`,
    async () => {
      const { operations, id } = await rig.client.showDomain(rig.life.name);
      if (operations.length > 0) {
        const views = await Promise.all(operations.map((one) => rig.client.operation(one)));
        const waits = views.find(({ status }) => status === 'attention');
        if (waits !== undefined)
          throw new Error(`${waits.kind} waits for a person: ${waits.reason}`);
        // A move whose QEMU died waits for the next start.
        if (id === null && views.every(({ status }) => status === 'waiting'))
          return await viewOf(rig);
        return null;
      }
      const disks = namedDisks(await rig.client.dumpXml(rig.life.name, { inactive: false }));
      return disks.every(({ mirror, ready }) => mirror.length === 0 || ready)
        ? await viewOf(rig)
        : null;
    },
    SETTLE_MS,
  );
}
