import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { parseJson } from '../qapi/json.js';
import { parseSchema, type Schema } from '../qapi/schema.js';
import { BusyError, QemuError, RequestError } from '../std/errors.js';
import { Stream } from '../std/queue.js';
import { CommandError, connect, firstEvent, type ConnectOptions, type Monitor } from './monitor.js';

test('a greeting that does not come in time means that the monitor is busy', async () => {
  await using qemu = await script();
  const attempt = connect({ path: qemu.path, greetingTimeoutMs: 30, schema });
  await assert.rejects(attempt, (error: unknown) => {
    assert.ok(error instanceof BusyError);
    assert.match(error.message, /monitor busy: another client holds it/);
    return true;
  });
  await (
    await qemu.client()
  ).ended;
});

test('nobody at the path is an error of class Gone that names the path', async () => {
  const attempt = connect({ path: '/no/such/qmp.sock', schema });
  await assert.rejects(attempt, {
    name: 'QemuError',
    qmpClass: 'Gone',
    message: /\/no\/such\/qmp/,
  });
});

test('an aborted attempt to connect leaves no socket open', async () => {
  await using qemu = await script();
  const abort = new AbortController();
  const attempt = connect({ path: qemu.path, schema, signal: abort.signal });
  const client = await qemu.client();
  abort.abort(new Error('changed my mind'));
  await assert.rejects(attempt, /changed my mind/);
  await client.ended;
});

test('oob is enabled when it is offered, and only then', async () => {
  for (const offered of [true, false]) {
    await using qemu = await script();
    const { monitor, handshake } = await open(qemu, offered ? ['oob'] : []);
    assert.equal(monitor.oob, offered);
    assert.deepEqual(handshake['arguments'], offered ? { enable: ['oob'] } : {});
    await monitor[Symbol.asyncDispose]();
  }
});

test('the schema is asked for when none is given', async () => {
  await using qemu = await script();
  const connecting = connect({ path: qemu.path });
  const client = await qemu.client();
  client.send(greeting([]));
  client.answer(await client.next(), {});
  const asked = await client.next();
  assert.equal(asked['execute'], 'query-qmp-schema');
  client.sendText(`{"id": ${JSON.stringify(asked['id'])}, "return": ${recording}}\n`);
  await using monitor = await connecting;
  assert.equal(monitor.version.qemu.major, 7);
});

test('answers out of order reach the commands that they belong to', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  const first = monitor.execute('query-kvm', {});
  const second = monitor.execute('query-target', {});
  const [one, two] = [await client.next(), await client.next()];
  client.answer(two, { arch: 'x86_64' });
  assert.deepEqual(await second, { arch: 'x86_64' });
  client.answer(one, { enabled: false, present: true });
  assert.deepEqual(await first, { enabled: false, present: true });
});

test('64-bit integers keep every digit in both directions', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  const size = 2n ** 62n + 1n;
  const added = monitor.execute('blockdev-add', { driver: 'null-co', 'node-name': 'n', size });
  assert.match(await client.nextText(), /"size":4611686018427387905[,}]/);
  client.answer(client.last, {});
  await added;

  const jobs = monitor.execute('query-jobs', {});
  const job =
    '{"id":"j","type":"mirror","status":"ready","current-progress":9007199254740993,"total-progress":0}';
  client.sendText(`{"return":[${job}],"id":${JSON.stringify((await client.next())['id'])}}\r\n`);
  const [info] = await jobs;
  assert.equal(info?.['current-progress'], 9007199254740993n);
  assert.equal(info['total-progress'], 0n);
});

test('an event before the answer is kept for whoever subscribed before asking', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  using ready = monitor.events(['STOP', 'RESUME']);
  const stopped = monitor.execute('stop', {});
  const asked = await client.next();
  client.event('RESET', { guest: true, reason: 'guest-reset' });
  client.event('STOP', {});
  client.answer(asked, {});
  await stopped;
  const event = await firstEvent(ready, () => true, 1000);
  assert.equal(event.event, 'STOP');
  assert.deepEqual(event.timestamp, { seconds: 5, microseconds: 6 });
});

test('a listener hears of every event, of unknown names too, until it is disposed', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  const heard = new Stream<string>();
  const listening = monitor.onEvent((event) => heard.push(event.event));
  client.event('FROM_THE_FUTURE', {});
  assert.equal((await heard.next()).value, 'FROM_THE_FUTURE');
  listening[Symbol.dispose]();
  client.event('STOP', {});
  await roundTrip(monitor, client);
  assert.equal(heard.length, 0);
});

test('a refusal carries command, arguments, class and QEMU’s words', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  const deleted = monitor.execute('blockdev-del', { 'node-name': 'n' });
  const reply = { class: 'GenericError', desc: 'Node n is in use' };
  client.send({ id: (await client.next())['id'], error: reply });
  await assert.rejects(deleted, (error: unknown) => {
    assert.ok(error instanceof CommandError && error instanceof QemuError);
    assert.equal(error.message, 'qmp blockdev-del: Node n is in use');
    assert.deepEqual(
      [error.command, error.arguments, error.qmpClass, error.reply],
      ['blockdev-del', { 'node-name': 'n' }, 'GenericError', reply],
    );
    return true;
  });
});

