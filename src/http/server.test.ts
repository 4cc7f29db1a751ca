// The HTTP door over a real unix socket, with a host in memory.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { link, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { test } from 'node:test';

import type { StreamedEvent } from '../host/ferry-host.js';
import {
  BusyError,
  FerryError,
  NeedsOperatorError,
  QemuError,
  StateError,
  SystemError,
} from '../std/errors.js';
import { ferryClient } from './client.js';
import type { FerryClient } from './client.js';
import type { ServeOptions } from './server.js';
import { serveHttp } from './server.js';
import type { MemoryHost } from './testing/memory-host.js';
import { aMove, move, moved, sampleHost } from './testing/samples.js';
import { RemoteError } from './wire.js';

interface Served {
  readonly host: MemoryHost;
  readonly client: FerryClient;
  readonly socketPath: string;
  readonly internalErrors: unknown[];
}

async function serve(t: TestContext, options: Partial<ServeOptions> = {}): Promise<Served> {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-http-'));
  const socketPath = join(directory, 'ferry.sock');
  const host = sampleHost();
  const internalErrors: unknown[] = [];
  const door = await serveHttp(host, {
    socketPath,
    mode: 0o600,
    onInternalError: (error) => internalErrors.push(error),
    ...options,
  });
  t.after(async () => {
    await door.close();
    await rm(directory, { recursive: true });
  });
  return { host, client: ferryClient(socketPath), socketPath, internalErrors };
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

async function raw(
  socketPath: string,
  method: string,
  path: string,
  body?: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const typed = body === undefined ? {} : { 'content-type': 'application/json' };
  const sent = request({
    socketPath,
    method,
    path,
    agent: false,
    headers: { ...typed, ...headers },
  });
  sent.end(body);
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += String(chunk);
  return { status: response.statusCode ?? 0, body: text };
}

const later = { paused: false, mirrorLater: true };
const forgotten = { snapshotsMetadata: true, nvram: 'keep' } as const;
const flags = { diskOnly: true, noMetadata: false, reuseExternal: true, atomic: false };

const aPace = { limitBytesPerSecond: 1n << 20n, isPaused: true };

for (const [name, call, want] of [
  ['version', (c) => c.version(), ['version']],
  ['listDomains', (c) => c.listDomains(), ['listDomains']],
  ['showDomain', (c) => c.showDomain('vm1'), ['showDomain', 'vm1']],
  ['define', (c) => c.define('<d/>'), ['define', '<d/>']],
  [
    'createXml',
    (c) => c.createXml('<d/>', { paused: true }),
    ['createXml', '<d/>', { paused: true }],
  ],
  ['start', (c) => c.start('vm1', later), ['start', 'vm1', later]],
  ['seal', (c) => c.seal('vm1', { timeoutSeconds: 5 }), ['seal', 'vm1', { timeoutSeconds: 5 }]],
  ['shutdown', (c) => c.shutdown('vm1'), ['shutdown', 'vm1']],
  ['destroy', (c) => c.destroy('vm1'), ['destroy', 'vm1']],
  ['undefine', (c) => c.undefine('vm1', forgotten), ['undefine', 'vm1', forgotten]],
  ['dumpXml', (c) => c.dumpXml('vm1', { inactive: true }), ['dumpXml', 'vm1', { inactive: true }]],
  ['chain', (c) => c.chain('vm1'), ['chain', 'vm1']],
  [
    'createSnapshot',
    (c) => c.createSnapshot('vm1', '<s/>', flags),
    ['createSnapshot', 'vm1', '<s/>', flags],
  ],
  ['listSnapshots', (c) => c.listSnapshots('vm1'), ['listSnapshots', 'vm1']],
  [
    'deleteSnapshot',
    (c) => c.deleteSnapshot('vm1', 's1', 'metadata'),
    ['deleteSnapshot', 'vm1', 's1', 'metadata'],
  ],
  [
    'blockJob by path',
    (c) => c.blockJob('vm1', '/src/vm 1.img'),
    ['blockJob', 'vm1', '/src/vm 1.img'],
  ],
  [
    'endBlockJob',
    (c) => c.endBlockJob('vm1', 'vda', 'pivot'),
    ['endBlockJob', 'vm1', 'vda', 'pivot'],
  ],
  ['startMove', (c) => c.startMove('vm1', aMove), ['startMove', 'vm1', aMove]],
  ['planMove', (c) => c.planMove('vm1', aMove), ['planMove', 'vm1', aMove]],
  ['plan', (c) => c.plan('0123abcd'), ['plan', '0123abcd']],
  ['applyPlan', (c) => c.applyPlan('0123abcd'), ['applyPlan', '0123abcd']],
  ['paceOperation', (c) => c.paceOperation(7, aPace), ['paceOperation', 7, aPace]],
  ['pivotOperation', (c) => c.pivotOperation(7), ['pivotOperation', 7]],
  ['rotateOperation', (c) => c.rotateOperation(7), ['rotateOperation', 7]],
  [
    'operations',
    (c) => c.operations({ domain: 'vm1', all: true }),
    ['operations', { domain: 'vm1', all: true }],
  ],
  ['cancelOperation', (c) => c.cancelOperation(7), ['cancelOperation', 7]],
  [
    'resolveOperation',
    (c) => c.resolveOperation(7, { direction: 'back', was: 'absent', by: 'ann' }),
    ['resolveOperation', 7, { direction: 'back', was: 'absent', by: 'ann' }],
  ],
  ['doctor', (c) => c.doctor('vm1'), ['doctor', 'vm1']],
  ['doctor of all', (c) => c.doctor(null), ['doctor', null]],
  ['gcList', (c) => c.gcList(), ['gcList']],
  ['gcRemove', (c) => c.gcRemove(null), ['gcRemove', null]],
  ['gcRemove by name', (c) => c.gcRemove(['/a b']), ['gcRemove', ['/a b']]],
  ['pastEvents', (c) => c.pastEvents(4), ['events', 4]],
] as readonly (readonly [
  string,
  (client: FerryClient) => Promise<unknown>,
  readonly unknown[],
])[]) {
  test(`the client's ${name} reaches the host with its arguments`, async (t) => {
    const { host, client } = await serve(t);
    await call(client);
    assert.deepEqual(host.calls.at(-1), want);
  });
}

test('64-bit numbers come through whole, as strings of digits on the wire', async (t) => {
  const { host, client, socketPath } = await serve(t);
  const big = 2n ** 63n - 1n;
  host.job = {
    target: 'vda',
    type: 'copy',
    ready: true,
    copiedBytes: big,
    totalBytes: big,
    bandwidthBytesPerSecond: big,
  };
  assert.deepEqual(await client.blockJob('vm1', 'vda'), host.job);
  const { body } = await raw(socketPath, 'GET', '/v1/domains/vm1/disks/vda/job');
  assert.match(body, /"copiedBytes":"9223372036854775807"/);
  assert.deepEqual(await client.chain('vm1'), host.disks);
  host.job = null;
  assert.equal(await client.blockJob('vm1', 'vda'), null);
});

for (const [name, method, path, body, field] of [
  ['a missing field', 'POST', '/v1/domains', '{}', 'body.xml'],
  ['no body at all', 'POST', '/v1/domains', undefined, 'body.xml'],
  ['an empty XML', 'POST', '/v1/domains', '{"xml":""}', 'body.xml'],
  ['a wrong type', 'POST', '/v1/domains/vm1/start', '{"paused":"yes"}', 'body.paused'],
  ['an unknown field', 'POST', '/v1/domains/vm1/start', '{"pause":true}', 'body.pause'],
  ['an unknown query', 'GET', '/v1/domains/vm1/xml?active=1', undefined, 'query.active'],
  ['a wrong query', 'GET', '/v1/domains/vm1/xml?inactive=perhaps', undefined, 'query.inactive'],
  ['a missing mode', 'DELETE', '/v1/domains/vm1/snapshots/s1', undefined, 'query.mode'],
  ['a wrong mode', 'DELETE', '/v1/domains/vm1/snapshots/s1?mode=all', undefined, 'query.mode'],
  ['a number that is none', 'GET', '/v1/operations/seven', undefined, 'path.operation'],
  ['a negative number', 'GET', '/v1/operations/-7/watch', undefined, 'path.operation'],
  ['no disks', 'POST', '/v1/domains/vm1/moves', '{"disks":[],"to":"/dst"}', 'body.disks'],
  [
    'an empty disk',
    'POST',
    '/v1/domains/vm1/moves',
    '{"disks":["vda",""],"to":"/dst"}',
    'body.disks.1',
  ],
  [
    'a relative directory',
    'POST',
    '/v1/domains/vm1/moves',
    '{"disks":["vda"],"to":"dst"}',
    'body.to',
  ],
  [
    'a wrong end of a job',
    'POST',
    '/v1/domains/vm1/disks/vda/job/end',
    '{"how":"stop"}',
    'body.how',
  ],
  ['a wrong way', 'POST', '/v1/operations/7/resolve', '{"direction":"up"}', 'body.direction'],
  ['a relative path', 'POST', '/v1/gc', '{"paths":["a"]}', 'body.paths.0'],
  ['a NUL in a name', 'GET', '/v1/domains/a%00b', undefined, 'path.domain'],
  ['a body that is a list', 'POST', '/v1/domains', '[]', 'body'],
  ['a body that is no JSON', 'POST', '/v1/domains', '{"xml":', 'body'],
  ['a wrong place in the events', 'GET', '/v1/events?after=x', undefined, 'query.after'],
  [
    'a wait without end',
    'GET',
    '/v1/operations/7/wait?timeoutSeconds=601',
    undefined,
    'query.timeoutSeconds',
  ],
] as const) {
  test(`${name} is refused with 400, naming ${field}`, async (t) => {
    const { host, socketPath } = await serve(t);
    const answer = await raw(socketPath, method, path, body);
    assert.equal(answer.status, 400, answer.body);
    const error = JSON.parse(answer.body) as { code: string; message: string; next: unknown };
    assert.equal(error.code, 'INVALID_ARG');
    assert.ok(`${error.message} `.includes(`${field}: `), error.message);
    assert.deepEqual(error.next, []);
    assert.deepEqual(host.calls, []);
  });
}

test('a wrong Last-Event-ID is refused by its name', async (t) => {
  const { socketPath } = await serve(t);
  const answer = await raw(socketPath, 'GET', '/v1/events', undefined, { 'last-event-id': 'x' });
  assert.equal(answer.status, 400);
  assert.match(answer.body, /header\.last-event-id/);
});

test('a body over 32 MiB is refused with 413', async (t) => {
  const { socketPath } = await serve(t);
  const sent = request({
    socketPath,
    method: 'POST',
    path: '/v1/domains',
    agent: false,
    headers: { 'content-type': 'application/json', 'content-length': 33 * 1024 * 1024 },
  });
  sent.on('error', () => undefined); // The server hangs up on the rest of the body.
  sent.flushHeaders();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  sent.destroy();
  assert.equal(response.statusCode, 413);
});

test('an address that is not there is 404 with an error body', async (t) => {
  const { socketPath } = await serve(t);
  const answer = await raw(socketPath, 'GET', '/v2/domains');
  assert.equal(answer.status, 404);
  assert.match(answer.body, /"code":"NO_SUPPORT"/);
});

for (const [error, status] of [
  [
    new StateError('BLOCK_COPY_ACTIVE', 'mirror is active; pivot it', {
      sourceIntact: true,
      next: ['ferry blockjob vm1 vda --pivot'],
    }),
    409,
  ],
  [new BusyError('lock held by operation 7', { operation: 7 }), 503],
  [new QemuError('blockdev-mirror: no space'), 502],
  [new NeedsOperatorError('stopped', { operation: 7, sourceIntact: true }), 500],
] as const) {
  test(`${error.name} comes back from the client as it was, over HTTP ${status}`, async (t) => {
    const { host, client, socketPath } = await serve(t);
    host.failures.set('destroy', error);
    assert.equal((await raw(socketPath, 'POST', '/v1/domains/vm1/destroy', '{}')).status, status);
    const caught = await client.destroy('vm1').catch((e: unknown) => e);
    assert.ok(caught instanceof RemoteError);
    assert.deepEqual(factsOf(caught), factsOf(error));
    assert.equal(caught.doing, 'destroy vm1');
  });
}

function factsOf({ code, message, sourceIntact, next, operation }: FerryError): object {
  return { code, message, sourceIntact, next, operation };
}

test('an error that is no FerryError is 500 INTERNAL_ERROR and is reported', async (t) => {
  const { host, client, internalErrors } = await serve(t);
  const bug = new TypeError('x is undefined');
  host.failures.set('listDomains', bug);
  await assert.rejects(client.listDomains(), { code: 'INTERNAL_ERROR', message: /x is undefined/ });
  assert.deepEqual(internalErrors, [bug]);
});

test('the socket has the mode that was asked for', async (t) => {
  const { socketPath } = await serve(t, { mode: 0o660 });
  assert.equal((await stat(socketPath)).mode & 0o777, 0o660);
});

test('a stale socket is replaced, a served one and a plain file are not', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-http-'));
  t.after(() => rm(directory, { recursive: true }));
  const socketPath = join(directory, 'ferry.sock');
  const options = { socketPath, mode: 0o600 };

  // Node removes the socket file of a server that is closed; a killed one leaves it behind. So: link it first.
  const dead = createServer().listen(join(directory, 'dead'));
  await once(dead, 'listening');
  await link(join(directory, 'dead'), socketPath);
  dead.close();

  const door = await serveHttp(sampleHost(), options);
  await assert.rejects(serveHttp(sampleHost(), options), BusyError);
  assert.equal((await ferryClient(socketPath).version()).hostname, 'host1');
  await door.close();
  await writeFile(socketPath, 'x');
  await assert.rejects(serveHttp(sampleHost(), options), SystemError);
});

