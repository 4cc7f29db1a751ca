// A QEMU in memory, with QEMU's manners: it speaks through the same Monitor, refuses what QEMU refuses in QEMU's
// words, changes its graph and runs its jobs as QEMU does, and dies when told. Impolite use is recorded in
// `storage.rudeness`, because whoever tests with it also catches errors.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import type { BlockdevOptions } from '../../src/qapi/blockdev.js';
import { isObject, parseJson, type JsonObject, type JsonValue } from '../../src/qapi/json.js';
import type { RunState } from '../../src/qapi/replies.js';
import {
  checkArguments,
  parseSchema,
  problemWithArguments,
  problemWithReply,
  type Schema,
} from '../../src/qapi/schema.js';
import type { ArgsOf, CommandName, ReplyOf } from '../../src/qapi/types.js';
import { CommandError, gone } from '../../src/qmp/error.js';
import { EventHub } from '../../src/qmp/hub.js';
import type { CloseReason, ExecuteOptions, Monitor } from '../../src/qmp/monitor.js';
import { BusyError } from '../../src/std/errors.js';
import { handle, hangs } from './commands.js';
import { Refusal } from './graph.js';
import type { FakeGuest } from './guest.js';
import type { Health } from './job.js';
import { Machine } from './machine.js';
import type { FakeStorage, Survival } from './storage.js';

export interface FakeQemuOptions {
  readonly storage: FakeStorage;
  /** What the command line's -blockdev options name, in their order. */
  readonly blockdevs: readonly BlockdevOptions[];
  /** Device (qdev, as `query-block` shows it) to the node that it has. */
  readonly disks: Readonly<Record<string, string>>;
  /** Its disks are named as the devices are. */
  readonly guest?: FakeGuest;
  /** 'prelaunch' is what -S gives. Default 'running'. */
  readonly state?: RunState;
  readonly version?: '7.2.22' | '10.0.2';
  readonly unitsPerTick?: number;
  /** Guest writes before and after each command; default 1. */
  readonly writesPerCommand?: number;
  /** Called around each command: throw in here, or kill, to have a fault at that very place. */
  readonly strike?: (phase: 'before' | 'after', command: string) => void;
}

let processes = 0;

export class FakeQemu {
  readonly storage: FakeStorage;
  readonly machine: Machine;
  private readonly options: FakeQemuOptions;
  private readonly clients = new Set<Client>();
  private readonly hanging = new Set<{ heal: () => void; die: () => void }>();

  /** Starts the process; refuses as QEMU's command line would. */
  constructor(options: FakeQemuOptions) {
    this.options = options;
    this.storage = options.storage;
    this.machine = new Machine({
      name: `qemu-${++processes}`,
      storage: options.storage,
      schema: recordedSchema(options.version ?? '7.2.22'),
      guest: options.guest ?? null,
      state: options.state ?? 'running',
      unitsPerTick: options.unitsPerTick ?? 4,
    });
    for (const blockdev of options.blockdevs) this.machine.graph.add(blockdev);
    for (const [device, node] of Object.entries(options.disks))
      this.machine.graph.roots.set(device, this.machine.graph.find(node));
  }

  get alive(): boolean {
    return this.machine.alive;
  }

  /** The name of the node that a device looks at. */
  rootOf(device: string): string | null {
    return this.machine.graph.roots.get(device)?.name ?? null;
  }

  /** Jobs and nodes that exist now: what a finished operation must have cleaned up. */
  leftovers(): { readonly jobs: readonly string[]; readonly nodes: readonly string[] } {
    const nodes = [...this.machine.graph.nodes.values()].filter((node) => node.parent === null);
    return { jobs: [...this.machine.jobs.keys()], nodes: nodes.map((node) => node.name) };
  }

