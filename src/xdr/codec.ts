// Codecs: values that describe one XDR type each and know both directions. TypeScript's type of what a codec
// reads and writes is `Of<typeof codec>`. Decoding is lenient where RFC 4506 is and known clients are sloppy
// (padding, presence words); encoding is strict.

import { assert } from '../std/assert.js';
import { malformed, type Reader } from './reader.js';
import type { Writer } from './writer.js';

/** Methods, not function properties, on purpose: so a `Codec<string>` is a `Codec<unknown>` in a table. */
export interface Codec<T> {
  read(reader: Reader): T;
  write(writer: Writer, value: T): void;
}

/** The type of the values of codec `C`. */
export type Of<C> = C extends Codec<infer T> ? T : never;

export type Fields = Readonly<Record<string, Codec<unknown>>>;

/** The type of a struct of these fields. */
export type StructOf<F extends Fields> = { readonly [K in keyof F]: Of<F[K]> };

export const i32: Codec<number> = {
  read: (reader) => reader.i32(),
  write: (writer, value) => writer.i32(value),
};

export const u32: Codec<number> = {
  read: (reader) => reader.u32(),
  write: (writer, value) => writer.u32(value),
};

export const i64: Codec<bigint> = {
  read: (reader) => reader.i64(),
  write: (writer, value) => writer.i64(value),
};

export const u64: Codec<bigint> = {
  read: (reader) => reader.u64(),
  write: (writer, value) => writer.u64(value),
};

export const f64: Codec<number> = {
  read: (reader) => reader.f64(),
  write: (writer, value) => writer.f64(value),
};

/** An integer used as a truth value. Any word but zero is true: go-libvirt is known to send 0x01000000. */
export const bool: Codec<boolean> = {
  read: (reader) => reader.u32() !== 0,
  write: (writer, value) => writer.u32(value ? 1 : 0),
};

/** UTF-8 text of at most `maxBytes` bytes. */
export function text(maxBytes: number): Codec<string> {
  return {
    read: (reader) => reader.string(maxBytes),
    write: (writer, value) => writer.string(value, maxBytes),
  };
}

/** Exactly `length` raw bytes. */
export function opaque(length: number): Codec<Uint8Array> {
  return {
    read: (reader) => reader.opaque(length),
    write(writer, value) {
      assert(value.length === length, `${value.length} bytes where ${length} belong`);
      writer.opaque(value);
    },
  };
}

/** A field that may be missing. */
export function optional<T>(codec: Codec<T>): Codec<T | null> {
  return {
    read: (reader) => (bool.read(reader) ? codec.read(reader) : null),
    write(writer, value) {
      bool.write(writer, value !== null);
      if (value !== null) codec.write(writer, value);
    },
  };
}

/** At most `max` items. The list grows as items are read, so a lying length word costs nothing. */
export function array<T>(codec: Codec<T>, max: number): Codec<readonly T[]> {
  return {
    read(reader) {
      const items: T[] = [];
      for (let left = reader.count(max, 'items'); left > 0; left--) items.push(codec.read(reader));
      return items;
    },
    write(writer, items) {
      writer.count(items.length, max, 'items');
      for (const item of items) codec.write(writer, item);
    },
  };
}

/** Fields one after another, in the order they are written down. */
export function struct<const F extends Fields>(fields: F): Codec<StructOf<F>> {
  const entries = Object.entries(fields);
  return {
    read(reader) {
      const value: Record<string, unknown> = {};
      for (const [name, codec] of entries) value[name] = codec.read(reader);
      return value as StructOf<F>; // built from the very fields that StructOf maps
    },
    write(writer, value) {
      for (const [name, codec] of entries) codec.write(writer, value[name]);
    },
  };
}

type Arms = Readonly<Record<string, readonly [tag: number, codec: Codec<unknown>]>>;
type TaggedOf<A extends Arms> = {
  readonly [K in keyof A]: { readonly type: K; readonly value: Of<A[K][1]> };
}[keyof A];

/** A discriminated union: a tag word, then the value that the tag announces. Unknown tags are malformed. */
export function tagged<const A extends Arms>(arms: A): Codec<TaggedOf<A>> {
  const byTag = new Map(Object.entries(arms).map(([type, [tag, codec]]) => [tag, { type, codec }]));
  return {
    read(reader) {
      const tag = reader.i32();
      const arm = byTag.get(tag);
      if (arm === undefined) throw malformed(`unknown union arm ${tag}`);
      return { type: arm.type, value: arm.codec.read(reader) } as TaggedOf<A>; // one of the arms of A
    },
    write(writer, value) {
      const arm = arms[value.type];
      assert(arm !== undefined, `unknown union arm ${String(value.type)}`);
      writer.i32(arm[0]);
      arm[1].write(writer, value.value);
    },
  };
}

/**
 * A C `char name[length]`, which XDR carries as one 4-byte integer for each character, zero-filled. Text ends
 * at the first NUL; there is always one.
 */
export function fixedChars(length: number): Codec<string> {
  return {
    read: (reader) => readChars(reader, length),
    write(writer, value) {
      const bytes = Buffer.from(value, 'utf8');
      assert(bytes.length < length, `${bytes.length} characters and a NUL in char[${length}]`);
      writeChars(writer, bytes);
      for (let at = bytes.length; at < length; at++) writer.i32(0);
    },
  };
}

/** A C `char name<max>`: as `fixedChars`, with a length word that counts the closing NUL. */
export function chars(max: number): Codec<string> {
  return {
    read: (reader) => readChars(reader, reader.count(max, 'characters')),
    write(writer, value) {
      const bytes = Buffer.from(`${value}\0`, 'utf8');
      writer.count(bytes.length, max, 'characters');
      writeChars(writer, bytes);
    },
  };
}

function readChars(reader: Reader, length: number): string {
  const bytes: number[] = [];
  for (let at = 0; at < length; at++) bytes.push(reader.i32() & 0xff);
  const end = bytes.indexOf(0);
  return Buffer.from(end === -1 ? bytes : bytes.slice(0, end)).toString('utf8');
}

/** xdr_char sign-extends: C's `char` is signed where libvirt runs. */
function writeChars(writer: Writer, bytes: Uint8Array): void {
  for (const byte of bytes) writer.i32((byte << 24) >> 24);
}