test('without a daemon the client says how to start it', async () => {
  const error = await ferryClient('/nonexistent/run/ferry.sock')
    .version()
    .catch((e: unknown) => e);
  assert.ok(error instanceof FerryError);
  assert.equal(error.code, 'OPERATION_TIMEOUT');
  assert.equal(
    error.message,
    "ferryd is not running on /nonexistent/run/ferry.sock; start it: ferryd --run-dir /nonexistent/run, with the --state-dir that it had; 'ferry doctor' works without it",
  );
});

/** Takes `count` messages, then lets go of the stream. */
async function take<T>(stream: AsyncGenerator<T>, count: number): Promise<readonly T[]> {
  const taken: T[] = [];
  for await (const value of stream) if (taken.push(value) === count) break;
  return taken;
}

const seqs = (events: readonly StreamedEvent[]): readonly number[] => events.map((e) => e.seq);

test('a reader of events that names its last one gets what it missed, then what comes', async (t) => {
  const { host, client } = await serve(t);
  for (let i = 0; i < 3; i++)
    host.emit({ type: 'lifecycle', id: 3, event: 'started', detail: 'booted' });
  const events = client.events(1, {
    onOpen: () => host.emit({ type: 'lifecycle', id: 3, event: 'stopped', detail: 'destroyed' }),
  });
  assert.deepEqual(seqs(await take(events, 3)), [2, 3, 4]);
});

