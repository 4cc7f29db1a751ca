// Bytes of a peer → values, after XDR (RFC 4506). Trusts nothing: every shortage is a RequestError, never an
// assertion, and nothing is allocated on the strength of a length word alone.

import { RequestError } from '../std/errors.js';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** What a decoder throws for bytes that are not what the protocol says; libvirt's VIR_ERR_RPC. */
export function malformed(message: string, cause?: unknown): RequestError {
  return new RequestError('RPC', `Unable to decode message payload: ${message}`, {
    from: 'rpc',
    cause,
  });
}

/** A cursor over one message. Values are copies: the message's buffer may be reused afterwards. */
export class Reader {
  private readonly bytes: Buffer;
  private offset: number;

  constructor(bytes: Buffer, offset = 0) {
    this.bytes = bytes;
    this.offset = offset;
  }

  /** Bytes not read yet. Not an error when the message is complete: clients are known to send more. */
  get remaining(): number {
    return this.bytes.length - this.offset;
  }

  i32(): number {
    return this.bytes.readInt32BE(this.take(4));
  }

  u32(): number {
    return this.bytes.readUInt32BE(this.take(4));
  }

  i64(): bigint {
    return this.bytes.readBigInt64BE(this.take(8));
  }

  u64(): bigint {
    return this.bytes.readBigUInt64BE(this.take(8));
  }

  f64(): number {
    return this.bytes.readDoubleBE(this.take(8));
  }

  /** `length` raw bytes and their padding to a multiple of four, whose content is not looked at. */
  opaque(length: number): Buffer {
    const start = this.take(length);
    this.take(padding(length));
    return Buffer.from(this.bytes.subarray(start, start + length));
  }

  /** The length word of something that may hold at most `max` items. */
  count(max: number, what: string): number {
    const count = this.u32();
    if (count > max) throw malformed(`${count} ${what}, at most ${max} are allowed`);
    return count;
  }

  /** A string of at most `maxBytes` bytes of UTF-8. NUL is refused: a peer written in C would read less than we do. */
  string(maxBytes: number): string {
    const length = this.count(maxBytes, 'bytes of text');
    const start = this.take(length);
    this.take(padding(length));
    const end = start + length;
    // Names and paths are, and a TextDecoder costs five times as much.
    if (isAscii(this.bytes, start, end)) return this.bytes.toString('latin1', start, end);
    const bytes = this.bytes.subarray(start, end);
    if (bytes.includes(0)) throw malformed('text with a NUL byte');
    try {
      return utf8.decode(bytes);
    } catch (cause) {
      throw malformed('text that is not UTF-8', cause);
    }
  }

  private take(length: number): number {
    const start = this.offset;
    if (length > this.remaining) {
      throw malformed(`${length} bytes expected at ${start}, ${this.remaining} are left`);
    }
    this.offset += length;
    return start;
  }
}

/** Whether all of it is ASCII, and no NUL. */
function isAscii(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) {
    const byte = bytes[at] ?? 0;
    if (byte === 0 || byte > 0x7f) return false;
  }
  return true;
}

/** Bytes that follow `length` bytes up to the next multiple of four. */
export function padding(length: number): number {
  return (4 - (length % 4)) % 4;
}
