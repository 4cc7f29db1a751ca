// How the runner says why it stopped.

import type { Progress } from '../journal/fold.js';
import type { Plan } from '../plan/step.js';
import { JournalError, StateError } from '../std/errors.js';

/** What these errors name. */
interface Named {
  readonly operation: number;
  readonly plan: Plan;
}

/** Nobody has to decide anything: the operation is where its journal says, and goes on once that can be written. */
export function interrupted({ operation, plan }: Named, error: JournalError): JournalError {
  return new JournalError(
    error.trouble,
    `${error.message}; operation ${operation} (${plan.operation} of ${plan.domainName}) stays open and goes on by itself then`,
    { operation, next: error.next, cause: error },
  );
}

/** Ends the way forward without turning round. */
export class Stop extends Error {
  override readonly name = 'Stop';
  readonly original: Error;

  constructor(original: Error) {
    super(original.message, { cause: original });
    this.original = original;
  }
}

export function stop(error: unknown): never {
  throw new Stop(errorOf(error));
}

export function rethrow(error: unknown): never {
  throw error;
}

export const cannotTell = ({ plan }: Named, i: number, original: Error | null): Stop => {
  const question = `it cannot be told whether step ${i + 1} (${plan.steps[i]?.kind}) was done`;
  return new Stop(
    new Error(original === null ? question : `${original.message}; ${question}`, {
      cause: original ?? undefined,
    }),
  );
};

export const cancelled = (run: Named, i: number, cause?: unknown): StateError =>
  new StateError(
    'OPERATION_ABORTED',
    `${run.plan.operation} ${run.plan.domainName}: cancelled at step ${i + 1} (${run.plan.steps[i]?.kind})`,
    { cause, operation: run.operation },
  );

/** The error of a life before this one: its text is all that was kept. */
export const earlier = (run: Named, { reason }: Progress): StateError =>
  new StateError('OPERATION_ABORTED', reason ?? 'rolled back', { operation: run.operation });

export const errorOf = (thrown: unknown): Error =>
  thrown instanceof Error ? thrown : new Error(String(thrown));
