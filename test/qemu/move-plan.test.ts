// `ferry plan move` and `ferry apply` on a real guest: a plan changes nothing and is right about what follows; one whose
// world has changed is refused.

import assert from 'node:assert/strict';
import { mkdir, readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import type { OperationView } from '../../src/host/ferry-host.js';
import type { MovePlan } from '../../src/host/move-plan.js';
import { fromJson } from '../../src/http/wire.js';
import { until } from '../../src/std/deadline.js';
import { withLab, type Lab } from '../lib/lab.js';
import { endsWell } from '../lib/mirrored.js';
import { beginMove, heavyGuest, operation } from '../lib/moves.js';
import { cannotMount, SmallStorage } from '../lib/storage.js';

const MiB = 1024n * 1024n;

async function planOf(lab: Lab, ...options: readonly string[]): Promise<MovePlan> {
  const args = ['--json', 'plan', 'move', 'vm1', 'vda', '--to', lab.b, ...options];
  return fromJson(await lab.mustFerry(...args)) as MovePlan; // our own CLI
}

async function operations(lab: Lab): Promise<readonly OperationView[]> {
  return fromJson(await lab.mustFerry('--json', 'ops', '--all')) as OperationView[]; // our own CLI
}

test('a plan changes nothing, and its move takes what it said', async () => {
  await withLab('plan', async (lab) => {
    const guest = await heavyGuest(lab, 96);
    const before = (await operations(lab)).length;
    const plan = await planOf(lab);
    assert.equal((await operations(lab)).length, before);
    assert.deepEqual(await readdir(lab.b), []);

    const [disk] = plan.disks;
    assert.deepEqual(
      disk?.before.map(({ path }) => path),
      guest.files,
    );
    assert.deepEqual(
      disk?.after.map(({ path }) => path),
      [join(lab.b, 'vm1-vda.qcow2')],
    );
    assert.ok(plan.copyBytes >= 96n * MiB && plan.copyBytes < 160n * MiB, `${plan.copyBytes}`);
    assert.ok(plan.rates.guestBytesPerSecond > 0n, 'the guest writes');
    assert.ok(plan.risks.some((risk) => risk.includes('same file system')));
    assert.equal((await planOf(lab)).hash, plan.hash, 'the guest goes on writing: no change');

    await lab.mustFerry('apply', plan.hash, '--progress=none');
    const move = (await operations(lab)).find(({ kind }) => kind === 'move');
    assert.equal(move?.status, 'committed');
    const ms = Date.parse(move?.endedAt ?? '') - Date.parse(move?.startedAt ?? '');
    assert.ok(plan.seconds !== null && ms <= plan.seconds.most * 1000, `${ms} ms`);
    await endsWell(lab, guest);
  });
});

test('a plan whose world has changed is refused, with what changed, and nothing is done', async () => {
  await withLab('plan-old', async (lab) => {
    const guest = await heavyGuest(lab, 16);
    const layer = join(lab.a, 'more.qcow2');
    const snapshot = ['--disk-only', '--no-metadata', '--diskspec', `vda,file=${layer}`];
    for (const [change, told] of [
      [
        async () => await lab.mustVirsh('snapshot-create-as', 'vm1', 's1', ...snapshot),
        /chain of vda was \S+vm1-vda\.qcow2 \(qcow2\), is \S+more\.qcow2 \(qcow2\) over/,
      ],
      [
        async () => {
          await lab.mustVirsh('destroy', 'vm1');
          await lab.mustVirsh('start', 'vm1');
        },
        /life of QEMU was id 1, is id 2/,
      ],
      [async () => await rename(lab.b, `${lab.b}.old`), /folder \S+ was inode \d+, is not there/],
      [
        async () => await lab.mustVirsh('destroy', 'vm1'),
        /life of QEMU was id \d+, is shut off\. Nothing was done/,
      ],
    ] as const) {
      const { hash } = await planOf(lab);
      await change();
      const { code, stderr } = await lab.ferry('apply', hash);
      assert.match(stderr, told);
      assert.ok(code === 4 || code === 2, `exit ${code}`);
      await mkdir(lab.b, { recursive: true });
      assert.deepEqual(await readdir(lab.b), []);
    }
    const unknown = await lab.ferry('apply', '0123456789ab');
    assert.equal(unknown.code, 3);
    assert.match(unknown.stderr, /no plan 0123456789ab; plans are kept while ferryd runs/);
    await lab.mustVirsh('start', 'vm1');
    // A disk that is gone, or has another name now.
    const { hash } = await planOf(lab);
    await lab.mustVirsh('destroy', 'vm1');
    const xml = await lab.mustVirsh('dumpxml', 'vm1', '--inactive');
    await writeFile(guest.xmlFile, xml.replace("<target dev='vda'", "<target dev='vdc'"));
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('start', 'vm1');
    const gone = await lab.ferry('apply', hash);
    assert.equal(gone.code, 4);
    assert.match(gone.stderr, /chain of vda was \S+more\.qcow2 .*, is none/);
    await endsWell(lab, guest);
  });
});

test(
  'a plan for which there is no room is refused, on either side',
  { skip: cannotMount },
  async () => {
    await withLab('plan-room', async (lab) => {
      await using destination = await SmallStorage.mount(lab.b, 64);
      await using source = await SmallStorage.mount(lab.a, 170);
      const guest = await heavyGuest(lab, 96);
      const plan = ['plan', 'move', 'vm1', 'vda', '--to', lab.b];
      const refused = async (...options: readonly string[]): Promise<string> => {
        const { code, stderr } = await lab.ferry(...plan, ...options);
        assert.equal(code, 4, stderr);
        return stderr;
      };
      assert.match(await refused(), /the images need \d+ bytes and \d+ are free there; make room/);

      // At such a pace the guest would have filled its storage before the end.
      await destination.resize(1000);
      assert.match(
        await refused('--bandwidth', '500K'),
        new RegExp(`the guest writes \\d+ bytes a second.* will be free in ${lab.a}; make room`),
      );

      // What a move has still to write is not there for another one.
      await source.resize(600);
      await lab.createImage(join(lab.a, 'other.qcow2'));
      const other = await lab.guest({ name: 'vm2', disks: [{ file: join(lab.a, 'other.qcow2') }] });
      await lab.mustVirsh('create', other.xmlFile);
      const id = await beginMove(lab, '--bandwidth', '1M');
      await untilCopying(lab, id);
      await destination.resize(80);
      const { stderr } = await lab.ferry('plan', 'move', 'vm2', 'vda', '--to', lab.b);
      assert.match(stderr, /free there, of which other moves have still to write \d+; make room/);
      await destination.resize(400);
      await lab.mustFerry('ops', 'cancel', String(id));
      await lab.ferry('ops', 'wait', String(id));
      await endsWell(lab, guest);
      await lab.mustVirsh('destroy', 'vm2');
    });
  },
);

const untilCopying = async (lab: Lab, id: number): Promise<void> =>
  void (await until(
    async () => ((await operation(lab, id)).progress?.phase === 'copying' ? true : null),
    30_000,
    'the base is being copied',
  ));
