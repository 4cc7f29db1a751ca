// Values → bytes, after XDR (RFC 4506). Strict: what a C peer could not decode is an assertion here.

import { assert, AssertionError } from '../std/assert.js';
import { padding } from './reader.js';

const DEFAULT_CAPACITY = 256;

/**
 * Writes messages one after another into a buffer that grows, and is replaced when it is full.
 *
 * Every method reserves first and touches the buffer afterwards: `buffer[reserve(n)] = x` evaluates `buffer`
 * before it is replaced by a larger one, and so writes into the old one.
 */
export class Writer {
  private readonly capacity: number;
  private buffer: Buffer;
  /** Where the message at hand begins and, so far, ends. */
  private start = 0;
  private end = 0;

  constructor(capacity = DEFAULT_CAPACITY) {
    this.capacity = capacity;
    this.buffer = Buffer.allocUnsafe(capacity);
  }

  /** Begins a message, and forgets one that was not finished because it could not be written. */
  begin(): void {
    this.end = this.start;
  }

  i32(value: number): void {
    if (value !== (value | 0)) refuse(value, 'is no 32-bit integer');
    const start = this.reserve(4);
    this.buffer.writeInt32BE(value, start);
  }

  u32(value: number): void {
    if (value !== value >>> 0) refuse(value, 'is no unsigned 32-bit integer');
    const start = this.reserve(4);
    this.buffer.writeUInt32BE(value, start);
  }

  i64(value: bigint): void {
    if (value !== BigInt.asIntN(64, value)) refuse(value, 'is no 64-bit integer');
    const start = this.reserve(8);
    this.buffer.writeBigInt64BE(value, start);
  }

  u64(value: bigint): void {
    if (value !== BigInt.asUintN(64, value)) refuse(value, 'is no unsigned 64-bit integer');
    const start = this.reserve(8);
    this.buffer.writeBigUInt64BE(value, start);
  }

  f64(value: number): void {
    const start = this.reserve(8);
    this.buffer.writeDoubleBE(value, start);
  }

  /** Raw bytes and zeroes up to the next multiple of four. */
  opaque(bytes: Uint8Array): void {
    const start = this.reservePadded(bytes.length);
    this.buffer.set(bytes, start);
  }

  /** A length word of at most `max`. */
  count(count: number, max: number, what: string): void {
    if (count > max) refuse(count, `${what}, at most ${max} are allowed`);
    this.u32(count);
  }

  string(text: string, maxBytes: number): void {
    assert(!text.includes('\0'), 'text with a NUL byte');
    const length = Buffer.byteLength(text);
    this.count(length, maxBytes, 'bytes of text');
    const start = this.reservePadded(length);
    this.buffer.write(text, start);
  }

  /** The bytes of the message, in memory that they share with those before and after. */
  finish(): Buffer {
    const message = this.buffer.subarray(this.start, this.end);
    this.start = this.end;
    if (this.buffer.length > this.capacity) this.replace(this.capacity); // a huge message takes its memory with it
    return message;
  }

  /** Makes room for `length` bytes, followed by their padding of zeroes, and returns where they start. */
  private reservePadded(length: number): number {
    const start = this.reserve(length + padding(length));
    for (let at = start + length; at < this.end; at++) this.buffer[at] = 0;
    return start;
  }

  /** Makes room for `length` bytes, all of which the caller writes: they hold what was there before. */
  private reserve(length: number): number {
    const at = this.end;
    if (at + length <= this.buffer.length) {
      this.end += length;
      return at;
    }
    const written = this.end - this.start;
    this.replace(Math.max(this.capacity, (written + length) * 2));
    this.end += length;
    return written;
  }

  /** Goes on in a new buffer, with what there is of the message at hand. */
  private replace(bytes: number): void {
    const next = Buffer.allocUnsafe(bytes);
    this.end = this.buffer.copy(next, 0, this.start, this.end);
    this.start = 0;
    this.buffer = next;
  }
}

/** Apart from its callers, so that they build no message for the words that are right: all of them. */
function refuse(value: number | bigint, why: string): never {
  throw new AssertionError(`${value} ${why}`);
}
