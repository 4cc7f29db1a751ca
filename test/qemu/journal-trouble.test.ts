// The disk of the journal fills up or fails while the daemon works: verbs say so, guests and the daemon go on, and what
// was interrupted is brought to its end by itself once the disk is well again.

import assert from 'node:assert/strict';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { until } from '../../src/std/deadline.js';
import { FailingDisk } from '../lib/failing-disk.js';
import type { FerrydOptions } from '../lib/ferryd.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { endsWell, running as guestRuns, sources } from '../lib/mirrored.js';
import { fill, inMounts, small, whereRuns } from '../lib/mounts.js';

async function running(lab: Lab, options: FerrydOptions): Promise<LabGuest> {
  await lab.ferryd(options);
  return await guestRuns(lab, 1);
}

interface Shown {
  readonly id: number;
  readonly kind: string;
  readonly status: string;
}

const operations = async (lab: Lab): Promise<readonly Shown[]> =>
  JSON.parse(await lab.mustFerry('ops', '--all', '--json')) as readonly Shown[]; // our own CLI; newest first

/** The status of the newest operation once nothing is open. */
async function settled(lab: Lab): Promise<string> {
  const look = async (): Promise<string | null> => {
    const all = await operations(lab);
    return all.some(({ status }) => status === 'running') ? null : (all[0]?.status ?? null);
  };
  return await until(look, 60_000, 'no operation is open', 100);
}

const isTheDaemon = (lab: Lab): boolean => lab.daemons.length === 1;

test('the disk fills up: verbs say so, the guest goes on, and with room again they work', async () => {
  await withLab('fills', async (lab) => {
    const guest = await running(lab, { under: inMounts(small(lab.stateDir, 8)) });
    const pid = lab.daemons[0]?.pid ?? 0;
    await whereRuns(pid, fill(lab.stateDir));
    for (const [program, said] of [
      ['virsh', await lab.virsh('suspend', 'vm1')],
      ['ferry', await lab.ferry('move', 'vm1', 'vda', '--to', lab.b)],
    ] as const) {
      assert.notEqual(said.code, 0, program);
      assert.match(
        said.stderr,
        /journal: cannot write .*ferry\.db: its file system is full \(.*\); make room there; the guests run on meanwhile/,
        program,
      );
    }
    await guest.serial.waitProgress();
    assert.match(await lab.mustVirsh('domstate', 'vm1'), /running/);
    assert.deepEqual(await readdir(lab.b), []);

    await whereRuns(pid, `rm '${lab.stateDir}/fill'`);
    await lab.daemons[0]?.waitLog('the journal is well again');
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b);
    assert.deepEqual(await sources(lab), [join(lab.b, 'vm1-vda.qcow2')]);
    await endsWell(lab, guest);
    assert.ok(isTheDaemon(lab));
  });
});

test('a guest that ends while nothing can be written is known to have ended afterwards', async () => {
  await withLab('ends', async (lab) => {
    const disk = await FailingDisk.at(lab.directory);
    const guest = await running(lab, { env: disk.env });
    await disk.failAfter(0, 'EIO');
    const refused = await lab.virsh('destroy', 'vm1');
    assert.match(refused.stderr, /its storage fails .*; look into 'dmesg'/);
    await guest.serial.waitProgress();
    const left = await lab.leftovers();
    const qemu = left.processes.filter((command) => command.includes('qemu-system'));
    assert.equal(qemu.length, 1);
    await lab.virsh('qemu-monitor-command', 'vm1', '{"execute":"quit"}');
    await lab.daemons[0]?.waitLog('look at QEMU failed');
    await disk.mend();
    const gone = async (): Promise<true | null> =>
      (await lab.mustVirsh('domstate', 'vm1', '--reason')).includes('shut off (crashed)')
        ? true
        : null;
    await until(gone, 20_000, 'its end is known');
    await lab.mustVirsh('start', 'vm1');
    await endsWell(lab, guest);
  });
});

/** How far apart the transactions are at which the disk fails. */
const STRIDE = Number(process.env['FERRY_STRIDE'] ?? 4);

for (const [code, first] of [
  ['EIO', 1],
  ['ENOSPC', 3],
] as const) {
  test(`the disk fails (${code}) at every ${STRIDE}th transaction of a move: it is brought to its end, the guest goes on`, async (t) => {
    await withLab(`fails-${code}`, async (lab) => {
      const disk = await FailingDisk.at(lab.directory);
      const guest = await running(lab, { env: disk.env });
      const outcomes: string[] = [];
      let folders: readonly [string, string] = [lab.a, lab.b];
      for (let n = first; ; n += STRIDE) {
        const [here, there] = folders;
        for (const file of await readdir(there)) await rm(join(there, file));
        await disk.failAfter(n, code);
        const { code: exit, stderr } = await lab.ferry('move', 'vm1', 'vda', '--to', there);
        if (exit !== 0)
          assert.match(stderr, /stays open and goes on by itself|cannot write/, stderr);
        // What stays open is seen at once, and not only when somebody goes on with it.
        if (stderr.includes('stays open'))
          assert.equal((await operations(lab))[0]?.kind, 'move', stderr);
        await disk.mend();
        const status = await settled(lab);
        outcomes.push(`${n}: ${exit} ${status}`);
        await guest.serial.waitProgress();
        const [live] = await sources(lab);
        assert.equal(
          live,
          join(status === 'committed' ? there : here, 'vm1-vda.qcow2'),
          outcomes.at(-1),
        );
        if (status === 'committed') folders = [there, here];
        if (exit === 0) break;
      }
      t.diagnostic(outcomes.join(', '));
      assert.ok(outcomes.length > 4, 'the disk failed where the move was under way');
      await endsWell(lab, guest);
      assert.ok(isTheDaemon(lab));
    });
  });
}
