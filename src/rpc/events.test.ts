import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Client } from '../../test/rpc/client.js';
import { opened, settled } from '../../test/rpc/connected.js';
import { fakeDomain, refOf } from '../../test/rpc/fake-host.js';
import type { HostEvent } from '../host/libvirt-host.js';
import { messageStatus } from './packet.js';

const vm1 = refOf(fakeDomain(1));
const vm2 = refOf(fakeDomain(2));

const ready: HostEvent = {
  kind: 'block-job',
  domain: vm1,
  path: '/images/a',
  target: 'vda',
  type: 'copy',
  status: 'ready',
};
const monitorEvent: HostEvent = {
  kind: 'monitor',
  domain: vm1,
  event: 'MIRROR_DROPPED',
  seconds: 1_700_000_000n,
  micros: 17,
  details: '{}',
};

const register = async (
  client: Client,
  eventId: number,
  domain: object | null = null,
): Promise<void> => {
  const { header } = await client.call(316, { eventId, domain });
  assert.equal(header.status, messageStatus.ok);
};

const nextEvent = async (client: Client): Promise<readonly [number, unknown] | null> => {
  const packet = await client.next();
  return packet === null ? null : [packet.header.procedure, packet.body];
};

test('every event id that virsh knows is accepted', async () => {
  const { client, host } = await opened();
  for (let eventId = 0; eventId <= 26; eventId++) await register(client, eventId);
  assert.equal(host.subscribers, 1);
});

test('a block job is told with its path, then with its target', async () => {
  const { client, host } = await opened();
  await register(client, 16);
  await register(client, 8);
  host.emit(ready);
  const numbers = { type: 2, status: 3 };
  assert.deepEqual(await nextEvent(client), [
    326,
    { callbackID: 1, domain: vm1, path: '/images/a', ...numbers },
  ]);
  assert.deepEqual(await nextEvent(client), [
    339,
    { callbackID: 0, domain: vm1, target: 'vda', ...numbers },
  ]);
});

test('a disk without a local path is told by its target only', async () => {
  const { client, host } = await opened();
  await register(client, 8);
  await register(client, 16);
  host.emit({ ...ready, path: null });
  assert.equal((await nextEvent(client))?.[0], 339);
});

test('a destroy is told with the id it had, then without one, and before its reply', async () => {
  const { client } = await opened();
  await register(client, 0);
  const serial = client.send(12, { domain: vm1 });
  assert.deepEqual(await nextEvent(client), [
    318,
    { callbackID: 0, domain: vm1, event: 6, detail: 2 },
  ]);
  assert.deepEqual(await nextEvent(client), [
    318,
    { callbackID: 0, domain: { ...vm1, id: -1 }, event: 5, detail: 1 },
  ]);
  assert.equal((await client.next())?.header.serial, serial);
});

test('events of other domains are not told to who asked for one', async () => {
  const { client, host } = await opened();
  await register(client, 0, vm2);
  host.emit({ kind: 'lifecycle', domain: vm1, event: 'suspended', detail: 'paused' });
  host.emit({ kind: 'lifecycle', domain: vm2, event: 'resumed', detail: 'unpaused' });
  assert.deepEqual(await nextEvent(client), [
    318,
    { callbackID: 0, domain: vm2, event: 4, detail: 0 },
  ]);
});

for (const [name, event, flags, told] of [
  ['all', null, 0, true],
  ['this one', 'MIRROR_DROPPED', 0, true],
  ['another', 'STOP', 0, false],
  ['this one in other letters', 'mirror_dropped', 0, false],
  ['this one in any letters', 'mirror_dropped', 2, true],
] as const) {
  test(`a monitor event is told to who asked for ${name}: ${told}`, async () => {
    const { client, host } = await opened();
    const { body } = await client.call(4, { domain: null, event, flags }, 'qemu');
    assert.deepEqual(body, { callbackId: 0 });
    host.emit(monitorEvent);
    client.send(59);
    assert.equal((await client.next())?.header.procedure, told ? 6 : 59);
  });
}

test('patterns of events are refused', async () => {
  const { client } = await opened();
  const { header } = await client.call(4, { domain: null, event: '(A+)+$', flags: 1 }, 'qemu');
  assert.equal(header.status, messageStatus.error);
});

test('who no longer asks is no longer told, and the host is no longer listened to', async () => {
  const { client, host } = await opened();
  await register(client, 0);
  await client.call(317, { callbackId: 0 });
  assert.equal(host.subscribers, 0);
  assert.equal((await client.call(317, { callbackId: 0 })).header.status, messageStatus.error);
});

test('a callback of the monitor is not ended by the other call', async () => {
  const { client, host } = await opened();
  await client.call(4, { domain: null, event: null, flags: 0 }, 'qemu');
  assert.equal((await client.call(317, { callbackId: 0 })).header.status, messageStatus.error);
  assert.equal((await client.call(5, { callbackId: 0 }, 'qemu')).header.status, messageStatus.ok);
  assert.equal(host.subscribers, 0);
});

test('a client that hangs up leaves nothing behind', async () => {
  const { client, connection, host } = await opened();
  await register(client, 0);
  client.hangUp();
  await connection.closed;
  assert.equal(host.subscribers, 0);
});

test('a client that does not read its events is dropped when they are too many', async () => {
  const { client, connection, host } = await opened({ pipeBytes: 64, maxEventBacklogBytes: 1000 });
  await register(client, 16);
  client.pause();
  for (let event = 0; event < 5; event++) host.emit(ready);
  await settled();
  assert.equal(host.subscribers, 1);
  for (let event = 0; event < 50; event++) host.emit(ready);
  await connection.closed;
  assert.equal(host.subscribers, 0);
});

test('an event that cannot be written is our bug and hurts no client', async () => {
  const bugs: unknown[] = [];
  const { client, host } = await opened({ onBug: (error) => bugs.push(error) });
  await register(client, 16);
  host.emit({ ...ready, target: 'v\0da' });
  assert.equal(bugs.length, 1);
  assert.equal((await client.call(59)).header.status, messageStatus.ok);
});
