// What the library throws: one class for each thing that the caller may do about it. Which code is which class follows
// from the table in std/errors.ts.

import { UnansweredError } from '../http/client.js';
import { errorBody } from '../http/wire.js';
import type { Code } from '../std/errors.js';
import { FerryError, codes } from '../std/errors.js';

/** Every error of the library. Thrown as one of the classes below. */
export class BlockferryError extends Error {
  /** What it is, as libvirt names it: `NO_DOMAIN`, `OPERATION_INVALID`, … */
  readonly code: Code;
  /** Whether every image named by the domain's XML holds everything; null: it cannot be told from here. */
  readonly sourceIntact: boolean | null;
  /** Commands that a person may type next, most useful first. */
  readonly next: readonly string[];
  /** The operation that it is about. */
  readonly operation: number | null;

  constructor(error: unknown) {
    const { code, message, sourceIntact, next, operation } = errorBody(error, null);
    super(message, { cause: error });
    this.name = new.target.name;
    this.code = code;
    this.sourceIntact = sourceIntact;
    this.next = next;
    this.operation = operation ?? null;
  }
}

/** Change the request: as it is, it will never be done. Nothing was touched. */
export class Refused extends BlockferryError {}

/** Look again: there is no such domain, snapshot, operation or plan. */
export class Gone extends BlockferryError {}

/** Change the state of the domain, or wait until it has changed, and repeat. */
export class NotReady extends BlockferryError {}

/** Repeat it if you still want it: the operation was cancelled or failed, and what it did was taken back. */
export class Undone extends BlockferryError {}

/** Repeat it later: ferryd does not run, or somebody holds what is needed. Nothing was done. */
export class Busy extends BlockferryError {}

/** Look at `operations()` before you repeat: ferryd went away with the request, which may have been carried out. */
export class Unanswered extends BlockferryError {}

/** Read it and mend the cause: QEMU, a tool of it or the operating system refused, or it is a bug of ours. */
export class Broken extends BlockferryError {}

/** Ask a person: an operation stopped where guessing would lose a disk. `resolve` settles it. */
export class NeedsPerson extends BlockferryError {}

type Exit = (typeof codes)[Code]['exit'];

/** The exit code of `ferry` tells what the caller may do. */
const classes = {
  2: Refused,
  3: Gone,
  4: NotReady,
  5: Busy,
  6: Broken,
  7: NeedsPerson,
} satisfies Record<Exit, typeof BlockferryError>;

/** The same error for a user of the library; what is no error of this project, such as an abort, is left as it is. */
export function publicError(error: unknown): unknown {
  if (!(error instanceof FerryError)) return error;
  if (error instanceof UnansweredError) return new Unanswered(error);
  if (error.code === 'OPERATION_ABORTED') return new Undone(error);
  if (error.code === 'INTERNAL_ERROR' && error.operation === null) return new Broken(error);
  return new classes[codes[error.code].exit](error);
}