test('a secret is not in the error of the command that was to add it', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  const added = monitor.execute('object-add', { 'qom-type': 'secret', id: 's', data: 'hunter2' });
  client.send({ id: (await client.next())['id'], error: { class: 'GenericError', desc: 'no' } });
  await assert.rejects(added, (error: unknown) => {
    assert.ok(error instanceof CommandError);
    assert.deepEqual(error.arguments, { 'qom-type': 'secret', id: 's', data: '(hidden)' });
    return true;
  });
});

test('arguments that this QEMU does not take are not sent; executeRaw sends them', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  const changed = monitor.execute('block-job-change', {
    id: 'j',
    type: 'mirror',
    'copy-mode': 'background',
  });
  await assert.rejects(changed, (error: unknown) => error instanceof RequestError);
  const raw = monitor.executeRaw('no-such', { x: 1 });
  const asked = await client.next();
  assert.equal(asked['execute'], 'no-such');
  client.answer(asked, [1]);
  assert.deepEqual(await raw, [1]);
});

test('no answer in time says that the outcome is unknown, and the late answer is ignored', async () => {
  await using qemu = await script();
  const logged = new Stream<string>();
  const { monitor, client } = await open(qemu, [], { log: (message) => logged.push(message) });
  const stopped = monitor.execute('stop', {}, { timeoutMs: 20 });
  const asked = await client.next();
  await assert.rejects(stopped, {
    qmpClass: 'NoAnswer',
    message: /qmp stop: no answer within \d+ ms; the outcome is unknown/,
  });
  client.answer(asked, {});
  assert.match((await logged.next()).value ?? '', /late answer to stop/);
  await roundTrip(monitor, client);
});

test('an aborted command has an unknown outcome, one aborted before it was sent has none', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  const abort = new AbortController();
  const stopped = monitor.execute('stop', {}, { signal: abort.signal });
  await client.next();
  abort.abort(new Error('enough'));
  await assert.rejects(
    stopped,
    (error: unknown) =>
      error instanceof CommandError &&
      error.qmpClass === 'NoAnswer' &&
      String(error.cause) === 'Error: enough',
  );
  await assert.rejects(monitor.execute('cont', {}, { signal: abort.signal }), /enough/);
});

test('beyond six commands in flight the next waits unsent, and says so when its time is over', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu, ['oob']);
  const open6 = Array.from({ length: 6 }, async () => await monitor.execute('query-kvm', {}));
  const asked = [];
  for (const _ of open6) asked.push(await client.next());
  await assert.rejects(
    monitor.execute('stop', {}, { timeoutMs: 20 }),
    (error: unknown) => error instanceof BusyError && /not sent/.test(error.message),
  );

  const yanked = monitor.execute('yank', { instances: [] }, { oob: true });
  const past = await client.next();
  assert.equal(past['exec-oob'], 'yank', 'an out-of-band command passes the queue');
  client.answer(past, {});
  await yanked;
  for (const one of asked) client.answer(one, { enabled: false, present: true });
  await Promise.all(open6);
  await roundTrip(monitor, client);
});

test('a command that is not for out of band is refused before it is sent', async () => {
  await using qemu = await script();
  const { monitor } = await open(qemu, ['oob']);
  await assert.rejects(monitor.execute('stop', {}, { oob: true }), RequestError);
});

test('when QEMU dies, commands, streams and later commands end with class Gone', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  using events = monitor.events('STOP');
  const waiting = events.next();
  const stopped = monitor.execute('stop', {});
  await client.next();
  client.die();
  await assert.rejects(stopped, { qmpClass: 'Gone', message: /its outcome is unknown/ });
  await assert.rejects(waiting, { qmpClass: 'Gone' });
  await assert.rejects(monitor.execute('cont', {}), { qmpClass: 'Gone', message: /not sent/ });
  assert.equal((await monitor.closed).by, 'qemu');
  using late = monitor.events('STOP');
  await assert.rejects(late.next(), { qmpClass: 'Gone' });
});

const breaches: readonly [name: string, text: string, message: RegExp][] = [
  ['a line beyond the limit', 'x'.repeat(2000), /a line of more than 1000 bytes/],
  [
    'a line beyond the limit that ends',
    `"${'x'.repeat(2000)}"\n`,
    /a line of more than 1000 bytes/,
  ],
  ['what is not JSON', 'hello\r\n', /not JSON/],
];

for (const [name, text, message] of breaches)
  test(`${name} ends the connection and says why`, async () => {
    await using qemu = await script();
    const { monitor, client } = await open(qemu, [], { maxLineBytes: 1000 });
    const asked = monitor.execute('query-kvm', {});
    await client.next();
    client.sendText(text);
    await assert.rejects(asked, { qmpClass: 'Gone', message });
    assert.equal((await monitor.closed).by, 'protocol');
    await client.ended;
  });

