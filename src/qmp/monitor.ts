// A client for one QEMU's QMP socket (also qemu-storage-daemon's): typed commands, checked against what this
// very QEMU accepts, each with a deadline; events as streams that begin when you ask for them.
//
//   await using monitor = await connect({ path: '/run/vm1/qmp.sock' });
//   using stopped = monitor.events('STOP');
//   await monitor.execute('stop', {});
//   await stopped.next();
//
// What holds:
//  - a monitor serves one client. While another holds it, connect fails with a BusyError: "monitor busy";
//  - arguments are checked before they are sent, so a RequestError means that nothing happened;
//  - a CommandError of class NoAnswer or Gone means that the outcome is unknown: ask before you repeat;
//  - when the socket ends, every command under way and every stream ends with a QemuError of class Gone,
//    and `closed` tells why. Jobs in QEMU go on. Events are not replayed to the next client;
//  - 64-bit members (sizes, offsets, counters) are bigint in both directions, see qapi/json.ts.

import { cachedSchema, type SchemaCache } from '../qapi/cache.js';
import { isObject, type JsonObject, type JsonValue } from '../qapi/json.js';
import type { VersionInfo } from '../qapi/replies.js';
import { allowsOob, checkArguments, parseSchema, type Schema } from '../qapi/schema.js';
import type { AnyEvent, ArgsOf, CommandName, EventName, EventOf, ReplyOf } from '../qapi/types.js';
import { within } from '../std/deadline.js';
import { BusyError, messageOf, QemuError, RequestError } from '../std/errors.js';
import type { Stream } from '../std/queue.js';
import { gone } from './error.js';
import { Session, type CloseReason } from './session.js';

export type { JobInfo, JobStatus, VersionInfo } from '../qapi/replies.js';
export type { SchemaCache } from '../qapi/cache.js';
export type { Schema } from '../qapi/schema.js';
export type { AnyEvent, ArgsOf, CommandName, EventName, EventOf, ReplyOf } from '../qapi/types.js';
export { CommandError } from './error.js';
export { hasCommand, hasMember, hasValue } from '../qapi/schema.js';
export { firstEvent, queryJobs, waitJob, waitJobs, type Job } from './jobs.js';
export type { CloseReason } from './session.js';

export interface ExecuteOptions {
  /** Default: the connection's `commandTimeoutMs`. */
  readonly timeoutMs?: number;
  /** Gives up waiting; a command that was sent may still happen. */
  readonly signal?: AbortSignal;
  /** Past commands that hang in QEMU's main loop. Only for commands that allow it (`yank`), and where `oob` is true. */
  readonly oob?: boolean;
}

export interface Monitor extends AsyncDisposable {
  /** What this QEMU accepts: `hasCommand(monitor.schema, 'block-job-change')`. */
  readonly schema: Schema;
  readonly version: VersionInfo;
  /** Whether out-of-band commands were offered and taken. */
  readonly oob: boolean;
  /** Resolves, never rejects, when the connection has ended. */
  readonly closed: Promise<CloseReason>;

  /**
   * Executes a command and waits for QEMU's answer, not for the end of a job that it starts.
   *
   * @throws {RequestError} this QEMU does not take the command or its arguments; not sent.
   * @throws {CommandError} QEMU refused it, or did not answer.
   * @throws {BusyError} it was not sent: too many commands before it have no answer yet.
   */
  execute<C extends CommandName>(
    command: C,
    args: ArgsOf<C>,
    options?: ExecuteOptions,
  ): Promise<ReplyOf<C>>;