  /** A monitor on this process, one at a time as with QEMU. Events are not replayed to it. */
  async connect(): Promise<Monitor> {
    if (!this.alive) throw gone('qmp connect: no QEMU listens there');
    if (this.clients.size > 0)
      throw new BusyError('qmp connect: monitor busy: another client holds it');
    const client = new Client(this, this.machine.options.schema);
    this.clients.add(client);
    const { events } = this.machine;
    const tell: (typeof events)[number] = (event) => client.hub.emit(event);
    events.push(tell);
    client.onEnd = () => {
      this.clients.delete(client);
      if (events.includes(tell)) events.splice(events.indexOf(tell), 1);
    };
    return client;
  }

  /** One command as it comes over the wire: refusals are thrown as CommandError. */
  async perform(command: string, args: JsonObject): Promise<JsonValue> {
    if (!this.alive) throw this.lost(command, args);
    this.strike('before', command, args);
    for (let n = 0; n < (this.options.writesPerCommand ?? 1); n++) this.machine.guestStep();
    let reply: unknown;
    try {
      reply = this.dispatch(command, args);
    } catch (error) {
      if (error instanceof Refusal) throw refused(command, args, error);
      throw error;
    } finally {
      this.machine.pump();
    }

    for (let n = 0; n < (this.options.writesPerCommand ?? 1); n++) this.machine.guestStep();
    this.strike('after', command, args);
    if (reply === hangs) await this.hang(command, args);
    const answer = reply === hangs ? {} : reply;
    const wrong = problemWithReply(this.machine.options.schema, command, answer);
    if (wrong !== null) throw new Error(`the fake's reply to ${command} is not QEMU's: ${wrong}`);
    if (command === 'quit') this.exit();
    // Checked against the schema just above, so it is JSON.
    return answer as JsonValue;
  }

  /** kill -9: unflushed writes of every image that it had open are lost as `survival` says; the guest too. */
  kill(survival: Survival = 'half'): void {
    if (!this.alive) return;
    this.machine.alive = false;
    this.storage.processDied(this.machine.options.name, survival);
    this.end('QEMU was killed');
  }

  /** The guest switches itself off. */
  guestPowersOff(): void {
    this.machine.emit('SHUTDOWN', { guest: true, reason: 'guest-shutdown' });
    if (this.machine.onShutdown === 'poweroff') return this.exit();
    this.machine.runState = 'shutdown';
    this.machine.emit('STOP');
  }

  /** How the storage under a path behaves towards jobs from now on. */
  setHealth(path: string, health: Health): void {
    this.machine.health.set(path, health);
    if (health === 'hung') return;
    for (const job of this.machine.jobs.values()) {
      if (job.cancelLater !== null && !job.isOver) job.cancel(job.cancelLater);
      job.cancelLater = null;
    }
    for (const one of [...this.hanging]) one.heal();
    this.machine.pump();
  }

  /** Jobs of this id copy nothing until released. */
  hold(id: string): void {
    this.machine.held.add(id);
  }

  release(id: string): void {
    this.machine.held.delete(id);
    this.machine.pump();
  }

  private dispatch(command: string, args: JsonObject): unknown {
    const schema = this.machine.options.schema;
    const wrong = problemWithArguments(schema, command, args);
    if (wrong !== null)
      throw new Refusal(
        wrong,
        wrong.endsWith('has not been found') ? 'CommandNotFound' : undefined,
      );
    if (command === 'query-qmp-schema') return [...schema.entities.values()];
    if (command === 'quit') return {};
    return handle(this.machine, command, args);
  }

  /** An end in order: jobs are cancelled and everything is flushed. */
  private exit(): void {
    this.machine.emit('SHUTDOWN', { guest: false, reason: 'host-qmp-quit' });
    for (const job of this.machine.jobs.values())
      if (!job.isOver) job.abort('Operation canceled', 'BLOCK_JOB_CANCELLED');
    this.machine.flushAll();
    this.machine.alive = false;
    this.storage.processDied(this.machine.options.name, 'all');
    this.end('QEMU ended');
  }

  private end(why: string): void {
    for (const one of [...this.hanging]) one.die();
    for (const client of [...this.clients]) client.end({ by: 'qemu', message: why });
    this.machine.events.length = 0;
  }

