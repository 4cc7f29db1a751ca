// `ferry limit`, `ferry pause` and `ferry resume`: what is said of the copies of a move holds at once, and outlives ferryd.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import type { OperationProgress, OperationView } from '../../src/host/ferry-host.js';
import { fromJson } from '../../src/http/wire.js';
import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { withLab, type Lab } from '../lib/lab.js';
import { endsWell, resuming, sources, writeMore } from '../lib/mirrored.js';
import { beginMove, heavyGuest, operation } from '../lib/moves.js';
import { must } from '../lib/process.js';
import { cannotMount, SmallStorage } from '../lib/storage.js';

const untilPhase = async (lab: Lab, id: number, phase: string): Promise<OperationProgress> =>
  await until(
    async () => {
      const { progress } = await operation(lab, id);
      return progress?.phase === phase && progress.doneBytes > 0n ? progress : null;
    },
    30_000,
    `operation ${id} is ${phase}`,
  );

test('a move is slowed down, stands still over the death of ferryd, and goes on when it may', async () => {
  await withLab('pace', async (lab) => {
    const guest = await heavyGuest(lab, 96);
    const id = await beginMove(lab, '--bandwidth', '4M');
    const begun = await untilPhase(lab, id, 'copying');
    assert.equal(begun.limitBytesPerSecond, 4n << 20n);
    await lab.mustFerry('limit', String(id), '2M');
    assert.match(await lab.mustFerry('ops', 'show', String(id)), /at most 2 MiB\/s/);

    await lab.mustFerry('pause', String(id));
    const paused = await untilPhase(lab, id, 'paused');
    await writeMore(guest, 600);
    const later = await untilPhase(lab, id, 'paused');
    // What was under way when it was said comes to its end.
    const more = later.doneBytes - paused.doneBytes;
    assert.ok(more <= 8n << 20n, `${more} bytes were copied meanwhile`);
    await writeMore(guest, 300);
    const still = await untilPhase(lab, id, 'paused');
    assert.equal(still.doneBytes, later.doneBytes);

    await present(lab.daemons.at(-1), 'it was started').kill9();
    await lab.ferryd();
    await until(
      async () => ((await operation(lab, id)).progress?.phase === 'paused' ? true : null),
      30_000,
      'the next ferryd lets it stand',
    );

    await lab.mustFerry('limit', String(id), 'none');
    await lab.mustFerry('resume', String(id));
    await lab.mustFerry('watch', String(id), '--progress=none');
    assert.deepEqual(await sources(lab), [join(lab.b, 'vm1-vda.qcow2')]);
    for (const args of [['limit', '1M'], ['pause'], ['resume']]) {
      const [verb = '', ...rest] = args;
      const { code, stderr } = await lab.ferry(verb, String(id), ...rest);
      assert.equal(code, 4);
      assert.match(stderr, /it has ended \(committed\)/);
    }
    await endsWell(lab, guest);
  });
});

test('a paused move can be cancelled, and leaves nothing', async () => {
  await withLab('pace-cancel', async (lab) => {
    const guest = await heavyGuest(lab, 96);
    const id = await beginMove(lab, '--bandwidth', '4M');
    await untilPhase(lab, id, 'copying');
    await lab.mustFerry('pause', String(id));
    await untilPhase(lab, id, 'paused');
    await lab.mustFerry('cancel', String(id));
    await lab.ferry('watch', String(id));
    assert.equal((await operation(lab, id)).status, 'rolled-back');
    assert.deepEqual(
      (await lab.leftovers()).files.filter((file) => file.startsWith('b/')),
      [],
    );
    await endsWell(lab, guest);
  });
});

test(
  'disks of two storages are copied at once, each from where it was when ferryd dies',
  { skip: cannotMount },
  async () => {
    await withLab('pace-two', async (lab) => {
      const other = join(lab.directory, 'c');
      await mkdir(other);
      await using _storage = await SmallStorage.mount(other, 256);
      const files = [join(lab.a, 'vda.qcow2'), join(other, 'vdb.qcow2')];
      for (const file of files) {
        await lab.createImage(file, { sizeMiB: 256 });
        const write = 'write -P 165 64M 64M';
        await must(join(dirname(lab.qemu.img), 'qemu-io'), ['-f', 'qcow2', '-c', write, file]);
      }
      const disks = files.map((file) => ({ file }));
      const guest = await lab.guest({ name: 'vm1', disks, writer: resuming });
      await lab.ferryd();
      await lab.mustVirsh('define', guest.xmlFile);
      await lab.mustVirsh('start', 'vm1');
      await guest.serial.waitAcked(300);
      const options = ['--bandwidth', '16M', '--detach', '--json'];
      const begun = await lab.mustFerry('move', 'vm1', 'vda', 'vdb', '--to', lab.b, ...options);
      const { id } = fromJson(begun) as OperationView; // our own CLI
      const bothHave = async (bytes: bigint): Promise<OperationView> =>
        await until(
          async () => {
            const now = await operation(lab, id);
            const { copies } = now;
            return copies.length === 2 && copies.every((copy) => copy.copiedBytes >= bytes)
              ? now
              : null;
          },
          30_000,
          `${bytes} bytes of both copies are durable`,
        );
      const both = await bothHave(8n << 20n);
      assert.ok(
        both.copies.every(({ how }) => how === null),
        'none of them is whole yet',
      );
      assert.ok(both.progress?.disks.every(({ doneBytes }) => doneBytes > 0n));

      await present(lab.daemons.at(-1), 'it was started').kill9();
      await lab.ferryd();
      await lab.mustFerry('limit', String(id), 'none');
      await lab.mustFerry('watch', String(id), '--progress=none');
      const { copies } = await operation(lab, id);
      assert.deepEqual(
        copies.map(({ resumes }) => resumes.map(({ keptBytes }) => keptBytes >= 8n << 20n)),
        [[true], [true]],
      );
      assert.deepEqual(await sources(lab), [join(lab.b, 'vda.qcow2'), join(lab.b, 'vdb.qcow2')]);
      await endsWell(lab, guest);
    });
  },
);
