// The HTTP door to operations under way: their pace, and what stays of them.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { test } from 'node:test';

import type { PaceChange } from '../host/ferry-host.js';
import { ferryClient } from './client.js';
import { serveHttp } from './server.js';
import { record, sampleHost } from './testing/samples.js';

async function serve(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-http-'));
  const socketPath = join(directory, 'ferry.sock');
  const host = sampleHost();
  const door = await serveHttp(host, { socketPath, mode: 0o600, onInternalError: assert.fail });
  t.after(async () => {
    await door.close();
    await rm(directory, { recursive: true });
  });
  return { host, client: ferryClient(socketPath) };
}

for (const change of [
  { auto: { latencyMs: 20.5 } },
  { auto: { latencyMs: null } },
  { limitBytesPerSecond: null },
  { isPaused: true, auto: { latencyMs: null } },
] as const satisfies readonly PaceChange[]) {
  test(`the pace ${JSON.stringify(change)} reaches the host as it was said`, async (t) => {
    const { host, client } = await serve(t);
    await client.paceOperation(7, change);
    assert.deepEqual(host.calls.at(-1), ['paceOperation', 7, change]);
  });
}

for (const [name, change, field] of [
  [
    'a limit that moves by itself and does not',
    { limitBytesPerSecond: 5n, auto: { latencyMs: 1 } },
    'body: takes limitBytesPerSecond or auto, not both',
  ],
  ['no time', { auto: { latencyMs: 0 } }, 'body.auto.latencyMs: '],
  ['a time without end', { auto: { latencyMs: 1e9 } }, 'body.auto.latencyMs: '],
] as const) {
  test(`${name} is refused by its name`, async (t) => {
    const { host, client } = await serve(t);
    await assert.rejects(client.paceOperation(7, change), (error: Error) =>
      error.message.includes(field),
    );
    assert.deepEqual(host.calls, []);
  });
}

test('what stays of an operation comes through whole', async (t) => {
  const { host, client } = await serve(t);
  assert.deepEqual(await client.operationRecord(7), record);
  assert.deepEqual(host.calls.at(-1), ['operationRecord', 7]);
});

test('how long a source is kept, and the wish to take a move back, reach the host as they were said', async (t) => {
  const { host, client } = await serve(t);
  await client.keepSource(7, 7200);
  await client.keepSource(7, null);
  await client.undoOperation(7, { close: false });
  await client.undoOperation(7, { close: true });
  assert.deepEqual(host.calls, [
    ['keepSource', 7, 7200],
    ['keepSource', 7, null],
    ['undoOperation', 7, false],
    ['undoOperation', 7, true],
  ]);
  await assert.rejects(client.keepSource(7, -1), /body\.keepSeconds: /);
  await assert.rejects(client.keepSource(7, 1e12), /body\.keepSeconds: /);
  assert.equal(host.calls.length, 4);
});
