// The library over a real unix socket, with a host in memory.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { test } from 'node:test';

import type { Ferry } from 'blockferry';
import * as library from 'blockferry';
import type { OperationStatus } from '../host/ferry-host.js';
import { serveHttp } from '../http/server.js';
import type { MemoryHost } from '../http/testing/memory-host.js';
import { moved, move, sampleHost } from '../http/testing/samples.js';
import type { Code } from '../std/errors.js';
import { NeedsOperatorError, NotFoundError, StateError, codes } from '../std/errors.js';
import { RemoteError } from '../http/wire.js';
import { publicError } from './errors.js';

const { connect } = library;

async function connected(
  t: TestContext,
): Promise<{ readonly ferry: Ferry; readonly host: MemoryHost }> {
  const runDir = await mkdtemp(join(tmpdir(), 'ferry-library-'));
  const host = sampleHost();
  const door = await serveHttp(host, { socketPath: join(runDir, 'ferry.sock'), mode: 0o600 });
  t.after(async () => {
    await door.close();
    await rm(runDir, { recursive: true });
  });
  return { ferry: await connect({ runDir }), host };
}

test('connecting tells whom one talks to; where nobody is, it is Busy', async (t) => {
  const { ferry } = await connected(t);
  assert.equal(ferry.version.qemu, '7.2.22');
  const nowhere = connect({ runDir: '/nonexistent/ferry' });
  await assert.rejects(nowhere, (error) => {
    assert.ok(error instanceof library.Busy);
    assert.match(error.message, /ferryd is not running on \/nonexistent\/ferry\/ferry\.sock/);
    assert.deepEqual(error.next, ['ferryd --run-dir /nonexistent/ferry']);
    return true;
  });
});

test('a move is asked for with what was said, and the rest is as ferryd has it', async (t) => {
  const { ferry, host } = await connected(t);
  await ferry.move('vm1', { disks: 'vda', to: '/mnt/new', bytesPerSecond: 5n });
  const [verb, domain, asked] = host.calls.at(-1) ?? [];
  assert.deepEqual([verb, domain], ['startMove', 'vm1']);
  assert.deepEqual(asked, {
    disks: ['vda'],
    to: '/mnt/new',
    rotateBytes: 1n << 30n,
    bytesPerSecond: 5n,
    verify: 'full',
    pivot: { how: 'auto' },
    quiesce: false,
    trim: false,
    keepSourceSeconds: null,
    deleteShared: false,
    undoSeconds: null,
  });
});

test('watching yields what happens and ends with the end', async (t) => {
  const { ferry, host } = await connected(t);
  host.onWait = () => {
    host.advance(moved);
    host.settle(7);
  };
  const seen: OperationStatus[] = [];
  for await (const { status } of ferry.watch({ id: 7 })) seen.push(status);
  assert.deepEqual([seen[0], seen.at(-1)], ['running', 'committed']);
  assert.equal((await ferry.wait(7)).status, 'committed');
});

for (const [status, kind] of [
  ['attention', library.NeedsPerson],
  ['waiting', library.NotReady],
  ['rolled-back', library.Undone],
] as const)
  test(`an operation that ends ${status} is told, and thrown as ${kind.name}`, async (t) => {
    const { ferry, host } = await connected(t);
    host.onWait = () => {
      host.advance({ ...move, status, reason: 'power cut' });
      host.settle(7);
    };
    await assert.rejects(ferry.wait(7), (error) => {
      assert.ok(error instanceof kind);
      assert.equal(error.operation, 7);
      return true;
    });
  });

test('an aborted signal ends the watching without an error, and the waiting with its reason', async (t) => {
  const { ferry } = await connected(t);
  const stop = new AbortController();
  for await (const { id } of ferry.watch(7, { signal: stop.signal })) {
    assert.equal(id, 7);
    stop.abort(new Error('enough'));
  }
  await assert.rejects(ferry.wait(7, { signal: stop.signal }), /enough/);
});

test('events go on where the caller was', async (t) => {
  const { ferry, host } = await connected(t);
  const event = (seq: number) => ({
    seq,
    time: '2026-01-01T00:00:00.000Z',
    domain: null,
    domainName: null,
    event: { type: 'lifecycle' },
  });
  host.kept.push(event(1), event(2), event(3));
  assert.equal((await ferry.pastEvents()).length, 3);
  for await (const { seq } of ferry.events({ after: 1 })) {
    assert.equal(seq, 2);
    break;
  }
});

