// What a move shows while it runs, on a real guest that writes; and a limit that keeps that guest's writes quick.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';

import type { OperationProgress, StreamedEvent } from '../../src/host/ferry-host.js';
import { fromJson } from '../../src/http/wire.js';
import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { withLab, type Lab } from '../lib/lab.js';
import { endsWell, sources } from '../lib/mirrored.js';
import { beginMove, heavyGuest, operation } from '../lib/moves.js';

async function untilSeen(
  lab: Lab,
  id: number,
  what: string,
  isSo: (progress: OperationProgress) => boolean,
): Promise<OperationProgress> {
  const look = async (): Promise<OperationProgress | null> => {
    const { progress } = await operation(lab, id);
    return progress !== null && isSo(progress) ? progress : null;
  };
  return await until(look, 45_000, `operation ${id}: ${what}`, 500);
}

const hasHistogram = async (lab: Lab): Promise<boolean> =>
  (await lab.mustVirsh('qemu-monitor-command', 'vm1', '{"execute":"query-blockstats"}')).includes(
    'histogram',
  );

test('a move shows what it does and what its guest feels of it, and that a low limit will not do', async () => {
  await withLab('watching', async (lab) => {
    const guest = await heavyGuest(lab, 48);
    const id = await beginMove(lab, '--bandwidth', '128K');
    const seen = await untilSeen(
      lab,
      id,
      'does not converge',
      ({ convergence }) => convergence.state === 'diverges',
    );
    const vda = present(seen.disks[0], 'it moves one disk');
    for (const rates of [seen, vda]) {
      assert.ok((rates.guestBytesPerSecond ?? 0n) > 0n);
      // The bitmap of a mirror knows whole clusters only.
      assert.ok((rates.dirtyBytesPerSecond ?? 0n) >= (rates.guestBytesPerSecond ?? 0n));
      assert.ok((rates.mirrorBytesPerSecond ?? 0n) > 0n);
      assert.ok(rates.lagBytes !== null && rates.lagBytes < 64n << 20n);
      for (const latency of [rates.latency.before, rates.latency.now]) {
        assert.ok(latency !== null && latency.writes > 0, JSON.stringify(rates.latency));
        assert.ok(latency.p50Ms > 0 && latency.p50Ms <= latency.p99Ms && latency.p99Ms < 20_000);
      }
    }
    assert.ok(seen.totalBytes >= 48n << 20n && seen.doneBytes < seen.totalBytes);
    assert.equal(vda.totalBytes, seen.totalBytes);
    // Of 48 MiB at 128 KiB a second more than half is left.
    assert.ok(seen.readySeconds !== null && seen.readySeconds.least > 60);
    assert.ok((seen.readySeconds.most ?? Infinity) >= seen.readySeconds.least);

    const types = seen.convergence.ladder.map(({ type }) => type);
    assert.deepEqual(types, [`ferry limit ${id} none`, `ferry watch ${id}`, `ferry cancel ${id}`]);
    const shown = await lab.mustFerry('ops', 'show', String(id));
    assert.match(shown, /will not converge {2,}the frozen images are copied at 128 KiB\/s/);
    assert.match(shown, new RegExp(`ferry limit ${id} none +# let the copies`));
    const told = (await lab.mustFerry('events')).match(/MOVE_NOT_CONVERGING/g) ?? [];
    assert.equal(told.length, 1);

    await lab.mustFerry('limit', String(id), 'none');
    const lines = (await lab.mustFerry('watch', String(id), '--progress=json'))
      .trimEnd()
      .split('\n')
      .map((line) => fromJson(line) as Partial<OperationProgress> & { readonly type: string }); // our own CLI
    assert.equal(lines.at(-1)?.type, 'end');
    assert.ok(lines.every(({ percent = 0, ready = true }) => ready || percent < 100));
    assert.deepEqual(await sources(lab), [join(lab.b, 'vm1-vda.qcow2')]);
    await until(
      async () => ((await hasHistogram(lab)) ? null : true),
      10_000,
      'the histogram is gone with the move',
    );
    await endsWell(lab, guest);
  });
});

test('ferryd tells a command and a webhook what happens', async (t) => {
  const posted: string[] = [];
  const web = createServer((request, response) => {
    void text(request).then((body) => {
      posted.push(body);
      response.end();
    });
  }).listen(0, '127.0.0.1');
  await once(web, 'listening');
  t.after(() => {
    web.closeAllConnections();
    web.close();
  });
  const { port } = web.address() as AddressInfo; // It listens on a port.
  await withLab('told', async (lab) => {
    const file = join(lab.directory, 'told');
    const outlets = ['--on-event', `cat >> ${file}`, '--webhook', `http://127.0.0.1:${port}/hook`];
    await lab.ferryd({ args: outlets });
    const guest = await lab.guest({ name: 'vm1' });
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('undefine', 'vm1');
    const told = await until(
      async () => {
        const lines = await readFile(file, 'utf8').catch(() => '');
        return lines.split('\n').length > 2 && posted.length > 1 ? lines : null;
      },
      20_000,
      'both events are told',
    );
    assert.deepEqual(told.trimEnd().split('\n'), posted);
    assert.deepEqual(
      posted.map((json) => (fromJson(json) as StreamedEvent).event['event']), // our own API
      ['defined', 'undefined'],
    );
  });
});

test('a limit that moves by itself goes up while the guest does not suffer, down when it does, and outlives ferryd', async () => {
  await withLab('auto', async (lab) => {
    const guest = await heavyGuest(lab, 64);
    const id = await beginMove(lab, '--bandwidth', '512K');
    await untilSeen(lab, id, 'copies', ({ phase }) => phase === 'copying');
    // No write takes so little: from wherever it is, it goes down to its least.
    await lab.mustFerry('limit', String(id), 'auto', '--latency', '0.001ms');
    const least = await untilSeen(
      lab,
      id,
      'the limit is at its least',
      ({ limitBytesPerSecond }) => limitBytesPerSecond === 1n << 20n,
    );
    assert.deepEqual(least.auto, { latencyMs: 0.001 });
    // None takes so much: it goes up.
    await lab.mustFerry('limit', String(id), 'auto', '--latency', '60s');
    await untilSeen(
      lab,
      id,
      'the limit goes up',
      ({ limitBytesPerSecond }) => (limitBytesPerSecond ?? 0n) > 1n << 20n,
    );

    await lab.mustFerry('pause', String(id));
    await present(lab.daemons.at(-1), 'it was started').kill9();
    await lab.ferryd();
    const paused = await untilSeen(lab, id, 'stands still', ({ phase }) => phase === 'paused');
    assert.deepEqual(paused.auto, { latencyMs: 60_000 });
    const { stderr, code } = await lab.ferry('limit', String(id), '1M', '--latency', '20ms');
    assert.equal(code, 2);
    assert.match(stderr, /--latency goes with the rate auto only/);
    await lab.mustFerry('limit', String(id), 'none');
    await lab.mustFerry('resume', String(id));
    await lab.mustFerry('watch', String(id), '--progress=none');
    assert.equal((await operation(lab, id)).progress?.auto, null);
    await endsWell(lab, guest);
  });
});
