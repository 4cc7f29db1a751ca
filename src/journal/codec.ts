// JSON text that keeps a bigint: `123n` is stored as `{"$bigint":"123"}`. An own member whose name could be taken
// for the tag gets one more `$`, so that every plain value comes back as it went in.

import { assert } from '../std/assert.js';

const tag = '$bigint';
const looksLikeTag = /^\$+bigint$/;

/** The text of a plain value: null, booleans, finite numbers, bigints, strings, arrays and objects of them. */
export function encode(value: unknown): string {
  return JSON.stringify(tagged(value));
}

/** The value of a text that `encode` made. */
export function decode(text: string): unknown {
  return untagged(JSON.parse(text));
}

function tagged(value: unknown): unknown {
  if (typeof value === 'bigint') return { [tag]: value.toString() };
  if (Array.isArray(value)) return value.map(tagged);
  if (typeof value === 'object' && value !== null)
    return mapMembers(value, (name) => (looksLikeTag.test(name) ? `$${name}` : name), tagged);
  assert(
    typeof value !== 'number' || Number.isFinite(value),
    `a number that JSON cannot hold: ${String(value)}`,
  );
  assert(typeof value !== 'function' && typeof value !== 'symbol', 'a journal holds data only');
  return value;
}

/** In place: what was just parsed is nobody else's, and a daemon that starts decodes hundreds of these. */
function untagged(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (tag in value && typeof value[tag] === 'string') return BigInt(value[tag]);
  let isEscaped = false;
  // JSON has no other members than these.
  const members = value as Record<string, unknown>;
  for (const name of Object.keys(members)) {
    const member = members[name];
    if (typeof member === 'object' && member !== null) {
      const plain = untagged(member);
      if (plain !== member) put(value, name, plain);
    }
    isEscaped ||= name.startsWith('$') && looksLikeTag.test(name);
  }
  return isEscaped ? mapMembers(value, unescaped, (member) => member) : value;
}

const unescaped = (name: string): string => (looksLikeTag.test(name) ? name.slice(1) : name);

/** Not an assignment: that would make a member called `__proto__` the prototype. */
function put(object: object, name: string, value: unknown): void {
  Object.defineProperty(object, name, {
    value,
    configurable: true,
    enumerable: true,
    writable: true,
  });
}

function mapMembers(
  object: object,
  name: (name: string) => string,
  value: (value: unknown) => unknown,
): object {
  const members = Object.entries(object).filter(([, member]) => member !== undefined);
  return Object.fromEntries(members.map(([key, member]) => [name(key), value(member)]));
}
