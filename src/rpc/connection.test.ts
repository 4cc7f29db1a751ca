import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test } from 'node:test';

import { connected, opened, settled } from '../../test/rpc/connected.js';
import { FakeHost, fakeDomain, fakeUuid, refOf } from '../../test/rpc/fake-host.js';
import { Connection } from './connection.js';
import { messageStatus, programs } from './packet.js';
import { procedureTables } from './procedures.js';

const vm1 = refOf(fakeDomain(1));
const snapshot = (name: string): object => ({ name, domain: vm1 });

const refusal = (code: number, domain: number, text: string, prefix = ''): object => ({
  code,
  domain,
  message: prefix + text,
  level: 2,
  dom: null,
  str1: `${prefix}%s`,
  str2: text,
  str3: null,
  int1: -1,
  int2: -1,
  net: null,
});

test('before it is opened, a connection serves only what leads there', async () => {
  const { client } = connected();
  assert.equal((await client.call(66)).header.status, messageStatus.ok);
  assert.equal((await client.call(60, { feature: 14 })).header.status, messageStatus.ok);
  assert.equal((await client.call(59)).header.status, messageStatus.error);
});

test('a connection opens once, so a read-only one stays so', async () => {
  const { client, host } = connected();
  await client.open(1);
  assert.equal((await client.call(1, { name: null })).header.status, messageStatus.error);
  assert.equal((await client.call(12, { domain: vm1 })).header.status, messageStatus.error);
  assert.deepEqual(host.calls, []);
});

test("another hypervisor's URI is refused", async () => {
  const { client } = connected();
  const { body } = await client.call(1, { name: 'lxc:///system' });
  const text = 'no connection driver available for lxc:///system';
  assert.deepEqual(body, refusal(8, 0, text, 'invalid argument: '));
});

for (const [feature, supported] of [
  [8, false],
  [9, true],
  [10, true],
  [14, true],
  [15, true],
  [16, false],
  [99, false],
] as const) {
  test(`feature ${feature} is answered ${supported}`, async () => {
    const { client } = connected();
    assert.deepEqual((await client.call(60, { feature })).body, { supported });
  });
}

/** libvirt's own read-only list: spec §7, pitfall 8. What is neither here nor a write is free to read. */
const writes = {
  remote: [
    9, 10, 11, 12, 27, 28, 29, 33, 34, 35, 185, 193, 196, 231, 234, 237, 239, 245, 258, 342, 350,
  ],
  qemu: [1, 4, 5],
} as const;

for (const program of ['remote', 'qemu'] as const) {
  test(`what a read-only client may not do is listed (${program})`, () => {
    const rows = [...procedureTables[program].values()];
    const found = rows.filter(({ access }) => access === 'write').map(({ number }) => number);
    assert.deepEqual(
      found.toSorted((a, b) => a - b),
      writes[program],
    );
  });

  for (const number of writes[program]) {
    test(`a read-only socket refuses ${program} ${number}`, async () => {
      const { client, host } = await opened({ readOnly: true });
      const row = procedureTables[program].get(number);
      client.raw(emptyCall(number, program));
      const reply = await client.next();
      const text = `read only access prevents ${row?.name ?? ''}`;
      assert.deepEqual(reply?.body, refusal(29, 20, text, 'operation forbidden: '));
      assert.deepEqual(host.calls, []);
    });
  }
}

/** Access is decided before arguments are looked at. */
function emptyCall(number: number, program: 'remote' | 'qemu'): Buffer {
  const words = [28, programs[program], 1, number, 0, 77, 0];
  const bytes = Buffer.alloc(28);
  words.forEach((word, at) => bytes.writeUInt32BE(word, at * 4));
  return bytes;
}

for (const [number, args, name] of [
  [14, { domain: vm1, flags: 1 }, 'virDomainGetXMLDesc with secure flag'],
  [14, { domain: vm1, flags: 8 }, 'virDomainGetXMLDesc with migratable flag'],
  [186, { snapshot: snapshot('s1'), flags: 1 }, 'virDomainSnapshotGetXMLDesc with secure flag'],
  [200, { domain: vm1, flags: 8 }, 'virDomainGetVcpusFlags with guest flag'],
] as const) {
  test(`a read-only socket refuses ${name}`, async () => {
    const { client } = await opened({ readOnly: true });
    const { body } = await client.call(number, args);
    assert.deepEqual(body, refusal(29, 20, name, 'operation forbidden: '));
  });
}

for (const [number, args, text] of [
  [
    193,
    { snapshot: snapshot('s1'), flags: 32 },
    'unsupported flags (0x20) in function virDomainSnapshotDelete',
  ],
  [
    14,
    { domain: vm1, flags: 0x8000_0002 },
    'unsupported flags (0x80000000) in function virDomainGetXMLDesc',
  ],
  [10, { xml: '<domain/>', flags: 2 }, 'unsupported flags (0x2) in function virDomainCreateXML'],
  [245, { domain: vm1, flags: 1 }, 'unsupported flags (0x1) in function virDomainReset'],
] as const) {
  test(`${text} is code 8`, async () => {
    const { client, host } = await opened();
    assert.deepEqual(
      (await client.call(number, args)).body,
      refusal(8, 10, text, 'invalid argument: '),
    );
    assert.deepEqual(host.calls, []);
  });
}

