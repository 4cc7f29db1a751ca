// A client that speaks the procedure table backwards: writes arguments, reads results.

import type { Duplex } from 'node:stream';

import { assert } from '../../src/std/assert.js';
import { Stream } from '../../src/std/queue.js';
import {
  decodePacket,
  encodePacket,
  FrameReader,
  messageStatus,
  messageTypes,
  PROGRAM_VERSION,
  programs,
  type Header,
} from '../../src/rpc/packet.js';
import type { Procedure } from '../../src/rpc/procedure.js';
import { procedureTables } from '../../src/rpc/procedures.js';
import { eventRows } from '../../src/rpc/registrations.js';
import { nothing, wireError } from '../../src/rpc/wire.js';

/** A packet from the server, with its bytes and what they say. */
export interface Received {
  readonly header: Header;
  readonly bytes: Buffer;
  readonly body: unknown;
}

type ProgramOfCalls = keyof typeof procedureTables;

export class Client {
  /** Everything that came, in order, until the server hangs up. */
  readonly received = new Stream<Received>();
  private readonly stream: Duplex;
  private readonly frames = new FrameReader();
  private nextSerial = 0;

  constructor(stream: Duplex) {
    this.stream = stream;
    stream.on('data', (chunk: Buffer) => this.take(chunk));
    stream.on('end', () => this.received.end());
    stream.on('error', () => this.received.end());
    stream.on('close', () => this.received.end());
  }

  /** Sends bytes as they are. */
  raw(bytes: Buffer): void {
    this.stream.write(bytes);
  }

  /** Sends a call and answers its serial; does not wait. */
  send(number: number, args: unknown = {}, program: ProgramOfCalls = 'remote'): number {
    const serial = this.nextSerial++;
    const row = procedureTables[program].get(number);
    const header = callHeader(number, serial, program);
    this.raw(encodePacket(header, row?.args ?? nothing, row === undefined ? {} : nest(row, args)));
    return serial;
  }

  /** Sends a call and waits for its reply; what comes in between is dropped. */
  async call(
    number: number,
    args: unknown = {},
    program: ProgramOfCalls = 'remote',
  ): Promise<Received> {
    const serial = this.send(number, args, program);
    for await (const packet of this.received) {
      const { type, serial: of } = packet.header;
      if (type === messageTypes.reply && of === serial) return packet;
    }
    throw new Error(`the server hung up before it answered ${number}`);
  }

  async open(flags = 0): Promise<void> {
    const { header } = await this.call(1, { name: 'qemu:///system', flags });
    assert(header.status === messageStatus.ok, 'open was refused');
  }

  /** The next packet, whatever it is; null when the server has hung up. */
  async next(): Promise<Received | null> {
    const { value, done } = await this.received.next();
    return done === true ? null : value;
  }

  ping(): void {
    const header = { ...callHeader(1, 0, 'remote'), program: programs.keepalive };
    this.raw(encodePacket({ ...header, type: messageTypes.event }, nothing, {}));
  }

  pause(): void {
    this.stream.pause();
  }

  resume(): void {
    this.stream.resume();
  }

  hangUp(): void {
    this.stream.destroy();
  }

  private take(chunk: Buffer): void {
    this.frames.push(chunk);
    for (let frame = this.frames.next(); frame !== null; frame = this.frames.next()) {
      const { header, body } = decodePacket(frame);
      this.received.push({ header, bytes: Buffer.from(frame), body: layout(header).read(body) });
    }
  }
}

export function callHeader(
  number: number,
  serial: number,
  program: ProgramOfCalls = 'remote',
): Header {
  return {
    program: programs[program],
    version: PROGRAM_VERSION,
    procedure: number,
    type: messageTypes.call,
    serial,
    status: messageStatus.ok,
  };
}

/** A row with a flags word keeps its arguments apart from it. */
function nest(row: Procedure, args: unknown): unknown {
  if (!row.hasFlags) return args;
  const { flags = 0, ...others } = args as { readonly flags?: number }; // a test's own literal
  return { args: others, flags };
}

function layout({
  program,
  procedure,
  type,
  status,
}: Header): typeof nothing | Procedure['result'] {
  if (status === messageStatus.error) return wireError;
  if (type === messageTypes.event) {
    return eventRows.find((row) => row.procedure === procedure)?.body ?? nothing;
  }
  const table = program === programs.qemu ? procedureTables.qemu : procedureTables.remote;
  return table.get(procedure)?.result ?? nothing;
}