test('answers to nobody are logged and change nothing', async () => {
  await using qemu = await script();
  const logged = new Stream<string>();
  const { monitor, client } = await open(qemu, [], { log: (message) => logged.push(message) });
  for (const odd of [{ return: {}, id: 'ferry-99' }, { return: {}, id: 1 }, { error: {} }, [1]])
    client.send(odd);
  for (let n = 0; n < 4; n++) assert.match((await logged.next()).value ?? '', /ignored/);
  await roundTrip(monitor, client);
});

test('a line cut anywhere, in the midst of a character too, is put together again', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  const asked = monitor.execute('human-monitor-command', { 'command-line': 'info' });
  const bytes = Buffer.from(JSON.stringify({ return: 'größe €', id: (await client.next())['id'] }));
  for (const byte of bytes) client.sendText(Buffer.from([byte]));
  client.sendText('\r\n\r\n');
  assert.equal(await asked, 'größe €');
});

test('disposing ends the socket and what is under way, and a new client can connect', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  const asked = monitor.execute('query-kvm', {});
  await client.next();
  await Promise.all([assert.rejects(asked, { qmpClass: 'Gone' }), monitor[Symbol.asyncDispose]()]);
  assert.equal((await monitor.closed).by, 'us');
  await client.ended;
  const again = await open(qemu);
  await roundTrip(again.monitor, again.client);
});

test('a reader that never reads is cut off, not fed for ever', async () => {
  await using qemu = await script();
  const { monitor, client } = await open(qemu);
  using events = monitor.events('BLOCK_JOB_ERROR');
  const text = JSON.stringify({ event: 'BLOCK_JOB_ERROR', data: {}, timestamp: {} });
  client.sendText(`${text}\n`.repeat(10_100));
  await roundTrip(monitor, client);
  assert.equal(events.length, 10_000);
});

/** A QEMU that says what the test says. */
interface Script extends AsyncDisposable {
  readonly path: string;
  /** The next client that connects. */
  client(): Promise<Client>;
}

type Message = Readonly<Record<string, unknown>>;

class Client {
  readonly ended: Promise<void>;
  last: Message = {};
  private readonly socket: Socket;
  private readonly lines = new Stream<string>();

  constructor(socket: Socket) {
    this.socket = socket;
    this.ended = new Promise((resolve) => socket.on('close', () => resolve()));
    let rest = '';
    socket.setEncoding('utf8');
    socket.on('error', () => undefined);
    socket.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.lines.push(line);
    });
  }

  async nextText(): Promise<string> {
    const line = String((await this.lines.next()).value);
    this.last = JSON.parse(line) as Message; // whatever it is, the test looks at its members
    return line;
  }

  async next(): Promise<Message> {
    await this.nextText();
    return this.last;
  }

  send(message: unknown): void {
    this.sendText(`${JSON.stringify(message)}\r\n`);
  }

  sendText(text: string | Buffer): void {
    this.socket.write(text);
  }

  answer(command: Message, reply: unknown): void {
    this.send({ return: reply, id: command['id'] });
  }

  event(event: string, data: unknown): void {
    this.send({ timestamp: { seconds: 5, microseconds: 6 }, event, data });
  }

  die(): void {
    this.socket.destroy();
  }
}

async function script(): Promise<Script> {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-qmp-'));
  const path = join(directory, 'qmp.sock');
  const clients = new Stream<Client>();
  const sockets: Socket[] = [];
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    clients.push(new Client(socket));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    path,
    client: async () => {
      const { value } = await clients.next();
      assert.ok(value instanceof Client);
      return value;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      await rm(directory, { recursive: true });
    },
  };
}

/** Connects and plays the handshake. */
async function open(
  qemu: Script,
  capabilities: readonly string[] = [],
  options: Partial<ConnectOptions> = {},
): Promise<{ monitor: Monitor; client: Client; handshake: Message }> {
  const connecting = connect({ path: qemu.path, schema, ...options });
  const client = await qemu.client();
  client.send(greeting(capabilities));
  const handshake = await client.next();
  client.answer(handshake, {});
  return { monitor: await connecting, client, handshake };
}

/** After it, everything that was sent before has been read. */
async function roundTrip(monitor: Monitor, client: Client): Promise<void> {
  const asked = monitor.execute('query-target', {});
  client.answer(await client.next(), { arch: 'x86_64' });
  await asked;
}

const greeting = (capabilities: readonly string[]): Message => ({
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: 'scripted' }, capabilities },
});

const recording = readFileSync(
  fileURLToPath(new URL('../../../test/fixtures/qmp-schema/7.2.22.json', import.meta.url)),
  'utf8',
).replaceAll('\n', ' ');
const schema: Schema = parseSchema(parseJson(recording));
