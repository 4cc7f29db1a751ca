import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';

import { RequestError } from '../std/errors.js';
import { parseJson, stringifyJson, wideNames } from './json.js';

const values: readonly [name: string, text: string, value: unknown][] = [
  ['a wide member is a bigint, however small', '{"offset": 0}', { offset: 0n }],
  ['an int64 keeps its last digit', '{"len":9223372036854775807}', { len: 9223372036854775807n }],
  ['a negative wide integer is a bigint', '{"speed":-1}', { speed: -1n }],
  ['a list takes the width of its member', '{"bins":[1,2]}', { bins: [1n, 2n] }],
  ['an object in a wide member has names of its own', '{"size":{"a":1}}', { size: { a: 1 } }],
  ['any other integer is a number', '{"major":7}', { major: 7 }],
  ['an integer that no double holds is a bigint', '[9007199254740993]', [9007199254740993n]],
  ['a fraction is a number even in a wide member', '{"size":1.5}', { size: 1.5 }],
  ['an exponent makes a number', '1e3', 1000],
  ['escapes are undone', String.raw`"a\"\u00e4\n\/"`, 'a"ä\n/'],
  ['space is ignored', ' [ true , null , false ]\r\n', [true, null, false]],
  ['empty list and object', '[[],{}]', [[], {}]],
];

for (const [name, text, value] of values)
  test(`json: ${name}`, () => assert.deepEqual(parseJson(text), value));

const refused = [
  '',
  '{',
  '[1,]',
  '{"a"}',
  '{"a":1,}',
  '01',
  '+1',
  'nul',
  '"\n"',
  String.raw`"\x"`,
  '1 2',
  "'a'",
  'NaN',
];

for (const text of refused)
  test(`json: ${JSON.stringify(text)} is refused`, () =>
    assert.throws(() => parseJson(text), RequestError));

test('json: nesting without end is refused, not a stack overflow', () => {
  assert.throws(() => parseJson('['.repeat(1_000_000)), /nested deeper/);
});

test('json: __proto__ is a member like any other', () => {
  const parsed = parseJson('{"__proto__":{"x":1}}');
  assert.equal(Object.getPrototypeOf(parsed), Object.prototype);
  assert.equal(stringifyJson(parsed), '{"__proto__":{"x":1}}');
});

test('json: bigint is written as an integer literal and undefined members are left out', () => {
  assert.equal(
    stringifyJson({ a: 2n ** 63n, b: undefined, c: [null] }),
    '{"a":9223372036854775808,"c":[null]}',
  );
});

test('json: what JSON cannot say is refused', () => {
  assert.throws(() => stringifyJson({ a: Number.NaN }), RequestError);
  assert.throws(() => stringifyJson(() => 1), RequestError);
});

test('json: whatever JSON.stringify writes is read back the same', () => {
  const wide: ReadonlySet<string> = new Set(wideNames);
  const key = fc.string().filter((name) => !wide.has(name));
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { depthSize: 'small' },
      fc.constant(null),
      fc.boolean(),
      fc.integer(),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.string({ unit: 'binary' }),
      fc.array(tie('tree')),
      fc.dictionary(key, tie('tree'), { noNullPrototype: true }),
    ),
  }));
  fc.assert(
    fc.property(tree, (value) => {
      const text = JSON.stringify(value);
      assert.deepEqual(JSON.parse(stringifyJson(parseJson(text))), JSON.parse(text));
    }),
  );
});
