// JSON as this API writes it, and the shape of its errors.
// A 64-bit number does not survive `JSON.parse`: every field whose name ends in `Bytes` or `BytesPerSecond` is a
// bigint in memory and a string of decimal digits on the wire, in both directions.

import type { Code } from '../std/errors.js';
import { FerryError, codes, messageOf } from '../std/errors.js';

export function toJson(value: unknown, indent = 0): string {
  return JSON.stringify(value, (_, field: unknown) => plain(field), indent) ?? 'null';
}

const plain = (field: unknown): unknown => (typeof field === 'bigint' ? field.toString() : field);

export function fromJson(text: string): unknown {
  return JSON.parse(text, (key, field: unknown) =>
    typeof field === 'string' && /Bytes(PerSecond)?$/.test(key) && /^-?\d+$/.test(field)
      ? BigInt(field)
      : field,
  );
}

export interface ErrorBody {
  readonly code: Code;
  readonly message: string;
  /** The verb and what it was asked of, as `snapshot-delete vm1 s1`. */
  readonly doing?: string;
  /** Whether every image named by the XML holds everything; null: not known. */
  readonly sourceIntact: boolean | null;
  /** Commands that a person may type next, most useful first. */
  readonly next: readonly string[];
  /** The operation that `ferry ops show` explains. */
  readonly operation?: number;
}

/** What a thrown value is told as. Anything that is no FerryError is a bug of ours: INTERNAL_ERROR. */
export function errorBody(error: unknown, doing: string | null): ErrorBody {
  const named = doing === null ? {} : { doing };
  if (!(error instanceof FerryError)) {
    const message = `internal error: ${messageOf(error)}; look into the log of ferryd`;
    return { code: 'INTERNAL_ERROR', message, ...named, sourceIntact: null, next: [] };
  }
  const { code, message, sourceIntact, next, operation } = error;
  const numbered = operation === null ? {} : { operation };
  return { code, message, ...named, sourceIntact, next, ...numbered };
}

export const statusOf = (code: Code): number => codes[code].http;

/** An error that the daemon answered. */
export class RemoteError extends FerryError {
  readonly doing: string | null;

  constructor(body: ErrorBody) {
    const operation = body.operation === undefined ? {} : { operation: body.operation };
    super(body.code, body.message, {
      sourceIntact: body.sourceIntact,
      next: body.next,
      ...operation,
    });
    this.doing = body.doing ?? null;
  }
}

/** Whether `value` is an error body; a proxy or another program on the socket answers anything. */
export function isErrorBody(value: unknown): value is ErrorBody {
  return (
    typeof value === 'object' &&
    value !== null &&
    'code' in value &&
    typeof value.code === 'string' &&
    value.code in codes &&
    'message' in value &&
    typeof value.message === 'string' &&
    'next' in value &&
    Array.isArray(value.next)
  );
}
