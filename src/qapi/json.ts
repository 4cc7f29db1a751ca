// JSON as QMP speaks it, without losing an int64. `JSON.parse` rounds integers above 2^53, and Node 20 gives
// a reviver no access to the source text, so this is a small parser of its own.
//
// The choice: *the member name decides*. Integers of a member listed in `wideNames` are always a bigint, 0
// included; every other integer is a number, unless a number cannot hold it (then it is a bigint, so that
// a pass-through loses nothing). `widths.test.ts` proves at compile time that the declared types agree.
// A list of names, because the QAPI schema says only 'int' and hides the width that QEMU's C type has.

import { RequestError } from '../std/errors.js';

/** Members that are 64 bits wide in QEMU: sizes, offsets, byte and time counters, speeds. */
export const wideNames = [
  'actual',
  'actual-size',
  'amount-exceeded',
  'bins',
  'boundaries',
  'bps',
  'bps_max',
  'bps_rd',
  'bps_rd_max',
  'bps_wr',
  'bps_wr_max',
  'cluster-size',
  'count',
  'current-progress',
  'failed_flush_operations',
  'failed_rd_operations',
  'failed_wr_operations',
  'flush_operations',
  'flush_total_time_ns',
  'idle_time_ns',
  'invalid_rd_operations',
  'invalid_wr_operations',
  'iops',
  'iops_max',
  'iops_rd',
  'iops_rd_max',
  'iops_size',
  'iops_wr',
  'iops_wr_max',
  'len',
  'offset',
  'rd_bytes',
  'rd_operations',
  'rd_total_time_ns',
  'size',
  'speed',
  'total-progress',
  'unmap_bytes',
  'unmap_operations',
  'unmap_total_time_ns',
  'virtual-size',
  'wr_bytes',
  'wr_highest_offset',
  'wr_operations',
  'wr_total_time_ns',
  'write-threshold',
  'write_threshold',
] as const;
export type WideName = (typeof wideNames)[number];

export type JsonValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly JsonValue[]
  | JsonObject;
export interface JsonObject {
  readonly [name: string]: JsonValue;
}

/** Whether `value` is a JSON object: not null, not a list. */
export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Parses one JSON text. Integers come out as the module comment says.
 *
 * @throws {RequestError} the text is not JSON, or nests deeper than `depthLimit`.
 */
export function parseJson(text: string): JsonValue {
  const reader: Reader = { text, at: 0, depth: 0 };
  const value = readValue(reader, false);
  skipSpace(reader);
  if (reader.at !== text.length) throw broken(reader, 'something follows the value');
  return value;
}

/** Writes `value` as JSON on one line: bigint as an integer literal, members that are undefined left out. */
export function stringifyJson(value: unknown): string {
  if (value === null) return 'null';
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object') return writeScalar(value);
  if (Array.isArray(value)) return `[${value.map(stringifyJson).join(',')}]`;

  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .map(([name, member]) => `${JSON.stringify(name)}:${stringifyJson(member)}`);
  return `{${members.join(',')}}`;
}

/** QEMU itself stops at 1024. */
const depthLimit = 1024;
const wide: ReadonlySet<string> = new Set(wideNames);

interface Reader {
  readonly text: string;
  at: number;
  depth: number;
}

/** What an integer under the present member becomes. */
type Width = boolean;

function readValue(reader: Reader, isWide: Width): JsonValue {
  skipSpace(reader);
  switch (reader.text[reader.at]) {
    case '{':
      return nested(reader, () => readObject(reader));
    case '[':
      return nested(reader, () => readArray(reader, isWide));
    case '"':
      return readString(reader);
    case 't':
      return readWord(reader, 'true', true);
    case 'f':
      return readWord(reader, 'false', false);
    case 'n':
      return readWord(reader, 'null', null);
    default:
      return readNumber(reader, isWide);
  }
}

function nested(reader: Reader, read: () => JsonValue): JsonValue {
  if (++reader.depth > depthLimit) throw broken(reader, `nested deeper than ${depthLimit}`);
  reader.at++;
  const value = read();
  reader.depth--;
  return value;
}

function readObject(reader: Reader): JsonObject {
  const object: Record<string, JsonValue> = {};
  if (accept(reader, '}')) return object;
  do {
    skipSpace(reader);
    if (reader.text[reader.at] !== '"') throw broken(reader, 'a member name is missing');
    const name = readString(reader);
    if (!accept(reader, ':')) throw broken(reader, `':' is missing after '${name}'`);
    const value = readValue(reader, wide.has(name));
    // An assignment to '__proto__' would change the object instead of adding a member.
    if (name === '__proto__')
      Object.defineProperty(object, name, { value, enumerable: true, configurable: true });
    else object[name] = value;
  } while (accept(reader, ','));
  if (!accept(reader, '}')) throw broken(reader, "'}' is missing");
  return object;
}

function readArray(reader: Reader, isWide: Width): JsonValue[] {
  const items: JsonValue[] = [];
  if (accept(reader, ']')) return items;
  do items.push(readValue(reader, isWide));
  while (accept(reader, ','));
  if (!accept(reader, ']')) throw broken(reader, "']' is missing");
  return items;
}

function readString(reader: Reader): string {
  const start = reader.at;
  const plain = /[^"\\\u0000-\u001f]*/y;
  plain.lastIndex = start + 1;
  plain.test(reader.text);
  if (reader.text[plain.lastIndex] === '"') {
    reader.at = plain.lastIndex + 1;
    return reader.text.slice(start + 1, plain.lastIndex);
  }

  const escaped = /"(?:[^"\\\u0000-\u001f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"/y;
  escaped.lastIndex = start;
  const literal = escaped.exec(reader.text)?.[0];
  if (literal === undefined) throw broken(reader, 'a string is not closed or not valid');
  reader.at = start + literal.length;
  return String(JSON.parse(literal));
}

function readWord<T extends JsonValue>(reader: Reader, word: string, value: T): T {
  if (!reader.text.startsWith(word, reader.at)) throw broken(reader, 'no value');
  reader.at += word.length;
  return value;
}

function readNumber(reader: Reader, isWide: Width): number | bigint {
  const pattern = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/y;
  pattern.lastIndex = reader.at;
  const match = pattern.exec(reader.text);
  if (match === null) throw broken(reader, 'no value');
  reader.at = pattern.lastIndex;

  const literal = match[0];
  if (match[1] !== undefined || match[2] !== undefined) return Number(literal);
  if (isWide) return BigInt(literal);
  const small = Number(literal);
  return Number.isSafeInteger(small) ? small : BigInt(literal);
}

function accept(reader: Reader, character: string): boolean {
  skipSpace(reader);
  if (reader.text[reader.at] !== character) return false;
  reader.at++;
  return true;
}

function skipSpace(reader: Reader): void {
  for (; reader.at < reader.text.length; reader.at++) {
    const code = reader.text.charCodeAt(reader.at);
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
  }
}

function writeScalar(value: unknown): string {
  if (typeof value === 'number' && !Number.isFinite(value))
    throw new RequestError('INVALID_ARG', `JSON has no number for ${value}`);
  const text: string | undefined = JSON.stringify(value);
  if (text === undefined)
    throw new RequestError('INVALID_ARG', `JSON has no value for a ${typeof value}`);
  return text;
}

function broken(reader: Reader, what: string): RequestError {
  const near = reader.text.slice(reader.at, reader.at + 20);
  return new RequestError(
    'INVALID_ARG',
    `not JSON: ${what} at character ${reader.at}, near ${JSON.stringify(near)}`,
  );
}
