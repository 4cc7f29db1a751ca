import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { JsonObject, WideName } from './json.js';
import type { CommandName, EventName, Events, ReplyOf } from './types.js';

type Received = { [C in CommandName]: ReplyOf<C> }[CommandName] | Events[EventName];
/** Free-form JSON declares no widths. */
type Declared<T> = T extends unknown ? (JsonObject extends T ? never : T) : never;
type Element<T> = T extends readonly (infer E)[] ? E : T;
type Value<T> = Declared<Element<Exclude<T, undefined>>>;
/** Types that hold themselves: their members are found on the first level already. */
type Recursive = 'backing' | 'parent' | 'backing-image';
type NamesOf<T, W> = T extends object
  ? {
      [K in keyof T & string]-?: K extends Recursive
        ? never
        : W extends Value<T[K]>
          ? K
          : NamesOf<Value<T[K]>, W>;
    }[keyof T & string]
  : never;
type BigintNames = NamesOf<Value<Received>, bigint>;
type NumberNames = NamesOf<Value<Received>, number>;
interface Difference<A, B> {
  readonly missing: Exclude<A, B>;
  readonly extra: Exclude<B, A>;
}
type Same<A, B> = [A, B] extends [B, A] ? true : Difference<A, B>;

test('in all that QEMU sends, a member is declared bigint exactly where the parser makes it one', () => {
  // The compiler is the test: these lines do not compile when declarations and `wideNames` disagree.
  const bigints: Same<BigintNames, WideName> = true;
  const noNumbers: Same<NumberNames & WideName, never> = true;
  assert.ok(bigints && noNumbers);
});
