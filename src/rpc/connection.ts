// One client over any byte stream: framing, order, limits, keepalive. Knows nothing of domains.
//
//   bytes → FrameReader → keepalive: answered here, at once
//                       → stream data: ignored, no stream is ever open
//                       → everything else: `answer`; what waits, at most five at a time, replies as they come
//
// It stops reading while five calls are in flight or the client does not take its replies, so that a client
// costs a bounded amount of memory; one that does not take its events is dropped.

import type { Duplex } from 'node:stream';

import { nothing } from './wire.js';
import type { LibvirtHost } from '../host/libvirt-host.js';
import { answer, type OnBug } from './dispatch.js';
import { defaultKeepalive, Keepalive, type KeepaliveOptions } from './keepalive.js';
import {
  decodePacket,
  encodePacket,
  FrameReader,
  messageStatus,
  messageTypes,
  PROGRAM_VERSION,
  programs,
  type Packet,
} from './packet.js';
import { closePacket } from './registrations.js';
import { Session } from './session.js';

/** libvirtd's max_client_requests. */
const MAX_IN_FLIGHT = 5;
/** Events that a client has not read yet. */
const MAX_EVENT_BACKLOG_BYTES = 4 * 1024 * 1024;

/** How long a client may take to read what was sent before the end. */
const LAST_WORDS_MS = 1000;

const keepaliveProcedures = { ping: 1, pong: 2 } as const;

export interface ConnectionOptions {
  readonly host: LibvirtHost;
  /** Whether the way the client came in allows reading only. */
  readonly readOnly: boolean;
  readonly keepalive?: KeepaliveOptions;
  readonly maxEventBacklogBytes?: number;
  readonly onBug?: OnBug;
}

/** Lives from its construction until the stream closes or `close` is called; `closed` tells. */
export class Connection {
  /** Resolves once the client is gone and everything it had set up is undone. */
  readonly closed: Promise<void>;
  private readonly stream: Duplex;
  private readonly session: Session;
  private readonly keepalive: Keepalive;
  private readonly frames = new FrameReader();
  private readonly onBug: OnBug;
  private readonly maxEventBacklogBytes: number;
  private inFlight = 0;
  private eventBacklogBytes = 0;

  constructor(stream: Duplex, options: ConnectionOptions) {
    this.stream = stream;
    this.onBug = options.onBug ?? (() => undefined);
    this.maxEventBacklogBytes = options.maxEventBacklogBytes ?? MAX_EVENT_BACKLOG_BYTES;
    this.keepalive = new Keepalive(options.keepalive ?? defaultKeepalive, {
      ping: () => this.send(keepalivePacket('ping')),
      dead: () => this.stream.destroy(),
      deaf: () => this.inFlight >= MAX_IN_FLIGHT,
    });
    this.session = new Session({
      host: options.host,
      readOnly: options.readOnly,
      send: (packet) => this.sendEvent(packet),
      onKeepalive: () => this.keepalive.start(),
      onBug: this.onBug,
    });
    this.closed = new Promise((resolve) => {
      stream.once('close', () => {
        this.keepalive.stop();
        this.session.close();
        resolve();
      });
    });
    stream.on('error', () => stream.destroy()); // a client that went away is no error of anybody
    stream.on('end', () => stream.destroy());
    stream.on('drain', () => this.pump());
    stream.on('data', (chunk: Buffer) => {
      this.frames.push(chunk);
      this.pump();
    });
  }

  /** Ends the client: it is told why if it asked to be, gets what was already sent, and is then cut off. */
  async close(): Promise<void> {
    const wantsReason = this.session.wantsCloseReason;
    this.session.close();
    if (wantsReason) this.send(closePacket('endOfFile'));
    const cut = setTimeout(() => this.stream.destroy(), LAST_WORDS_MS);
    this.stream.end(() => this.stream.destroy());
    await this.closed;
    clearTimeout(cut);
  }

  /** Takes up what has arrived, as far as limits allow, and reads on only if they still do. */
  private pump(): void {
    while (this.mayTakeUp()) {
      const packet = this.nextPacket();
      if (packet === null) break;
      this.keepalive.heard();
      this.receive(packet);
    }
    if (this.mayTakeUp()) this.stream.resume();
    else this.stream.pause();
  }

  /** Null until more has arrived. When the frame is lost there is no serial to answer to: the client is cut off. */
  private nextPacket(): Packet | null {
    try {
      const frame = this.frames.next();
      return frame === null ? null : decodePacket(frame);
    } catch {
      this.stream.destroy();
      return null;
    }
  }

  private mayTakeUp(): boolean {
    const { destroyed, writableNeedDrain } = this.stream;
    return !destroyed && !writableNeedDrain && this.inFlight < MAX_IN_FLIGHT;
  }

  private receive(packet: Packet): void {
    const { program, procedure, type } = packet.header;
    if (program === programs.keepalive) {
      if (procedure === keepaliveProcedures.ping) this.send(keepalivePacket('pong'));
      return;
    }
    if (type === messageTypes.stream || type === messageTypes.streamHole) return;
    const reply = answer(this.session, packet, this.onBug);
    if (reply instanceof Promise) void this.sendLater(reply);
    else this.send(reply);
  }

  private async sendLater(reply: Promise<Buffer>): Promise<void> {
    this.inFlight++;
    this.send(await reply);
    this.inFlight--;
    this.pump();
  }

  private send(packet: Buffer, onFlushed?: () => void): void {
    if (!this.stream.writable) return;
    const waits = this.stream.writableLength > 0;
    this.stream.write(waits ? ownCopy(packet) : packet, onFlushed);
  }

  private sendEvent(packet: Buffer): void {
    this.eventBacklogBytes += packet.length;
    if (this.eventBacklogBytes > this.maxEventBacklogBytes) {
      this.stream.destroy();
      return;
    }
    this.send(packet, () => {
      this.eventBacklogBytes -= packet.length;
    });
  }
}

/** Packets are cut from buffers that they share: one that waits for its client must not keep all of that alive. */
function ownCopy(packet: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(packet.length);
  packet.copy(copy);
  return copy;
}

function keepalivePacket(what: keyof typeof keepaliveProcedures): Buffer {
  const header = {
    program: programs.keepalive,
    version: PROGRAM_VERSION,
    procedure: keepaliveProcedures[what],
    type: messageTypes.event,
    serial: 0,
    status: messageStatus.ok,
  };
  return encodePacket(header, nothing, {});
}
