import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { Client } from '../../test/rpc/client.js';
import { fakeDomain, refOf, twoDomains } from '../../test/rpc/fake-host.js';
import { StateError, SystemError } from '../std/errors.js';
import { listen } from './listen.js';
import { messageStatus } from './packet.js';

function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'ferry-rpc-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

test('both sockets serve, and the one for reading lets nothing be changed', async (t) => {
  const directory = join(temporaryDirectory(t), 'run');
  const host = twoDomains();
  await using server = await listen({ host, directory });
  const args = { domain: refOf(fakeDomain(1)) };
  for (const [path, status] of [
    [server.readOnlyPath, messageStatus.error],
    [server.path, messageStatus.ok],
  ] as const) {
    const client = new Client(connect(path));
    await client.open();
    assert.equal((await client.call(34, args)).header.status, status);
    client.hangUp();
  }
  assert.equal(host.calls.length, 1);
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  assert.equal(statSync(server.path).mode & 0o007, 0, 'nobody else may write');
});

test('closing ends clients, even deaf ones, and removes the sockets', async (t) => {
  const host = twoDomains();
  const server = await listen({ host, directory: temporaryDirectory(t) });
  const client = new Client(connect(server.path));
  await client.open();
  await client.call(316, { eventId: 0, domain: null });
  assert.equal(server.clients, 1);
  await server.close();
  await server.close();
  assert.equal(server.clients, 0);
  assert.equal(host.subscribers, 0);
  assert.equal(await client.next(), null);
  assert.ok(!existsSync(server.path) && !existsSync(server.readOnlyPath));
});

test('a socket that a dead daemon left behind is replaced', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'libvirt-sock');
  await leaveSocketBehind(path);
  assert.ok(existsSync(path));
  await using server = await listen({ host: twoDomains(), directory });
  const client = new Client(connect(server.path));
  await client.open();
});

test('a socket that another daemon serves is left alone', async (t) => {
  const directory = temporaryDirectory(t);
  const host = twoDomains();
  await using first = await listen({ host, directory });
  await assert.rejects(listen({ host, directory }), StateError);
  const client = new Client(connect(first.path));
  await client.open();
});

test('a file in the way is not removed', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'libvirt-sock-ro');
  writeFileSync(path, 'precious');
  await assert.rejects(listen({ host: twoDomains(), directory }), SystemError);
  assert.ok(statSync(path).isFile());
  assert.ok(!existsSync(join(directory, 'libvirt-sock')), 'what was opened before is closed again');
});

/** Node unlinks the path it listened on, so the socket is moved away first and back afterwards. */
async function leaveSocketBehind(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  renameSync(path, `${path}.aside`);
  await new Promise((resolve) => server.close(resolve));
  renameSync(`${path}.aside`, path);
}