test('each code is thrown as what its caller may do', () => {
  const remote = (code: Code, operation?: number): unknown =>
    publicError(
      new RemoteError({
        code,
        message: 'm',
        sourceIntact: true,
        next: ['n'],
        ...(operation === undefined ? {} : { operation }),
      }),
    );
  for (const [code, kind] of [
    ['XML_ERROR', library.Refused],
    ['OPERATION_UNSUPPORTED', library.Refused],
    ['NO_DOMAIN', library.Gone],
    ['OPERATION_INVALID', library.NotReady],
    ['BLOCK_COPY_ACTIVE', library.NotReady],
    ['OPERATION_ABORTED', library.Undone],
    ['OPERATION_TIMEOUT', library.Busy],
    ['OPERATION_FAILED', library.Broken],
    ['SYSTEM_ERROR', library.Broken],
    ['INTERNAL_ERROR', library.Broken],
  ] as const) {
    const error = remote(code);
    assert.ok(error instanceof kind, code);
    assert.deepEqual([error.code, error.next, error.name], [code, ['n'], kind.name]);
  }
  assert.ok(remote('INTERNAL_ERROR', 7) instanceof library.NeedsPerson);
  for (const code of Object.keys(codes) as Code[])
    // of our own table
    assert.ok(remote(code) instanceof library.BlockferryError, code);
});

test('errors of the daemon keep what it said', async (t) => {
  const { ferry, host } = await connected(t);
  for (const [verb, failure, kind] of [
    ['planMove', new StateError('OPERATION_INVALID', 'off'), library.NotReady],
    ['chain', new NotFoundError('NO_DOMAIN', 'none'), library.Gone],
    ['define', new NeedsOperatorError('look', { operation: 3 }), library.NeedsPerson],
  ] as const) {
    host.failures.set(verb, failure);
    const asked = {
      planMove: () => ferry.planMove('vm1', { disks: 'vda', to: '/b' }),
      chain: () => ferry.chain('vm1'),
      define: () => ferry.define('<domain/>'),
    }[verb];
    await assert.rejects(asked, (error) => {
      assert.ok(error instanceof kind, String(error));
      assert.equal(error.message, failure.message);
      return true;
    });
  }
});

test('a daemon that goes away with a request leaves it Unanswered', async (t) => {
  const runDir = await mkdtemp(join(tmpdir(), 'ferry-library-'));
  const server = createServer((request, response) => {
    if (request.url === '/v1/version') response.end('{}');
    else request.socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(join(runDir, 'ferry.sock'), resolve));
  t.after(async () => {
    server.close();
    await rm(runDir, { recursive: true });
  });
  const ferry = await connect({ runDir });
  await assert.rejects(ferry.destroy('vm1'), (error) => {
    assert.ok(error instanceof library.Unanswered);
    assert.equal(error.sourceIntact, null);
    return true;
  });
});

test('the types that a user sees need no other package, and none of the daemon', () => {
  const seen = declarationsFrom(new URL('../index.d.ts', import.meta.url).pathname);
  const packages = [...seen.values()].flat().filter((name) => !/^(\.|node:)/.test(name));
  assert.deepEqual(packages, []);
  const inner = [...seen.keys()].filter((path) =>
    /\/src\/(journal|job|image|qmp|plan|daemon|cli|rpc)\//.test(path),
  );
  assert.deepEqual(inner, []);
});

/** Every declaration file that one leads to, with what it imports. */
function declarationsFrom(path: string, seen = new Map<string, readonly string[]>()): typeof seen {
  if (seen.has(path)) return seen;
  assert.ok(existsSync(path), `${path}: it is built`);
  const text = readFileSync(path, 'utf8');
  const names = [...text.matchAll(/(?:\bfrom |\bimport\(|\bimport )['"]([^'"]+)['"]/g)].map(
    (match) => match[1] ?? '',
  );
  seen.set(path, names);
  for (const name of names.filter((one) => one.startsWith('.')))
    declarationsFrom(join(dirname(path), name.replace(/\.js$/, '.d.ts')), seen);
  return seen;
}