const plainDelete = {
  children: false,
  metadataOnly: false,
  childrenOnly: false,
  reopenMirror: false,
  removeMirror: false,
};
for (const [flags, options] of [
  [0, plainDelete],
  [2, { ...plainDelete, metadataOnly: true }],
  [8, { ...plainDelete, reopenMirror: true }],
  [16, { ...plainDelete, removeMirror: true }],
] as const) {
  test(`snapshot-delete with flags ${flags} means what the 2012 series meant`, async () => {
    const { client, host } = await opened();
    await client.call(193, { snapshot: snapshot('s4'), flags });
    assert.deepEqual(host.calls, [{ verb: 'deleteSnapshot', args: [fakeUuid(1), 's4', options] }]);
  });
}

test("an error of the host keeps libvirt's code, text and domain", async () => {
  const { client } = await opened();
  const text = "no domain with matching name 'nosuch'";
  const { body } = await client.call(23, { name: 'nosuch' });
  assert.deepEqual(body, refusal(42, 10, text, 'Domain not found: '));
});

test('a bug of the host is an internal error to the client and is reported to us', async () => {
  const bugs: unknown[] = [];
  const host = new FakeHost();
  const bug = new TypeError('cannot read properties of undefined');
  host.hostname = () => {
    throw bug;
  };
  const { client } = await opened({ host, onBug: (error) => bugs.push(error) });
  const { body } = await client.call(59);
  assert.deepEqual(body, refusal(1, 10, bug.message, 'internal error: '));
  assert.deepEqual(bugs, [bug]);
});

test('domains are found by uuid, whatever id and name the client remembers', async () => {
  const { client } = await opened();
  const stale = { name: 'renamed', uuid: fakeUuid(1), id: 999 };
  assert.deepEqual((await client.call(212, { domain: stale })).body, { state: 1, reason: 1 });
});

test('a count without results is the count of the results', async () => {
  const { client } = await opened();
  const ids = [vm1, refOf(fakeDomain(2, { id: -1 }))];
  const all = await client.call(273, { needResults: true, flags: 3 });
  assert.deepEqual(all.body, { domains: ids, count: 2 });
  const none = await client.call(273, { needResults: false, flags: 3 });
  assert.deepEqual(none.body, { domains: [], count: 2 });
});

for (const [flags, names] of [
  [0, ['vm1', 'vm2']],
  [1, ['vm1']],
  [2, ['vm2']],
  [1 | 64, []],
  [16 | 64, ['vm1', 'vm2']],
  [8, []],
  [256, []],
  [4096, ['vm1']],
  [8192, ['vm2']],
] as const) {
  test(`domains listed with flags ${flags}: ${names.join(' ')}`, async () => {
    const { client, host } = await opened();
    const { body } = await client.call(273, { needResults: true, flags });
    const wanted = host
      .domains()
      .map(({ ref }) => ref)
      .filter(({ name }) => names.some((one) => one === name));
    assert.deepEqual(body, { domains: wanted, count: names.length });
  });
}

for (const [number, flags, names] of [
  [274, 0, ['s1', 's2', 's3', 's4']],
  [274, 1, ['s1']],
  [274, 4, ['s3', 's4']],
  [274, 8, ['s1', 's2']],
  [274, 16, []],
  [274, 128 | 512, ['s1', 's2', 's3', 's4']],
  [274, 256, []],
  [275, 0, ['s2', 's4']],
  [275, 1, ['s2', 's3', 's4']],
  [275, 1 | 4, ['s3', 's4']],
] as const) {
  test(`snapshots listed by ${number} with flags ${flags}: ${names.join(' ')}`, async () => {
    const { client } = await opened();
    const of = number === 274 ? { domain: vm1 } : { snapshot: snapshot('s1') };
    const { body } = await client.call(number, { ...of, needResults: true, flags });
    assert.deepEqual(body, { snapshots: names.map(snapshot), count: names.length });
  });
}

for (const [number, args, result] of [
  [239, { bandwidth: 3n, flags: 0 }, 3_145_728n],
  [239, { bandwidth: 3n, flags: 1 }, 3n],
] as const) {
  test(`a speed of 3 with flags ${args.flags} is ${result} bytes/s`, async () => {
    const { client, host } = await opened();
    await client.call(number, { domain: vm1, disk: 'vda', ...args });
    assert.deepEqual(host.calls[0]?.args, [fakeUuid(1), 'vda', result]);
  });
}

test('a speed whose bytes do not fit is an overflow', async () => {
  const { client } = await opened();
  const args = { domain: vm1, disk: 'vda', bandwidth: 8_796_093_022_208n };
  const text = 'bandwidth must be less than 8796093022207';
  assert.deepEqual(
    (await client.call(239, args)).body,
    refusal(82, 10, text, 'numerical overflow: '),
  );
});