  /** Any command, its arguments unchecked: for pass-through and for commands without a type here. */
  executeRaw(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<JsonValue>;

  /** Events of these names, from this call on: ask before you execute what causes them. */
  events<E extends EventName>(names: E | readonly E[]): Stream<EventOf<E>>;

  /** Every event, of whatever name, until disposed. */
  onEvent(listener: (event: AnyEvent) => void): Disposable;
}

export interface ConnectOptions {
  /** The UNIX socket of `-qmp unix:PATH,server=on,wait=off`. */
  readonly path: string;
  /** Default 2000. QEMU greets a client only when no other one is there. */
  readonly greetingTimeoutMs?: number;
  /** Default 30000. */
  readonly commandTimeoutMs?: number;
  /** Known already, e.g. from another connection to the same process. Default: asked for at connect. */
  readonly schema?: Schema;
  /** Where schemas are kept between connections. */
  readonly schemaCache?: SchemaCache;
  /** Default 16 MiB: a longer line ends the connection. */
  readonly maxLineBytes?: number;
  /** Ends an attempt to connect. Has no effect afterwards. */
  readonly signal?: AbortSignal;
  /** Told of answers that nobody waits for. Default: dropped. */
  readonly log?: (message: string) => void;
}

/**
 * Connects, greets, and learns what this QEMU accepts.
 *
 * On failure nothing stays open.
 *
 * @throws {BusyError} no greeting in time: another client holds the monitor, or QEMU hangs.
 * @throws {QemuError} class Gone: nobody listens at `path`, or the connection ended.
 */
export async function connect(options: ConnectOptions): Promise<Monitor> {
  options.signal?.throwIfAborted();
  const session = await openSession(options);
  const onAbort = (): void => void session.close();
  options.signal?.addEventListener('abort', onAbort);
  try {
    return await handshake(session, options);
  } catch (error) {
    await session.close();
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
  }
}

async function openSession(options: ConnectOptions): Promise<Session> {
  const { path, maxLineBytes = 16 * 1024 * 1024, log = () => undefined } = options;
  try {
    return await Session.open({ path, maxLineBytes, log });
  } catch (cause) {
    if (isObject(cause) && cause['code'] === 'EAGAIN')
      throw new BusyError(`qmp connect ${path}: monitor busy: too many clients wait for it`, {
        cause,
      });
    throw gone(`qmp connect ${path}: no QEMU listens there: ${messageOf(cause)}`, cause);
  }
}

const NEGOTIATE_TIMEOUT_MS = 3000;

async function handshake(session: Session, options: ConnectOptions): Promise<Monitor> {
  const { path, greetingTimeoutMs = 2000, commandTimeoutMs = 30_000 } = options;
  const limits = { timeoutMs: commandTimeoutMs, signal: null, oob: false };
  const greeting = await within(
    session.greeting,
    greetingTimeoutMs,
    `qmp connect ${path}: monitor busy: another client holds it, or QEMU hangs`,
  );
  const { version, oob } = readGreeting(path, greeting);

  // Met while it starts, QEMU 7.2 may greet and then block in accept(2) until somebody else connects: its main loop and
  // its monitor thread both watch the socket for a moment. Whoever tries again frees it, so this must not take long.
  const soon = { ...limits, timeoutMs: Math.min(commandTimeoutMs, NEGOTIATE_TIMEOUT_MS) };
  await session.call('qmp_capabilities', oob ? { enable: ['oob'] } : {}, soon);
  const ask = async (): Promise<JsonValue> => await session.call('query-qmp-schema', {}, limits);
  const schema = await schemaFor(options, versionText(version), ask);
  return monitorOn(session, { schema, version, oob, commandTimeoutMs });
}

async function schemaFor(
  options: ConnectOptions,
  version: string,
  ask: () => Promise<JsonValue>,
): Promise<Schema> {
  if (options.schema !== undefined) return options.schema;
  if (options.schemaCache !== undefined)
    return await cachedSchema(options.schemaCache, version, ask);
  return parseSchema(await ask());
}

interface Facts {
  readonly schema: Schema;
  readonly version: VersionInfo;
  readonly oob: boolean;
  readonly commandTimeoutMs: number;
}

function monitorOn(session: Session, facts: Facts): Monitor {
  const send = async (
    command: string,
    args: JsonObject,
    options: ExecuteOptions,
  ): Promise<JsonValue> => {
    const { timeoutMs = facts.commandTimeoutMs, signal = null, oob = false } = options;
    if (oob && !(facts.oob && allowsOob(facts.schema, command)))
      throw new RequestError(
        'OPERATION_UNSUPPORTED',
        `qmp ${command}: this QEMU does not take it out of band; not sent`,
      );
    return await session.call(command, args, { timeoutMs, signal, oob });
  };

  return {
    schema: facts.schema,
    version: facts.version,
    oob: facts.oob,
    closed: session.closed,
    execute: async <C extends CommandName>(
      command: C,
      args: ArgsOf<C>,
      options: ExecuteOptions = {},
    ) => {
      checkArguments(facts.schema, command, args);
      // The two casts are what `types.ts` declares: typed arguments are JSON, and QEMU's reply is of its type.
      const reply = await send(command, args as JsonObject, options);
      return reply as ReplyOf<C>;
    },
    executeRaw: async (command, args = {}, options = {}) => await send(command, args, options),
    events: (names) => session.hub.events(names),
    onEvent: (listener) => session.hub.onEvent(listener),
    [Symbol.asyncDispose]: async () => await session.close(),
  };
}

function readGreeting(path: string, greeting: JsonObject): { version: VersionInfo; oob: boolean } {
  const version = isObject(greeting['version']) ? greeting['version'] : {};
  const qemu = version['qemu'];
  if (!isObject(qemu)) throw new QemuError(`qmp connect ${path}: the greeting names no version`);
  const offered = greeting['capabilities'];
  return {
    version: {
      qemu: {
        major: Number(qemu['major']),
        minor: Number(qemu['minor']),
        micro: Number(qemu['micro']),
      },
      package: String(version['package'] ?? ''),
    },
    oob: Array.isArray(offered) && offered.includes('oob'),
  };
}

const versionText = ({ qemu, package: pack }: VersionInfo): string =>
  `${qemu.major}.${qemu.minor}.${qemu.micro} ${pack}`;
