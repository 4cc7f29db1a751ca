// Events told to a command and to a webhook: all of them, in order, and nobody waits for one that hangs.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { test } from 'node:test';

import type { StreamedEvent } from '../host/ferry-host.js';
import { until } from '../std/deadline.js';
import { RequestError } from '../std/errors.js';
import { parseOptions } from './options.js';
import type { Outlet } from './outlets.js';
import { commandOutlet, feed, webhookOutlet } from './outlets.js';

const event = (seq: number): StreamedEvent => ({
  seq,
  time: '2026-01-02T03:04:05.000Z',
  domain: 'u',
  domainName: 'vm1',
  event: { type: 'monitor', event: 'MIRROR_PAUSED', details: `it's "${seq}"` },
});

interface Warning {
  readonly outlet: string;
  readonly seq: number;
  readonly error?: string;
}

function logged() {
  const warnings: Warning[] = [];
  return { warnings, log: { warn: (what: Warning) => void warnings.push(what) } as never };
}

const untilSo = async (what: string, isSo: () => boolean | Promise<boolean>): Promise<void> => {
  await until(async () => ((await isSo()) ? true : null), 20_000, what, 5);
};

async function fileIn(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-outlet-'));
  t.after(async () => await rm(directory, { recursive: true }));
  return join(directory, 'told');
}

const seqsIn = async (file: string): Promise<readonly number[]> =>
  (await readFile(file, 'utf8').catch(() => ''))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as StreamedEvent).seq);

test('a command gets every event as a line of JSON, in order, those after a failure too', async (t) => {
  const file = await fileIn(t);
  const { warnings, log } = logged();
  // The second one fails after it has told why.
  const command = `read -r line; echo "$line" >> ${file}; case $line in *'"seq":2,'*) echo no luck >&2; exit 3;; esac`;
  const tell = feed(commandOutlet(command), log);
  for (const seq of [1, 2, 3, 4]) tell(event(seq));
  await untilSo('four are told', async () => (await seqsIn(file)).length === 4);
  assert.deepEqual(await seqsIn(file), [1, 2, 3, 4]);
  assert.deepEqual(JSON.parse((await readFile(file, 'utf8')).split('\n')[0] ?? ''), event(1));
  await untilSo('the failure is logged', () => warnings.length === 1);
  assert.equal(warnings[0]?.seq, 2);
  assert.equal(warnings[0]?.error, 'it ended with 3: no luck');
});

test('a command that hangs is killed with what it started, and the next event is told', async (t) => {
  const file = await fileIn(t);
  const { warnings, log } = logged();
  const command = `read -r line; case $line in *'"seq":1,'*) sleep 1000 & echo $! > ${file}.pid; wait;; esac; echo "$line" >> ${file}`;
  const tell = feed(commandOutlet(command), log, { timeoutMs: 700, waiting: 10 });
  tell(event(1));
  tell(event(2));
  await untilSo('the second is told', async () => (await seqsIn(file)).length > 0);
  assert.deepEqual(await seqsIn(file), [2]);
  assert.match(warnings[0]?.error ?? '', /took too long/);
  const pid = Number(await readFile(`${file}.pid`, 'utf8'));
  await untilSo('its child is gone', async () => {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
    // A zombie is dead; who reaps it takes his time.
    return stat === null || / Z /.test(stat);
  });
});

test('a command that is not there, or does not read, holds nothing up', async (t) => {
  const file = await fileIn(t);
  const { warnings, log } = logged();
  feed(commandOutlet('/nowhere/at-all'), log)(event(1));
  await untilSo('it is logged', () => warnings.length === 1);
  const tell = feed(commandOutlet(`echo '{"seq":9}' >> ${file}`), log);
  tell({ ...event(1), event: { type: 'monitor', details: 'x'.repeat(1 << 20) } });
  await untilSo('it ran', async () => (await seqsIn(file)).length === 1);
  assert.equal(warnings.length, 1);
});

async function server(t: TestContext, listener: RequestListener): Promise<URL> {
  const web = createServer(listener).listen(0, '127.0.0.1');
  await once(web, 'listening');
  t.after(() => {
    web.closeAllConnections();
    web.close();
  });
  const { port } = web.address() as AddressInfo; // It listens on a port.
  return new URL(`http://user:secret@127.0.0.1:${port}/hook?token=secret`);
}

test('a webhook gets every event as a POST, in order, those after a failure or a silence too', async (t) => {
  const bodies: StreamedEvent[] = [];
  const url = await server(t, (request, response) => {
    const { method, headers } = request;
    assert.equal(`${method} ${headers['content-type']}`, 'POST application/json');
    assert.equal(headers.authorization, `Basic ${btoa('user:secret')}`);
    void text(request).then((body) => {
      const told = JSON.parse(body) as StreamedEvent; // Our own.
      bodies.push(told);
      if (told.seq === 2) response.writeHead(500).end('no');
      else if (told.seq !== 3) response.end();
    });
  });
  const { warnings, log } = logged();
  const tell = feed(webhookOutlet(url), log, { timeoutMs: 1500, waiting: 10 });
  for (const seq of [1, 2, 3, 4]) tell(event(seq));
  await untilSo('four are told', () => bodies.length === 4);
  assert.deepEqual(bodies, [1, 2, 3, 4].map(event));
  assert.deepEqual(
    warnings.map(({ seq }) => seq),
    [2, 3],
  );
  assert.equal(warnings[0]?.error, 'it answered 500');
  assert.ok(!JSON.stringify(warnings).includes('secret'));
});

test('of too many that wait the oldest are dropped, and that is said', async () => {
  const told: string[] = [];
  let free: () => void = () => undefined;
  const slow: Outlet = {
    name: 'slow',
    tell: async (json) => {
      told.push(json);
      if (told.length === 1) await new Promise<void>((resolve) => (free = resolve));
    },
  };
  const { warnings, log } = logged();
  const tell = feed(slow, log, { timeoutMs: 60_000, waiting: 2 });
  for (const seq of [1, 2, 3, 4, 5]) tell(event(seq));
  assert.deepEqual(
    warnings.map(({ seq }) => seq),
    [2, 3],
  );
  free();
  await untilSo('the rest is told', () => told.length === 3);
  assert.deepEqual(
    told.map((json) => (JSON.parse(json) as StreamedEvent).seq),
    [1, 4, 5],
  );
});

test('who is told stands on the command line; an address of another kind is refused', () => {
  const none = parseOptions([], '0');
  assert.deepEqual([none.onEvent, none.webhook], [null, null]);
  const given = parseOptions(['--on-event', 'logger -t ferry', '--webhook', 'https://h/p'], '0');
  assert.deepEqual([given.onEvent, given.webhook?.href], ['logger -t ferry', 'https://h/p']);
  for (const url of ['ftp://h/p', 'h/p'])
    assert.throws(() => parseOptions(['--webhook', url], '0'), RequestError);
});
