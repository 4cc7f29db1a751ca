// One message on the wire: a length word that counts itself, six header words, a body. The layouts of bodies are
// elsewhere. Source: libvirt `src/rpc/virnetprotocol.x`.

import { AssertionError } from '../std/assert.js';
import { RequestError } from '../std/errors.js';
import type { Codec } from '../xdr/codec.js';
import { Reader } from '../xdr/reader.js';
import { Writer } from '../xdr/writer.js';

export const programs = { remote: 0x20008086, qemu: 0x20008087, keepalive: 0x6b656570 } as const;
export type ProgramName = keyof typeof programs;

/** The only version of each program there has ever been. */
export const PROGRAM_VERSION = 1;

export const messageTypes = {
  call: 0,
  reply: 1,
  event: 2,
  stream: 3,
  callWithFds: 4,
  replyWithFds: 5,
  streamHole: 6,
} as const;

export const messageStatus = { ok: 0, error: 1, continue: 2 } as const;

const LENGTH_BYTES = 4;
/** Length word and header. */
export const HEADER_BYTES = LENGTH_BYTES + 24;
/** VIR_NET_MESSAGE_MAX and the length word. */
export const MAX_PACKET_BYTES = 33_554_432 + 4;

/** What stands behind the length word of every packet, in this order; `procedure` is the only signed word. */
export interface Header {
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
  readonly type: number;
  readonly serial: number;
  readonly status: number;
}

export interface Packet {
  readonly header: Header;
  /** Reads the body; stands at its first byte. */
  readonly body: Reader;
}

/** Decodes one whole packet, as FrameReader gives it. */
export function decodePacket(bytes: Buffer): Packet {
  const body = new Reader(bytes, LENGTH_BYTES);
  const header = {
    program: body.u32(),
    version: body.u32(),
    procedure: body.i32(),
    type: body.u32(),
    serial: body.u32(),
    status: body.u32(),
  };
  return { header, body };
}

/** All packets are written by this one, and so cut from a few large buffers instead of one or two each. */
const writer = new Writer(65_536);

/** Encodes one packet. A body that is too large is our bug: lists and strings have their own limits. */
export function encodePacket<T>(head: Header, codec: Codec<T>, body: T): Buffer {
  writer.begin();
  writer.u32(0); // the length, once it is known
  writer.u32(head.program);
  writer.u32(head.version);
  writer.i32(head.procedure);
  writer.u32(head.type);
  writer.u32(head.serial);
  writer.u32(head.status);
  codec.write(writer, body);
  const bytes = writer.finish();
  if (bytes.length > MAX_PACKET_BYTES)
    throw new AssertionError(`a packet of ${bytes.length} bytes`);
  bytes.writeUInt32BE(bytes.length, 0);
  return bytes;
}

const NO_BYTES = Buffer.alloc(0);

/**
 * Cuts a stream of bytes into packets. A chunk that holds whole packets, as nearly all do, is cut where it is; what is
 * incomplete is kept in one buffer that grows with what arrived, not with what a length word promises.
 */
export class FrameReader {
  private buffer: Buffer = NO_BYTES;
  private start = 0;
  private end = 0;

  /** Takes the chunk over: its bytes are not to change any more. */
  push(chunk: Buffer): void {
    if (this.start === this.end) {
      this.hold(chunk, chunk.length);
      return;
    }
    this.reserve(chunk.length);
    this.buffer.set(chunk, this.end);
    this.end += chunk.length;
  }

  /**
   * The next whole packet, or null until more has arrived.
   *
   * @throws {RequestError} the stream has lost its frame: nothing after this can be understood.
   */
  next(): Buffer | null {
    const available = this.end - this.start;
    if (available < 4) return null;
    const length = this.buffer.readUInt32BE(this.start);
    if (length < HEADER_BYTES || length > MAX_PACKET_BYTES) {
      throw new RequestError(
        'RPC',
        `packet of ${length} bytes, ${HEADER_BYTES} to ${MAX_PACKET_BYTES} are allowed`,
        { from: 'rpc' },
      );
    }
    if (available < length) return null;
    const packet = this.buffer.subarray(this.start, this.start + length);
    this.start += length;
    if (this.start === this.end) this.hold(NO_BYTES, 0); // an idle connection keeps no bytes
    return packet;
  }

  private reserve(length: number): void {
    const kept = this.end - this.start;
    if (this.end + length <= this.buffer.length) return;
    const next = Buffer.allocUnsafe(Math.max(4096, kept + length, kept * 2));
    this.buffer.copy(next, 0, this.start, this.end);
    this.hold(next, kept);
  }

  private hold(buffer: Buffer, end: number): void {
    this.buffer = buffer;
    this.start = 0;
    this.end = end;
  }
}