test('Last-Event-ID goes before ?after=', async (t) => {
  const { host, socketPath } = await serve(t);
  for (let i = 0; i < 3; i++)
    host.emit({ type: 'lifecycle', id: 3, event: 'started', detail: 'booted' });
  const sent = request({
    socketPath,
    path: '/v1/events?after=0',
    agent: false,
    headers: { 'last-event-id': '2' },
  });
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  const [first] = (await once(response.setEncoding('utf8'), 'data')) as [string];
  assert.match(first, /^id: 3\ndata: {"seq":3,/);
  sent.destroy();
});

test('without a place the events start now', async (t) => {
  const { host, client } = await serve(t);
  host.emit({ type: 'lifecycle', id: 3, event: 'started', detail: 'booted' });
  const events = client.events(null, {
    onOpen: () => host.emit({ type: 'lifecycle', id: 3, event: 'stopped', detail: 'destroyed' }),
  });
  assert.deepEqual(seqs(await take(events, 1)), [2]);
});

test('events go on over a restart of the daemon without a gap', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-http-'));
  t.after(() => rm(directory, { recursive: true }));
  const options = { socketPath: join(directory, 'ferry.sock'), mode: 0o600 };
  const host = sampleHost();
  let door = await serveHttp(host, options);
  t.after(() => door.close());
  host.emit({ type: 'lifecycle', id: 3, event: 'started', detail: 'booted' });

  const seen: number[] = [];
  let breaks = 0;
  for await (const event of ferryClient(options.socketPath).events(0, {
    onBreak: () => breaks++,
  })) {
    seen.push(event.seq);
    if (event.seq === 3) break;
    await door.close();
    host.emit({ type: 'lifecycle', id: 3, event: 'stopped', detail: 'destroyed' });
    host.emit({ type: 'lifecycle', id: 3, event: 'undefined', detail: 'removed' });
    door = await serveHttp(host, options);
  }
  assert.deepEqual(seen, [1, 2, 3]);
  assert.ok(breaks >= 1);
});

