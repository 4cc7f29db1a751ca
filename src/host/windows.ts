// Ways back of moves: whenever a record has one and no operation sees to it, the one that does is begun. So it does not
// matter where a daemon died: between the switch of a move and its window, or between the window and its end.

import type { DomainRecord } from '../domain/record.js';
import type { UndoWindow } from '../domain/undo-window.js';
import type { OperationRecord } from '../journal/journal.js';
import { moveAgain } from '../plan/move-again.js';
import { isRefusal, refuse } from '../plan/refuse.js';
import type { Plan, Refusal } from '../plan/step.js';
import { planCloseWindow, planWindow } from '../plan/undo-window.js';
import { StateError, messageOf } from '../std/errors.js';
import type { Host } from './host.js';
import { openMoves, takeBack } from './owed.js';

export class Windows {
  private readonly host: Host;
  private readonly looking = new Set<string>();
  private timer: NodeJS.Timeout | null = null;

  constructor(host: Host) {
    this.host = host;
  }

  /** Whether the end of an operation may leave a window that nobody sees to. */
  static concerns({ move, undo }: Plan): boolean {
    return move?.undoSeconds !== undefined || undo !== undefined;
  }

  /** Looks now and then: a try that failed is repeated, and a domain that is off does not keep its window past its time. */
  start(everyMs: number): void {
    const look = (): void => {
      for (const { uuid, windows } of this.host.known.all())
        if (windows !== undefined) void this.see(uuid);
    };
    look();
    this.timer = setInterval(look, everyMs).unref();
  }

  close(): void {
    if (this.timer !== null) clearInterval(this.timer);
  }

  /** Begins what the windows of a domain need and nobody does. Resolves when it is begun; never rejects. */
  async see(uuid: string): Promise<void> {
    if (this.looking.has(uuid)) return;
    this.looking.add(uuid);
    try {
      for (const { operation } of this.host.known.find(uuid)?.windows ?? [])
        await this.seeTo(uuid, operation);
    } catch (error) {
      this.host.log.warn({ domain: uuid, error: messageOf(error) }, 'way back of a move');
    } finally {
      this.looking.delete(uuid);
    }
  }

  private async seeTo(uuid: string, move: number): Promise<void> {
    const { host } = this;
    const open = await openOf(host, move);
    const window = windowIn(host.known.find(uuid), move);
    if (window === null) return;
    if (open !== null) {
      // Nobody waits for the end of its time where the mirror is not there, nor its QEMU.
      const isOver = window.untilMs <= host.context.config.nowMs();
      const hasNoMirror = open.waiting !== null && !host.running.has(open.id);
      if (!isOver || !hasNoMirror || open.plan.undo?.going !== 'open') return;
      await takeBack(host, open);
    }
    const { ended } = await host.begin(uuid, async (known) => await this.plan(known, move));
    ended.catch((error: unknown) =>
      host.log.warn({ domain: uuid, move, error: messageOf(error) }, 'way back of a move'),
    );
  }

  /** Under the lock of the domain. */
  private async plan(known: DomainRecord | null, move: number): Promise<Plan | Refusal> {
    const { host } = this;
    const window = windowIn(known, move);
    if (known === null || window === null || (await openOf(host, move)) !== null)
      return refuse(new StateError('OPERATION_INVALID', `the way back of ${move} is seen to`));
    const { journal } = host.known;
    if (window.closing === null) {
      const moves = (await openMoves(host)).filter(({ plan }) => plan.domain === known.uuid);
      const taken = moves.map((one) => moveAgain(one, host.nowSeconds).nextIndex);
      const nextIndex = known.live?.nextIndex ?? Math.max(1, ...taken);
      const plan = planWindow({ record: known, window, nextIndex });
      if (!isRefusal(plan)) return plan;
      const why = plan.refusal.message;
      await journal.record(known.uuid, [{ change: 'close-window', operation: move, why }]);
    }
    const plan = planCloseWindow(known, windowIn(host.known.find(known.uuid), move) ?? window);
    if (!isRefusal(plan)) return plan;
    // Somebody changed the chain behind our back: it is his now.
    const details = JSON.stringify({ operation: move, reason: plan.refusal.message });
    await journal.record(known.uuid, [
      { change: 'end-window', operation: move },
      { change: 'event', event: { type: 'monitor', event: 'UNDO_WINDOW_CLOSED', details } },
    ]);
    return plan;
  }
}

const windowIn = (record: DomainRecord | null, move: number): UndoWindow | null =>
  record?.windows?.find(({ operation }) => operation === move) ?? null;

/** The operation that is open about the way back of a move: the move itself, or what sees to its window. */
export async function openOf(host: Host, move: number): Promise<OperationRecord | null> {
  const open = await host.known.journal.openOperations();
  return open.find(({ id, plan }) => id === move || plan.undo?.move === move) ?? null;
}
