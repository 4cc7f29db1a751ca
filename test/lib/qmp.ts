// A small QMP client for tests that talk to a QEMU without the daemon: replies as they come, events kept for ever.
// Not the product's own (src/qmp): it sends what that would refuse, and what is tested is no part of the test.

import { connect, type Socket } from 'node:net';

import { until } from '../../src/std/deadline.js';

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly atMs: number;
}

interface Reply {
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

type Arguments = Readonly<Record<string, unknown>>;

export class QmpRefusal extends Error {
  readonly qmpClass: string;

  constructor(command: string, { class: qmpClass, desc }: NonNullable<Reply['error']>) {
    super(`${command}: ${desc}`);
    this.qmpClass = qmpClass;
  }
}

export class Qmp implements Disposable {
  readonly events: QmpEvent[] = [];
  private readonly socket: Socket;
  private readonly waiting = new Map<
    number,
    { resolve: (reply: Reply) => void; reject: (error: Error) => void }
  >();
  private lastId = 0;
  private rest = '';

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.take(text));
    socket.on('error', () => undefined); // 'close' follows and says it
    socket.on('close', () => {
      for (const { reject } of this.waiting.values()) reject(new Error('QMP connection closed'));
      this.waiting.clear();
    });
  }

  static async open(path: string, timeoutMs = 20_000): Promise<Qmp> {
    const socket = await until(async () => await tryConnect(path), timeoutMs, `QMP socket ${path}`);
    const qmp = new Qmp(socket);
    await qmp.execute('qmp_capabilities');
    return qmp;
  }

  /** The reply's value; a refusal by QEMU is a QmpRefusal. `T` is the caller's reading of the QAPI schema. */
  async execute<T = unknown>(
    command: string,
    args: Arguments = {},
    timeoutMs = 60_000,
  ): Promise<T> {
    const id = ++this.lastId;
    let timer: NodeJS.Timeout | undefined;
    const reply = await new Promise<Reply>((resolve, reject) => {
      if (this.socket.destroyed) throw new Error(`${command}: QMP connection closed`);
      this.waiting.set(id, { resolve, reject });
      timer = setTimeout(
        () => reject(new Error(`${command}: no reply within ${timeoutMs} ms`)),
        timeoutMs,
      );
      this.socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    }).finally(() => {
      clearTimeout(timer);
      this.waiting.delete(id);
    });
    if (reply.error !== undefined) throw new QmpRefusal(command, reply.error);
    return reply.return as T;
  }

  /** A place in the events to wait from: take it before the command that causes them. */
  mark(): number {
    return this.events.length;
  }

  async waitEvent(
    name: string,
    match: Arguments = {},
    since = 0,
    timeoutMs = 60_000,
  ): Promise<QmpEvent> {
    const fits = (one: QmpEvent): boolean =>
      one.event === name && Object.entries(match).every(([key, value]) => one.data[key] === value);
    return await until(
      () => this.events.slice(since).find(fits) ?? null,
      timeoutMs,
      `event ${name} ${JSON.stringify(match)}`,
      2,
    );
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }

  private take(text: string): void {
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop() ?? '';
    for (const line of lines) this.note(JSON.parse(line) as Reply); // QEMU's own words, in a test
  }

  private note(message: Reply): void {
    if (message.event !== undefined) {
      this.events.push({ event: message.event, data: message.data ?? {}, atMs: performance.now() });
    } else if (message.id !== undefined) {
      this.waiting.get(message.id)?.resolve(message);
    }
  }
}

async function tryConnect(path: string): Promise<Socket | null> {
  const socket = connect(path);
  return await new Promise((resolve) => {
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(null));
  });
}
