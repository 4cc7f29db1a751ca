// What an operation that is not running any more means to whoever waited for it.

import type { OperationView } from '../host/ferry-host.js';
import type { FerryError } from '../std/errors.js';
import { NeedsOperatorError, StateError } from '../std/errors.js';

/** Why an operation that nobody works on has not done what was asked; null: it has, or it still runs. */
export function failureOf(operation: OperationView): FerryError | null {
  switch (operation.status) {
    case 'running':
    case 'committed':
      return null;
    case 'attention':
      return attention(operation);
    case 'waiting':
      return waiting(operation);
    case 'rolled-back':
      return rolledBack(operation);
  }
}

function attention({ id, kind, domainName, reason }: OperationView): NeedsOperatorError {
  const why = reason ?? 'no reason was kept';
  const text = `${kind} of ${domainName}: stopped and waits for a person: ${why}`;
  return new NeedsOperatorError(`${text}; see its steps: ferry ops show ${id}`, {
    operation: id,
    sourceIntact: null,
  });
}

function waiting({ id, kind, domainName }: OperationView): StateError {
  const text = `${kind} of ${domainName}: QEMU is gone; the guest is on its source, which is complete, and operation ${id} goes on at the next start`;
  return new StateError('OPERATION_INVALID', text, {
    operation: id,
    sourceIntact: true,
    next: [`ferry start ${domainName}`, `ferry ops cancel ${id}`],
  });
}

/** For a daemon that does not know the error any more: it has been restarted since. */
function rolledBack({ id, kind, domainName, reason }: OperationView): StateError {
  const why = reason ?? 'no reason was kept';
  const text = `${kind} of ${domainName}: rolled back: ${why}; see its steps: ferry ops show ${id}`;
  return new StateError('OPERATION_ABORTED', text, { operation: id });
}
