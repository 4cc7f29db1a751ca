// `ferry undo`: a move that has switched goes back the way that is kept open for it, or that is closed before its time.

import type { DomainRecord } from '../domain/record.js';
import type { UndoWindow } from '../domain/undo-window.js';
import type { OperationRecord } from '../journal/journal.js';
import { refuse } from '../plan/refuse.js';
import { planUndo } from '../plan/undo-window.js';
import { StateError } from '../std/errors.js';
import type { Host } from './host.js';
import { openMoves, takeBack } from './owed.js';
import { whyNoUndo } from './source-verbs.js';
import { openOf } from './windows.js';

/**
 * Resolves to the operation that takes it back, once that is certain.
 *
 * @throws StateError with what to do, where nothing keeps a way back open, or it cannot be gone now.
 */
export async function undoMove(host: Host, id: number): Promise<number> {
  const { window, keeper } = await findWindow(host, id, 'undo');
  if (keeper.plan.undo?.going !== 'back') {
    await host.operate(keeper.domain, async (known) => {
      const open = (await openMoves(host)).find(({ operation }) => operation === keeper.id);
      if (known === null || open === undefined)
        return refuse(refusal(id, 'undo', 'its window is closing'));
      return planUndo({ record: known, window, open });
    });
  }
  // It looks at its plan again when it is told something.
  await host.pivots.say(keeper.id);
  return keeper.id;
}

/** Resolves to the operation that closes it. @throws StateError where nothing is open, or it is being taken back. */
export async function closeWindow(host: Host, id: number): Promise<number> {
  const { keeper } = await findWindow(host, id, 'close the way back of');
  if (keeper.plan.undo?.going === 'back')
    throw refusal(id, 'close the way back of', 'it is being taken back just now');
  // Nobody is there to be told, and what the mirror would need is not there either.
  if (keeper.waiting !== null && !host.running.has(keeper.id)) await takeBack(host, keeper);
  else await host.pivots.say(keeper.id);
  return keeper.id;
}

/** What keeps the way back of a move open, which may be named by either number. */
async function findWindow(
  host: Host,
  id: number,
  doing: string,
): Promise<{ readonly window: UndoWindow; readonly keeper: OperationRecord }> {
  await host.operations.refresh(id);
  const named = host.operations.get(id);
  const move = named.plan.undo?.move ?? id;
  const window = openWindow(host.known.find(named.domain), move);
  if (window === null) {
    await host.ages.look(named.domain);
    const { text, next } = whyNoUndo(host, await moveOf(host, move, named));
    throw new StateError('OPERATION_INVALID', `${doing} ${id}: ${text}`, { operation: id, next });
  }
  if (window.closing !== null) throw refusal(id, doing, `its window is closing: ${window.closing}`);
  const keeper = await openOf(host, move);
  if (keeper === null || keeper.id === move)
    throw refusal(id, doing, 'its window is being opened just now; try again in a moment');
  if (keeper.attention !== null)
    throw refusal(
      id,
      doing,
      `operation ${keeper.id}, which keeps its way back open, waits for a person: ${keeper.attention}`,
      keeper.id,
    );
  return { window, keeper };
}

async function moveOf(host: Host, id: number, named: OperationRecord): Promise<OperationRecord> {
  return id === named.id ? named : ((await host.known.journal.operation(id)) ?? named);
}

const openWindow = (record: DomainRecord | null, move: number): UndoWindow | null =>
  record?.windows?.find(({ operation }) => operation === move) ?? null;

const refusal = (id: number, doing: string, why: string, show: number = id): StateError =>
  new StateError('OPERATION_INVALID', `${doing} ${id}: ${why}`, {
    operation: show,
    next: [`ferry ops show ${show}`],
  });
