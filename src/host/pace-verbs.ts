// `ferry limit`, `ferry pause` and `ferry resume`: the copies of a move that is under way.

import type { CopyPace } from '../job/effect.js';
import type { OperationRecord } from '../journal/journal.js';
import { StateError } from '../std/errors.js';
import type { PaceChange } from './ferry-host.js';
import type { Host } from './host.js';

/** @throws StateError where nothing is left to copy: what comes then has no pace. */
export async function paceOperation(host: Host, id: number, change: PaceChange): Promise<void> {
  await host.operations.refresh(id);
  const record = host.operations.get(id);
  const what = `pace of operation ${id}`;
  if (record.endedAtMs !== null)
    throw new StateError('OPERATION_INVALID', `${what}: it has ended (${record.outcome})`, {
      next: [`ferry ops show ${id}`],
    });
  if (copiesLeft(record) === 0)
    throw new StateError(
      'OPERATION_INVALID',
      `${what}: it has nothing left to copy, so there is nothing to slow down or stop`,
      { next: [`ferry ops show ${id}`] },
    );
  const now = paceOf(host, record);
  await host.paces.set(id, {
    limitBytesPerSecond:
      change.limitBytesPerSecond === undefined
        ? now.limitBytesPerSecond
        : change.limitBytesPerSecond,
    isPaused: change.isPaused ?? now.isPaused,
  });
}

/** What holds for the copies of an operation: what somebody said, or what was planned. */
export function paceOf(host: Host, record: OperationRecord): CopyPace {
  const step = record.plan.steps.find((one) => one.kind === 'copy-image');
  const planned = step?.kind === 'copy-image' ? (step.bytesPerSecond ?? null) : null;
  return host.paces.of(record.id) ?? { limitBytesPerSecond: planned, isPaused: false };
}

const copiesLeft = ({ plan, steps, direction }: OperationRecord): number =>
  direction === 'back'
    ? 0
    : plan.steps.filter((step, i) => step.kind === 'copy-image' && steps[i]?.mark !== 'done')
        .length;
