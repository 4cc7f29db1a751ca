import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';

import { AssertionError } from '../std/assert.js';
import { decode, encode } from './codec.js';

const plain = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    fc.bigInt(),
    fc.string({ unit: 'binary' }),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(
      fc.oneof(fc.string(), fc.constantFrom('$bigint', '$$bigint', 'bigint', '__proto__')),
      tie('value'),
      { maxKeys: 4, noNullPrototype: true },
    ),
  ),
})).value;

test('codec: every plain value comes back as it went in', () => {
  fc.assert(fc.property(plain, (value) => assert.deepStrictEqual(decode(encode(value)), value)));
});

for (const [name, value, text] of [
  ['a bigint is tagged', { size: 5n }, '{"size":{"$bigint":"5"}}'],
  ['a member that looks like the tag is not one', { $bigint: '5' }, '{"$$bigint":"5"}'],
  ['a member that is not there is not written', { a: undefined, b: 1 }, '{"b":1}'],
] as const) {
  test(`codec: ${name}`, () => assert.equal(encode(value), text));
}

test('codec: a number that JSON cannot hold is a bug of ours', () => {
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => encode({ value }), AssertionError);
  }
});
