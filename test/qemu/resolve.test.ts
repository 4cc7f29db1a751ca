// An operation that waits for a person, on real QEMU: the storage of a move goes away in the middle of its copy, and
// ferryd is killed, so that the next one cannot tell what became of that step.

import assert from 'node:assert/strict';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { nothingLost, writeMore } from '../lib/mirrored.js';
import { beginMove, heavyGuest, operation } from '../lib/moves.js';

/** Ballast, and how fast it is copied: some seconds. */
const ballastMiB = 96;
const bandwidth = '16M';

/** What is at the place of a storage that went away. */
const instead = {
  'an empty mount point': async (folder: string) => await mkdir(folder),
  'something else': async (folder: string) => await writeFile(folder, ''),
} as const;

/** A move of which nobody can tell how far its copy came: `there` is where its destination was. */
async function stuckMove(lab: Lab, there: keyof typeof instead): Promise<number> {
  const id = await beginMove(lab, '--bandwidth', bandwidth);
  const isHalfDone = async (): Promise<true | null> => {
    const { progress } = await operation(lab, id);
    return progress !== null && 3 * Number(progress.doneBytes) > Number(progress.totalBytes)
      ? true
      : null;
  };
  await until(isHalfDone, 60_000, 'a third is copied');
  await present(lab.daemons.at(-1), 'it was started').kill9();
  await rename(lab.b, `${lab.b}.away`);
  await instead[there](lab.b);
  await lab.ferryd();
  const waits = async (): Promise<true | null> =>
    (await operation(lab, id)).status === 'attention' ? true : null;
  await until(waits, 60_000, 'the move waits for a person');
  return id;
}

async function isBack(lab: Lab): Promise<void> {
  await rm(lab.b, { recursive: true });
  await rename(`${lab.b}.away`, lab.b);
}

async function ends(lab: Lab, guest: LabGuest, image: string): Promise<void> {
  await writeMore(guest, 200);
  await lab.mustVirsh('destroy', 'vm1');
  await nothingLost(guest, [image]);
}

test('a move whose storage went away waits for a person, and goes on when he says so', async () => {
  await withLab('resolve-forward', async (lab) => {
    const guest = await heavyGuest(lab, ballastMiB);
    const id = await stuckMove(lab, 'an empty mount point');
    const stuck = await operation(lab, id);
    assert.match(
      stuck.story.waitsFor ?? '',
      /\.part, is gone; is its storage mounted\?; it cannot be told whether step \d+ \(copy-image\)/,
    );
    assert.equal(stuck.direction, 'forward');
    const doctor = await lab.ferry('doctor', 'vm1');
    assert.equal(doctor.code, 7);
    assert.match(doctor.stdout, new RegExp(`ferry ops resolve ${id} --forward --not-done`));
    // The guest is on its source, and does not care.
    assert.match(doctor.stdout, new RegExp(`LIVE ▶ ${lab.a}/vm1-vda\\.qcow2\\.move-`));
    await guest.serial.waitAcked(guest.serial.acked() + 100);

    // Nothing is mended, so nothing can be told: it stays as it is.
    const early = await lab.ferry('ops', 'resolve', String(id), '--forward');
    assert.equal(early.code, 7, early.stderr);
    assert.equal((await operation(lab, id)).status, 'attention');

    await isBack(lab);
    const resolved = await lab.ferry('ops', 'resolve', String(id), '--forward');
    assert.equal(resolved.code, 0, resolved.stderr);
    const done = await operation(lab, id);
    assert.equal(done.status, 'committed');
    assert.deepEqual(
      done.story.said.map(({ text }) => text),
      ['forward', 'forward'],
    );
    assert.match(done.story.said[0]?.by ?? '', /uid \d+/);
    assert.deepEqual(await readdir(lab.b), ['vm1-vda.qcow2']);
    const late = await lab.ferry('ops', 'resolve', String(id), '--back');
    assert.equal(late.code, 4);
    assert.match(late.stderr, /it has ended \(committed\)/);
    await ends(lab, guest, join(lab.b, 'vm1-vda.qcow2'));
  });
});

test('the same move is taken back when a person says so, and leaves nothing', async () => {
  await withLab('resolve-back', async (lab) => {
    const guest = await heavyGuest(lab, ballastMiB);
    const id = await stuckMove(lab, 'something else');
    await isBack(lab);
    const resolved = await lab.ferry('ops', 'resolve', String(id), '--back');
    assert.equal(resolved.code, 0, resolved.stderr);
    const undone = await operation(lab, id);
    assert.equal(undone.status, 'rolled-back');
    assert.match(undone.reason ?? '', /^rolled back by .*uid \d+/);
    assert.deepEqual(await readdir(lab.b), []);
    assert.deepEqual(await readdir(lab.a), ['vm1-vda.qcow2']);
    assert.equal((await lab.ferry('doctor')).code, 0);
    await ends(lab, guest, present(guest.files[0], 'it has one disk'));
  });
});
