// Assertions for our own bugs. Never for bytes that a peer, a file or a user sent: those get an error of `errors.ts`.

export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

/** Throws when `condition` is false: the program, not its input, is wrong. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** Returns `value` when it is there; `message` says why it has to be. */
export function present<T>(value: T | null | undefined, message: string): T {
  if (value === null || value === undefined) throw new AssertionError(message);
  return value;
}