  private async hang(command: string, args: JsonObject): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const one = {
        heal: () => (this.hanging.delete(one), resolve()),
        die: () => (this.hanging.delete(one), reject(this.lost(command, args))),
      };
      this.hanging.add(one);
    });
  }

  private strike(phase: 'before' | 'after', command: string, args: JsonObject): void {
    this.options.strike?.(phase, command);
    if (!this.alive) throw this.lost(command, args);
  }

  private lost(command: string, args: JsonObject): CommandError {
    const message = 'the connection ended (QEMU is gone); its outcome is unknown';
    return new CommandError(command, args, { qmpClass: 'Gone', message });
  }
}

/** The same interface as the real client, without a socket between. */
class Client implements Monitor {
  readonly hub = new EventHub();
  readonly schema: Schema;
  readonly version: Monitor['version'];
  readonly oob = true;
  readonly closed: Promise<CloseReason>;
  onEnd: () => void = () => undefined;
  private tellClosed: (reason: CloseReason) => void = () => undefined;
  private ended: CloseReason | null = null;
  private readonly qemu: FakeQemu;

  constructor(qemu: FakeQemu, schema: Schema) {
    this.qemu = qemu;
    this.schema = schema;
    this.version = qemu.machine.version;
    this.closed = new Promise((resolve) => (this.tellClosed = resolve));
  }

  async execute<C extends CommandName>(
    command: C,
    args: ArgsOf<C>,
    options: ExecuteOptions = {},
  ): Promise<ReplyOf<C>> {
    checkArguments(this.schema, command, args);
    // As in the real monitor: arguments are JSON, and the reply is of the command's type.
    return (await this.executeRaw(command, args as JsonObject, options)) as ReplyOf<C>;
  }

  async executeRaw(
    command: string,
    args: JsonObject = {},
    options: ExecuteOptions = {},
  ): Promise<JsonValue> {
    options.signal?.throwIfAborted();
    if (this.ended !== null) {
      const message = `the connection ended (${this.ended.message}); not sent`;
      throw new CommandError(command, args, { qmpClass: 'Gone', message });
    }
    return await answerIn(this.qemu.perform(command, args), command, args, options);
  }

  events: Monitor['events'] = (names) => this.hub.events(names);
  onEvent: Monitor['onEvent'] = (listener) => this.hub.onEvent(listener);

  end(reason: CloseReason): void {
    if (this.ended !== null) return;
    this.ended = reason;
    this.onEnd();
    this.hub.end(gone(`qmp: the connection ended: ${reason.message}`));
    this.tellClosed(reason);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.end({ by: 'us', message: 'closed by us' });
    await this.closed;
  }
}

async function answerIn(
  answer: Promise<JsonValue>,
  command: string,
  args: JsonObject,
  { timeoutMs = 30_000, signal }: ExecuteOptions,
): Promise<JsonValue> {
  let timer: NodeJS.Timeout | undefined;
  const noAnswer = (message: string): CommandError =>
    new CommandError(command, args, { qmpClass: 'NoAnswer', message });
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(noAnswer(`no answer within ${timeoutMs} ms`)), timeoutMs);
    signal?.addEventListener('abort', () => reject(noAnswer('given up')), { once: true });
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

function refused(command: string, args: JsonObject, { qmpClass, message }: Refusal): CommandError {
  const reply = { class: qmpClass, desc: message };
  return new CommandError(command, args, { qmpClass, message, reply });
}

const schemas = new Map<string, Schema>();

/** A recorded `query-qmp-schema` reply, by QEMU version. */
export function recordedSchema(version: '7.2.22' | '10.0.2'): Schema {
  const known = schemas.get(version);
  if (known !== undefined) return known;
  const url = new URL(`../../../test/fixtures/qmp-schema/${version}.json`, import.meta.url);
  const reply = parseJson(readFileSync(fileURLToPath(url), 'utf8'));
  const schema = parseSchema(isObject(reply) ? reply['return'] : reply);
  schemas.set(version, schema);
  return schema;
}