test('a reader that does not keep up is dropped, and nothing else is', async (t) => {
  const { host, client, socketPath } = await serve(t, { backlogBytes: 64 * 1024 });
  const slow = connect(socketPath);
  t.after(() => slow.destroy());
  slow.write('GET /v1/events HTTP/1.1\r\nhost: ferry\r\n\r\n');
  await once(slow, 'readable');
  assert.equal(host.listeners.size, 1);

  const filler = 'x'.repeat(16 * 1024);
  for (let i = 0; i < 200; i++) host.emit({ type: 'monitor', event: 'X', details: filler });
  await once(slow.resume(), 'close');
  assert.equal(host.listeners.size, 0);
  assert.equal((await client.version()).hostname, 'host1');
});

test('a reader that missed more than the backlog can still catch up', async (t) => {
  const { host, client } = await serve(t, { backlogBytes: 1024 });
  for (let i = 0; i < 300; i++)
    host.emit({ type: 'monitor', event: 'X', details: 'x'.repeat(16 * 1024) });
  assert.equal((await take(client.events(0), 300)).length, 300);
});

test('a watched operation is told at each change, and its end', async (t) => {
  const { host, client } = await serve(t, { watchEveryMs: 3_600_000 });
  host.onWait = () => {
    host.advance({ ...move, progress: null });
    host.advance({ ...move, progress: null }); // No change: not told.
    host.advance(moved);
    host.settle(7);
  };
  const statuses: string[] = [];
  for await (const view of client.watchOperation(7)) {
    statuses.push(`${view.status} ${view.progress?.percent ?? '-'}`);
  }
  assert.deepEqual(statuses, ['running 45', 'running -', 'committed -', 'committed -']);
  assert.equal(host.listeners.size, 0);
});

