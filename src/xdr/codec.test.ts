import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { AssertionError } from '../std/assert.js';
import { RequestError } from '../std/errors.js';
import {
  array,
  bool,
  chars,
  f64,
  fixedChars,
  i32,
  i64,
  opaque,
  optional,
  struct,
  tagged,
  text,
  u32,
  u64,
  type Codec,
} from './codec.js';
import { Reader } from './reader.js';
import { Writer } from './writer.js';

const everything = struct({
  name: text(64),
  flags: u32,
  delta: i32,
  offset: i64,
  size: u64,
  ratio: f64,
  yes: bool,
  uuid: opaque(5),
  base: optional(text(64)),
  list: array(struct({ at: u32, note: optional(text(16)) }), 8),
  model: fixedChars(8),
  label: chars(16),
  value: tagged({ int: [1, i32], text: [7, text(16)] }),
});

const plain = (maxBytes: number): fc.Arbitrary<string> =>
  fc
    .string({ unit: 'grapheme', maxLength: maxBytes })
    .filter((value) => Buffer.byteLength(value) <= maxBytes && !value.includes('\0'));

const u32s = fc.nat(0xffff_ffff);
/** Records with Object's prototype, as decoding makes them. */
const ordinary = { noNullPrototype: true };

const values = fc.record(
  {
    name: plain(64),
    flags: u32s,
    delta: fc.integer(),
    offset: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
    size: fc.bigInt(0n, 2n ** 64n - 1n),
    ratio: fc.double(),
    yes: fc.boolean(),
    uuid: fc.uint8Array({ minLength: 5, maxLength: 5 }).map((bytes) => Buffer.from(bytes)),
    base: fc.option(plain(64)),
    list: fc.array(fc.record({ at: u32s, note: fc.option(plain(16)) }, ordinary), { maxLength: 8 }),
    model: plain(7),
    label: plain(15),
    value: fc.oneof(
      fc.record({ type: fc.constant('int' as const), value: fc.integer() }, ordinary),
      fc.record({ type: fc.constant('text' as const), value: plain(16) }, ordinary),
    ),
  },
  ordinary,
);

function encode<T>(codec: Codec<T>, value: T, capacity?: number): Buffer {
  const writer = new Writer(capacity);
  codec.write(writer, value);
  return writer.finish();
}

const decode = <T>(codec: Codec<T>, bytes: Buffer): T => codec.read(new Reader(bytes));
const words = (...all: readonly number[]): Buffer => encode(array(u32, 99), all).subarray(4);

test('what is encoded decodes to the same value and leaves no bytes', () => {
  fc.assert(
    fc.property(values, (value) => {
      const reader = new Reader(encode(everything, value));
      assert.deepEqual(everything.read(reader), value);
      assert.equal(reader.remaining, 0);
    }),
  );
});

test('a writer that starts with one byte writes what a large one writes', () => {
  fc.assert(
    fc.property(values, (value) => {
      assert.deepEqual(encode(everything, value, 1), encode(everything, value, 65_536));
    }),
  );
});

test('messages of one writer stay what they were, whatever it writes next', () => {
  fc.assert(
    fc.property(fc.array(values), fc.integer({ min: 1, max: 2000 }), (all, capacity) => {
      const writer = new Writer(capacity);
      const messages = all.map((value) => {
        writer.begin();
        everything.write(writer, value);
        return writer.finish();
      });
      assert.deepEqual(
        messages,
        all.map((value) => encode(everything, value)),
      );
    }),
  );
});

test('a message that could not be written to its end leaves nothing to the next', () => {
  const writer = new Writer();
  writer.begin();
  assert.throws(() => array(u32, 4).write(writer, [1, 2, -1]), AssertionError);
  writer.begin();
  u32.write(writer, 7);
  assert.deepEqual(writer.finish(), words(7));
});

test('a huge message takes its memory with it', () => {
  const writer = new Writer(8192);
  writer.begin();
  text(1_000_000).write(writer, 'a'.repeat(1_000_000));
  assert.ok(writer.finish().buffer.byteLength > 1_000_000);
  writer.begin();
  u32.write(writer, 7);
  assert.equal(writer.finish().buffer.byteLength, 8192);
});

