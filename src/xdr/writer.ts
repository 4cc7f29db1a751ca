// Values → bytes, after XDR (RFC 4506). Strict: what a C peer could not decode is an assertion here.

import { assert } from '../std/assert.js';
import { padding } from './reader.js';

const DEFAULT_CAPACITY = 256;

/**
 * Appends to a buffer that grows.
 *
 * Every method reserves first and touches the buffer afterwards: `buffer[reserve(n)] = x` evaluates `buffer`
 * before it is replaced by a larger one, and so writes into the old one.
 */
export class Writer {
  private buffer: Buffer;
  private length = 0;

  constructor(capacity = DEFAULT_CAPACITY) {
    this.buffer = Buffer.alloc(capacity);
  }

  i32(value: number): void {
    assert(Number.isInteger(value) && value === (value | 0), `${value} is no 32-bit integer`);
    const start = this.reserve(4);
    this.buffer.writeInt32BE(value, start);
  }

  u32(value: number): void {
    assert(
      Number.isInteger(value) && value === value >>> 0,
      `${value} is no unsigned 32-bit integer`,
    );
    const start = this.reserve(4);
    this.buffer.writeUInt32BE(value, start);
  }

  i64(value: bigint): void {
    assert(value === BigInt.asIntN(64, value), `${value} is no 64-bit integer`);
    const start = this.reserve(8);
    this.buffer.writeBigInt64BE(value, start);
  }

  u64(value: bigint): void {
    assert(value === BigInt.asUintN(64, value), `${value} is no unsigned 64-bit integer`);
    const start = this.reserve(8);
    this.buffer.writeBigUInt64BE(value, start);
  }

  f64(value: number): void {
    const start = this.reserve(8);
    this.buffer.writeDoubleBE(value, start);
  }

  /** Raw bytes and zeroes up to the next multiple of four. */
  opaque(bytes: Uint8Array): void {
    const start = this.reserve(bytes.length + padding(bytes.length));
    this.buffer.set(bytes, start);
  }

  /** A length word of at most `max`. */
  count(count: number, max: number, what: string): void {
    assert(count <= max, `${count} ${what}, at most ${max} are allowed`);
    this.u32(count);
  }

  string(text: string, maxBytes: number): void {
    const bytes = Buffer.from(text, 'utf8');
    assert(!bytes.includes(0), 'text with a NUL byte');
    this.count(bytes.length, maxBytes, 'bytes of text');
    this.opaque(bytes);
  }

  /** The bytes written so far; not to be written to afterwards. */
  finish(): Buffer {
    return this.buffer.subarray(0, this.length);
  }

  /** Makes room for `length` bytes, all zero, and returns where they start. */
  private reserve(length: number): number {
    const start = this.length;
    const end = start + length;
    if (end > this.buffer.length) {
      const larger = Buffer.alloc(Math.max(end, this.buffer.length * 2));
      this.buffer.copy(larger, 0, 0, start);
      this.buffer = larger;
    }
    this.length = end;
    return start;
  }
}