for (const [flags, bandwidth] of [
  [0, 2n], // MiB/s, rounded up
  [1, 1_500_000n],
] as const) {
  test(`the limit of a job is shown with flags ${flags} as ${bandwidth}`, async () => {
    const { client } = await opened();
    const { body } = await client.call(238, { domain: vm1, disk: 'vda', flags });
    const done = { current: 67_108_864n, end: 67_108_864n };
    assert.deepEqual(body, { found: true, type: 2, bandwidth, ...done });
  });
}

test('five calls of one client are served at a time, the next when one is done', async () => {
  const host = new FakeHost();
  const release: (() => void)[] = [];
  const waiting = (): Promise<string> =>
    new Promise((resolve) => {
      release.push(() => resolve('late'));
    });
  host.hostname = waiting as () => never; // asynchronous, as the interface allows and the fake is not
  const { client } = await opened({ host });
  const serials = [1, 2, 3, 4, 5, 6, 7].map(() => client.send(59));
  await settled();
  assert.equal(release.length, 5);
  release[3]?.();
  assert.equal(
    (await client.next())?.header.serial,
    serials[3],
    'replies may overtake one another',
  );
  await settled();
  assert.equal(release.length, 6);
  for (const one of release) one();
  await settled();
  assert.equal(release.length, 7);
  release[6]?.();
});

test('what is answered from memory is answered in the order it was asked, past what waits', async () => {
  const host = new FakeHost();
  let release = (): void => undefined;
  host.capabilities = (() =>
    new Promise((resolve) => {
      release = () => resolve('late');
    })) as () => never;
  const { client } = await opened({ host });
  const waiting = client.send(7);
  const asked = Array.from({ length: 100 }, () => client.send(59));
  for (const serial of asked) assert.equal((await client.next())?.header.serial, serial);
  release();
  assert.equal((await client.next())?.header.serial, waiting);
});

test('a client that does not read its replies is not served ahead, and misses none', async () => {
  const host = new FakeHost();
  let served = 0;
  host.hostname = () => `${served++}`;
  const { client } = await opened({ host, pipeBytes: 256 });
  client.pause();
  const asked = Array.from({ length: 1000 }, () => client.send(59));
  await settled();
  assert.ok(served < 50, `${served} served`);
  client.resume();
  for (const serial of asked) assert.equal((await client.next())?.header.serial, serial);
  assert.equal(served, 1000);
});

test('replies that wait for their client share no memory with others', async () => {
  const chunks: Buffer[] = [];
  const wrote: (() => void)[] = [];
  const stream = new Duplex({
    read: () => undefined,
    write(chunk: Buffer, _encoding, done) {
      chunks.push(chunk);
      wrote.push(done);
    },
  });
  const connection = new Connection(stream, { host: new FakeHost(), readOnly: false });
  for (let call = 0; call < 3; call++) stream.push(emptyCall(66, 'remote'));
  for (let reply = 0; reply < 3; reply++) {
    await settled();
    wrote[reply]?.();
  }
  assert.deepEqual(
    chunks.map((chunk) => chunk.buffer.byteLength === chunk.length),
    [false, true, true],
  );
  stream.destroy();
  await connection.closed;
});

test('a ping is answered at once, also while a call is served', async () => {
  const host = new FakeHost();
  host.hostname = (() => new Promise(() => undefined)) as () => never; // never answers
  const { client } = await opened({ host });
  client.send(59);
  client.ping();
  const pong = await client.next();
  assert.equal(
    pong?.bytes.toString('hex'),
    '0000001c6b6565700000000100000002000000020000000000000000',
  );
});

test('a client is pinged only after it asked for keepalive, and dropped when it stays silent', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const keepalive = { intervalMs: 5000, count: 5 };
  const { client, connection } = await opened({ keepalive });
  t.mock.timers.tick(60_000);
  await client.call(60, { feature: 10 });
  t.mock.timers.tick(25_000);
  for (let ping = 0; ping < 5; ping++) {
    const { program, procedure } = (await client.next())?.header ?? {};
    assert.deepEqual({ program, procedure }, { program: programs.keepalive, procedure: 1 });
  }
  t.mock.timers.tick(5000);
  await connection.closed;
});

test('any packet is a sign of life', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const { client } = await opened({ keepalive: { intervalMs: 5000, count: 1 } });
  await client.call(60, { feature: 10 });
  for (let turn = 0; turn < 4; turn++) {
    t.mock.timers.tick(5000);
    assert.equal((await client.call(59)).header.status, messageStatus.ok);
  }
});

test('a client that asked is told why its connection ends', async () => {
  const { client, connection } = await opened();
  await client.call(360);
  const ended = connection.close();
  assert.equal((await client.next())?.header.procedure, 362);
  assert.equal(await client.next(), null);
  await ended;
});