test('every prefix of an encoded value is refused', () => {
  fc.assert(
    fc.property(values, fc.nat(), (value, cut) => {
      const bytes = encode(everything, value);
      assert.throws(() => decode(everything, bytes.subarray(0, cut % bytes.length)), RequestError);
    }),
  );
});

test('any bytes are a value or a RequestError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 512 }), (bytes) => {
      try {
        decode(everything, Buffer.from(bytes));
      } catch (error) {
        assert.ok(error instanceof RequestError, String(error));
        assert.equal(error.code, 'RPC');
        assert.equal(error.from, 'rpc');
      }
    }),
    { numRuns: 2000 },
  );
});

const malformed: readonly (readonly [string, Codec<unknown>, Buffer])[] = [
  ['text longer than its limit', text(4), words(5, 0x61616161, 0x61000000)],
  ['text longer than the message', text(2 ** 31), words(0x7fff_ffff)],
  ['text with a NUL', text(4), words(2, 0x61000000)],
  ['text that is not UTF-8', text(4), words(2, 0xc3280000)],
  ['a list longer than its limit', array(u32, 1), words(2, 1, 2)],
  ['a list longer than the message', array(u32, 2 ** 31), words(0x7fff_ffff, 1)],
  ['an unknown arm', tagged({ int: [1, i32] }), words(2, 0)],
  ['missing padding', text(8), Buffer.from('0000000161', 'hex')],
];
for (const [name, codec, bytes] of malformed) {
  test(`${name} is refused`, () => assert.throws(() => decode(codec, bytes), RequestError));
}

const lenient: readonly (readonly [string, Codec<unknown>, Buffer, unknown])[] = [
  ['any presence word but zero is true', optional(u32), words(7, 9), 9],
  ["go-libvirt's presence word is true", optional(u32), words(0x0100_0000, 9), 9],
  ['bytes behind the value are not looked at', u32, words(1, 2, 3), 1],
  ['what is in the padding is not looked at', text(4), words(1, 0x61ff_ffff), 'a'],
  ['characters end at the first NUL', fixedChars(4), words(0x61, 0, 0x62, 0), 'a'],
  ['characters without a NUL are all taken', chars(2), words(2, 0x61, 0x62), 'ab'],
];
for (const [name, codec, bytes, want] of lenient) {
  test(name, () => assert.deepEqual(decode(codec, bytes), want));
}

const rude: readonly (readonly [string, () => unknown])[] = [
  ['a fraction', () => encode(u32, 1.5)],
  ['a negative unsigned integer', () => encode(u32, -1)],
  ['33 bits', () => encode(i32, 2 ** 31)],
  ['65 bits', () => encode(u64, 2n ** 64n)],
  ['text with a NUL', () => encode(text(4), 'a\0')],
  ['text that is too long', () => encode(text(1), 'é')],
  ['a list that is too long', () => encode(array(u32, 1), [1, 2])],
  ['a short fixed array', () => encode(opaque(4), new Uint8Array(3))],
  ['characters without room for a NUL', () => encode(fixedChars(2), 'ab')],
];
for (const [name, attempt] of rude) {
  test(`encoding ${name} is our bug`, () => assert.throws(attempt, AssertionError));
}

test('characters above 127 are sign-extended, as a C char is', () => {
  const bytes = encode(chars(4), 'é');
  assert.equal(bytes.toString('hex'), '00000003ffffffc3ffffffa900000000');
  assert.equal(decode(chars(4), bytes), 'é');
});

test('padding is zero, whatever was in the buffer before', () => {
  for (const value of ['', 'a', 'ab', 'abc', 'abcd', 'é']) {
    // Small Buffers are cut from one pool: what is left of it is full of this then.
    const last = Buffer.allocUnsafe(8);
    new Uint8Array(last.buffer, last.byteOffset + last.length).fill(0xff);
    const bytes = encode(text(8), value);
    assert.ok(bytes.subarray(4 + Buffer.byteLength(value)).every((byte) => byte === 0));
    assert.equal(bytes.length % 4, 0);
  }
  assert.equal(encode(text(8), 'abcde', 1).toString('hex'), '000000056162636465000000');
});
