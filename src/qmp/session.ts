// The conversation on one QMP socket: which commands are under way, and who gets what came in.
//
//   execute ──► queued ──(fewer than `window` in flight)──► sent ──► answered
//                 │ deadline, abort: never happened           │ deadline, abort: outcome unknown
//                 ▼                                           ▼
//              not sent                                   abandoned ──(late answer: ignored)──►
//
// With `oob` QEMU stops reading its socket once 8 commands wait in its queue, and an out-of-band command
// behind them would not be read either. So at most `window` commands are in flight, abandoned ones included.

import {
  isObject,
  parseJson,
  stringifyJson,
  type JsonObject,
  type JsonValue,
} from '../qapi/json.js';
import type { AnyEvent } from '../qapi/types.js';
import { BusyError, QemuError, messageOf } from '../std/errors.js';
import { CommandError, gone, refusal } from './error.js';
import { EventHub } from './hub.js';
import { LineTooLongError, openWire, type Wire } from './wire.js';

const window = 6;

/** Why a connection ended: `us` disposed it, `qemu` closed it or died, or it broke the `protocol`. */
export interface CloseReason {
  readonly by: 'us' | 'qemu' | 'protocol';
  readonly message: string;
}

export interface SessionOptions {
  readonly path: string;
  readonly maxLineBytes: number;
  readonly log: (message: string) => void;
}

interface Call {
  readonly id: string;
  readonly command: string;
  readonly args: JsonValue;
  readonly oob: boolean;
  state: 'queued' | 'sent' | 'abandoned';
  readonly settle: (outcome: { readonly value: JsonValue } | { readonly error: unknown }) => void;
}

/** One socket from its connection to its end. Knows commands as text and JSON; types and schema are the monitor's. */
export class Session {
  readonly hub = new EventHub();
  readonly greeting: Promise<JsonObject>;
  readonly closed: Promise<CloseReason>;
  private readonly options: SessionOptions;
  private readonly calls = new Map<string, Call>();
  private readonly queue: Call[] = [];
  private inFlight = 0;
  private lastId = 0;
  private wire: Wire | null = null;
  private end: CloseReason | null = null;
  private greet!: { resolve: (greeting: JsonObject) => void; reject: (error: unknown) => void };
  private tellClosed!: (reason: CloseReason) => void;

  private constructor(options: SessionOptions) {
    this.options = options;
    // The two `!` above are set here: a promise runs its executor at once.
    this.greeting = new Promise((resolve, reject) => (this.greet = { resolve, reject }));
    this.greeting.catch(() => undefined);
    this.closed = new Promise((resolve) => (this.tellClosed = resolve));
  }

  static async open(options: SessionOptions): Promise<Session> {
    const session = new Session(options);
    session.wire = await openWire(options.path, options.maxLineBytes, {
      line: (text) => session.receive(text),
      closed: (cause) => session.finish(reasonOf(cause)),
    });
    return session;
  }

  /** Sends one command and waits for its answer; see CommandError for what an unknown outcome means. */
  async call(
    command: string,
    args: JsonValue,
    limits: {
      readonly timeoutMs: number;
      readonly signal: AbortSignal | null;
      readonly oob: boolean;
    },
  ): Promise<JsonValue> {
    limits.signal?.throwIfAborted();
    if (this.end !== null) throw this.lost(command, args, 'not sent');

    return await new Promise<JsonValue>((resolve, reject) => {
      const started = performance.now();
      const onAbort = (): void => this.abandon(call, 'given up', limits.signal?.reason);
      const onTimeout = (): void =>
        this.abandon(call, `no answer within ${Math.round(performance.now() - started)} ms`);
      const timer = setTimeout(onTimeout, limits.timeoutMs);
      limits.signal?.addEventListener('abort', onAbort);
      const call: Call = {
        id: `ferry-${++this.lastId}`,
        command,
        args,
        oob: limits.oob,
        state: 'queued',
        settle: (outcome) => {
          clearTimeout(timer);
          limits.signal?.removeEventListener('abort', onAbort);
          if ('error' in outcome) reject(outcome.error);
          else resolve(outcome.value);
        },
      };
      this.submit(call);
    });
  }

