// A person's word on an operation that waits for one.

import { StateError } from '../std/errors.js';
import type { OperationAnswer } from './ferry-host.js';
import type { Host } from './host.js';

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
