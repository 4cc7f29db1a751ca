// `ferry pivot`: a move switches as soon as it is in step, whatever it was planned to wait for.

import type { OperationRecord } from '../journal/journal.js';
import type { PivotWhen } from '../domain/pivot-when.js';
import { showPivot } from '../plan/pivot-when.js';
import { whenOf } from '../plan/ways.js';
import { RequestError, StateError } from '../std/errors.js';
import type { Host } from './host.js';

/** @throws StateError for what is no move, has switched, goes back or has ended. */
export async function pivotOperation(host: Host, id: number): Promise<void> {
  await host.operations.refresh(id);
  const record = host.operations.get(id);
  const text = obstacleOf(record);
  if (text !== null)
    throw new StateError('OPERATION_INVALID', `pivot of operation ${id}: ${text}`, {
      operation: id,
      next: [`ferry ops show ${id}`],
    });
  await host.pivots.say(id);
}

function obstacleOf(record: OperationRecord): string | null {
  const { kind, outcome, endedAtMs, direction, domainName } = record;
  if (kind !== 'move')
    return `it is no move (${kind}); mirrors and copies are switched with 'ferry snapshot-delete ${domainName} SNAPSHOT --reopen-mirror' or 'ferry blockjob ${domainName} DISK --pivot'`;
  if (endedAtMs !== null) return `it has ended (${outcome})`;
  if (direction === 'back') return 'it is being taken back, and does not turn round again';
  return hasSwitched(record) ? 'its disks have switched already' : null;
}

const hasSwitched = ({ steps, commitAt }: OperationRecord): boolean =>
  steps[commitAt - 1]?.mark === 'done';

/** What a move waits for before it switches, as `--pivot` has it; `now` once somebody said so. */
export const pivotOf = (host: Host, { id, plan }: OperationRecord): string =>
  host.pivots.isSaid(id) ? 'now' : showPivot(whenOf(plan));

/** A moment that is over by the time it is heard of was meant for another day. */
export function checkPivot(host: Host, when: PivotWhen): void {
  if (when.how !== 'at' || when.atMs > host.context.config.nowMs()) return;
  throw new RequestError(
    'INVALID_ARG',
    `move: its pivot was to be ${showPivot(when)}, and that is over; name a later time`,
  );
}