test('a watched operation that is rolled back ends with its error', async (t) => {
  const { host, client } = await serve(t);
  const error = new QemuError('copy of vda: no space', { sourceIntact: true, operation: 7 });
  host.onWait = () => host.settle(7, error);
  await assert.rejects(take(client.watchOperation(7), 9), {
    code: 'OPERATION_FAILED',
    sourceIntact: true,
    operation: 7,
  });
});

test('watching an operation that is not there is an error, not an empty stream', async (t) => {
  const { client } = await serve(t);
  await assert.rejects(take(client.watchOperation(9), 1), { code: 'INVALID_ARG' });
});

test('a wait resolves when the operation ends, rejects when it was rolled back', async (t) => {
  const { host, client } = await serve(t);
  host.onWait = () => {
    host.advance(moved);
    host.settle(7);
  };
  assert.deepEqual(await client.waitOperation(7), moved);
  host.operationViews.set(7, move);
  host.onWait = () => host.settle(7, new QemuError('no space', { operation: 7 }));
  await assert.rejects(client.waitOperation(7), { code: 'OPERATION_FAILED' });
});

test('a wait that is over before the operation answers with the operation as it is', async (t) => {
  const { socketPath } = await serve(t);
  const answer = await raw(socketPath, 'GET', '/v1/operations/7/wait?timeoutSeconds=0');
  assert.equal(answer.status, 200);
  assert.match(answer.body, /"status":"running"/);
});

test('close ends the streams and removes the socket', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-http-'));
  t.after(() => rm(directory, { recursive: true }));
  const socketPath = join(directory, 'ferry.sock');
  const host = sampleHost();
  const door = await serveHttp(host, { socketPath, mode: 0o600 });
  const reading = take(
    ferryClient(socketPath).events(null, { reconnectMs: 0, onOpen: () => void door.close() }),
    1,
  );
  await assert.rejects(reading, { code: 'OPERATION_TIMEOUT' });
  await assert.rejects(stat(socketPath), { code: 'ENOENT' });
});