  /** Ends the connection from our side. QEMU and its jobs go on. */
  async close(): Promise<void> {
    this.finish({ by: 'us', message: 'closed by us' });
    await this.closed;
  }

  private submit(call: Call): void {
    this.calls.set(call.id, call);
    if (call.oob) this.transmit(call);
    else this.queue.push(call);
    this.pump();
  }

  private pump(): void {
    while (this.inFlight < window) {
      const next = this.queue.shift();
      if (next === undefined) return;
      this.inFlight++;
      this.transmit(next);
    }
  }

  private transmit(call: Call): void {
    call.state = 'sent';
    const verb = call.oob ? 'exec-oob' : 'execute';
    const line = { [verb]: call.command, arguments: call.args, id: call.id };
    this.wire?.send(stringifyJson(line));
  }

  private abandon(call: Call, why: string, cause?: unknown): void {
    if (call.state === 'queued') {
      this.queue.splice(this.queue.indexOf(call), 1);
      this.calls.delete(call.id);
      const message = `qmp ${call.command}: ${why}, and not sent: ${this.inFlight} commands before it have no answer yet; ask later`;
      call.settle({ error: new BusyError(message, { cause }) });
      return;
    }
    call.state = 'abandoned';
    const message = `${why}; the outcome is unknown, it may still happen: ask QEMU for its state before repeating`;
    call.settle({
      error: new CommandError(call.command, call.args, { qmpClass: 'NoAnswer', message, cause }),
    });
  }

  private receive(text: string): void {
    let message: JsonValue;
    try {
      message = parseJson(text);
    } catch (error) {
      this.finish({ by: 'protocol', message: `sent what is not JSON: ${messageOf(error)}` });
      return;
    }

    if (!isObject(message)) this.options.log('qmp: ignored a message that is not an object');
    else if (isObject(message['QMP'])) this.greet.resolve(message['QMP']);
    else if (typeof message['event'] === 'string')
      this.hub.emit(eventOf(message, message['event']));
    else this.answer(message);
  }

  private answer(message: JsonObject): void {
    const id = message['id'];
    const call = typeof id === 'string' ? this.calls.get(id) : undefined;
    if (call === undefined) {
      this.options.log(
        `qmp: ignored an answer to no command of ours, id ${stringifyJson(id ?? null)}`,
      );
      return;
    }

    this.calls.delete(call.id);
    if (!call.oob) this.inFlight--;
    const error = message['error'];
    if (call.state === 'abandoned')
      this.options.log(
        `qmp: late answer to ${call.command}: ${error === undefined ? 'done' : 'refused'}`,
      );
    else if (isObject(error)) call.settle({ error: refusal(call.command, call.args, error) });
    else call.settle({ value: message['return'] ?? {} });
    this.pump();
  }

  private finish(reason: CloseReason): void {
    if (this.end !== null) return;
    this.end = reason;
    this.wire?.destroy();

    const open = [...this.calls.values()];
    this.calls.clear();
    this.queue.length = 0;
    for (const call of open) {
      if (call.state === 'abandoned') continue;
      const outcome = call.state === 'sent' ? 'its outcome is unknown' : 'not sent';
      call.settle({ error: this.lost(call.command, call.args, outcome) });
    }
    const error = gone(`qmp ${this.options.path}: the connection ended: ${reason.message}`);
    this.greet.reject(error);
    this.hub.end(error);
    this.tellClosed(reason);
  }

  private lost(command: string, args: JsonValue, outcome: string): QemuError {
    const why = this.end?.message ?? 'closed';
    const message = `the connection to ${this.options.path} ended (${why}); ${outcome}`;
    return new CommandError(command, args, { qmpClass: 'Gone', message });
  }
}

function eventOf(message: JsonObject, event: string): AnyEvent {
  const data = message['data'];
  const at = isObject(message['timestamp']) ? message['timestamp'] : {};
  return {
    event,
    data: isObject(data) ? data : {},
    timestamp: {
      seconds: Number(at['seconds'] ?? 0),
      microseconds: Number(at['microseconds'] ?? 0),
    },
  };
}

function reasonOf(cause: Error | null): CloseReason {
  if (cause instanceof LineTooLongError)
    return { by: 'protocol', message: `sent ${cause.message}` };
  return { by: 'qemu', message: cause === null ? 'QEMU closed it or ended' : cause.message };
}
