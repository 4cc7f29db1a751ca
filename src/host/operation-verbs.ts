// What a user may say to an operation: stop before your commit step; go on, a person has looked.

import { NotFoundError, StateError } from '../std/errors.js';
import type { OperationAnswer } from './ferry-host.js';
import type { Host } from './host.js';

export async function cancelOperation(host: Host, id: number): Promise<void> {
  const running = host.running.get(id);
  const record = host.operations.get(id);
  if (record.endedAtMs !== null)
    throw new StateError(
      'OPERATION_INVALID',
      `cancel operation ${id}: it has ended (${record.outcome})`,
    );
  if (running === undefined)
    throw new NotFoundError(
      'NO_OPERATION',
      `cancel operation ${id}: it does not run; 'ferry ops show ${id}' says what it waits for`,
    );
  const commit = record.steps[record.commitAt - 1]?.mark;
  if (record.commitAt === 0 || commit === 'done') {
    throw new StateError(
      'OPERATION_INVALID',
      `cancel operation ${id}: it is past its commit step and will be finished`,
      { operation: id },
    );
  }
  running.abort.abort();
}

/** Resolves when the word is journaled and the operation goes on. */
export async function resolveOperation(
  host: Host,
  id: number,
  answer: OperationAnswer,
): Promise<void> {
  await host.operations.refresh(id);
  const record = host.operations.get(id);
  if (host.running.has(id))
    throw new StateError(
      'OPERATION_INVALID',
      `resolve operation ${id}: it does not wait for a person, it runs; 'ferry ops wait ${id}' shows how it goes on`,
      { operation: id },
    );
  await host.resolveOperation(record, answer);
  await host.operations.refresh(id);
}
