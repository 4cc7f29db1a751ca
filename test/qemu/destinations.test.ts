// Where a move puts a disk and in what form: one image of a chain, a base that is there already, a file name, other
// clusters. Whatever comes between, the guest has all that it wrote, and what is not ours stays as it is.

import assert from 'node:assert/strict';
import { copyFile, mkdir, readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { type Lab, type LabGuest, withLab } from '../lib/lab.js';
import { endsWell, resuming, sources, writeMore } from '../lib/mirrored.js';
import { heavyGuest, operation } from '../lib/moves.js';
import { must } from '../lib/process.js';

const move = ['move', 'vm1', 'vda', '--to'] as const;

async function begin(lab: Lab, ...options: readonly string[]): Promise<number> {
  const { id } = JSON.parse(await lab.mustFerry(...move, ...options, '--detach', '--json')) as {
    id: number; // our own CLI
  };
  return id;
}

/** What qemu-img of this lab runs. */
const tools = async (lab: Lab): Promise<readonly string[]> =>
  (await lab.leftovers()).processes.filter((command) => /qemu-img (convert|compare)/.test(command));

async function untilCopying(lab: Lab, id: number): Promise<void> {
  const look = async (): Promise<true | null> => {
    const { progress, status } = await operation(lab, id);
    assert.equal(status, 'running');
    return progress !== null && progress.doneBytes > 0n ? true : null;
  };
  await until(look, 60_000, 'the copy goes on');
}

const infoOf = async (lab: Lab, image: string): Promise<Readonly<Record<string, unknown>>> =>
  JSON.parse(await lab.qemuImg('info', '-U', '--output=json', image)) as Record<string, unknown>; // qemu-img's own

async function write(lab: Lab, image: string, what: string): Promise<void> {
  const qemuIo = join(dirname(lab.qemu.img), 'qemu-io');
  await must(qemuIo, ['-f', 'qcow2', '-c', what, image]);
}

/** A guest, defined, on a layer over a golden image that is full of data. */
async function goldenGuest(lab: Lab): Promise<{ guest: LabGuest; golden: string; top: string }> {
  const golden = await lab.createImage(join(lab.a, 'golden.qcow2'), { sizeMiB: 512 });
  await write(lab, golden, 'write -P 165 64M 24M');
  const top = join(lab.a, 'vda.qcow2');
  await lab.qemuImg('create', '-q', '-f', 'qcow2', '-b', golden, '-F', 'qcow2', top);
  const disks = [{ file: top, format: 'qcow2', target: 'vda' }] as const;
  const guest = await lab.guest({ name: 'vm1', disks, writer: resuming });
  await lab.ferryd();
  await lab.mustVirsh('define', guest.xmlFile);
  return { guest, golden, top };
}

test('a chain becomes one raw image under another name, its overlay elsewhere, over a death of ferryd and under a limit', async () => {
  await withLab('dest-flat', async (lab) => {
    const spare = join(lab.directory, 'spare');
    await mkdir(spare);
    const guest = await heavyGuest(lab, 48);
    await lab.mustVirsh('snapshot-create-as', 'vm1', 's1', '--disk-only', '--no-metadata');
    await writeMore(guest);
    const file = join(lab.b, 'web.raw');
    const form = [file, '--flatten', '--format', 'raw', '--overlay-dir', spare];
    assert.match(
      await lab.mustFerry('plan', ...move, ...form),
      /\/b\/web\.raw \(all in one, raw\)\n.*→ flattened into the first/,
    );
    const id = await begin(lab, ...form, '--bandwidth', '4M');
    await untilCopying(lab, id);
    assert.deepEqual(await readdir(lab.b), [`web.raw.part`, ...(await readdir(spare))].toSorted());
    assert.equal((await tools(lab)).length, 1);
    await present(lab.daemons.at(-1), 'it was started').kill9();
    await until(
      async () => ((await tools(lab)).length === 0 ? true : null),
      10_000,
      'qemu-img ends with ferryd',
    );
    await lab.ferryd();
    await untilCopying(lab, id);
    await lab.mustFerry('pause', String(id));
    await writeMore(guest);
    assert.equal((await operation(lab, id)).progress?.phase, 'paused');
    await lab.mustFerry('resume', String(id));
    await lab.mustFerry('limit', String(id), 'none');
    await lab.mustFerry('ops', 'wait', String(id));

    assert.deepEqual(await readdir(lab.b), ['web.raw']);
    assert.deepEqual(await sources(lab), [file]);
    assert.match(await lab.mustVirsh('dumpxml', 'vm1', '--inactive'), /<driver [^>]*type='raw'/);
    const [copy] = (await operation(lab, id)).copies;
    assert.deepEqual([copy?.how, copy?.verified?.how], ['convert', 'full']);
    assert.equal(copy?.verified?.fromStorageBytes, copy?.verified?.readBackBytes);
    await endsWell(lab, guest);
    await lab.mustVirsh('start', 'vm1');
    await endsWell(lab, guest);
  });
});

test('a base that is at the destination is compared and taken over; one that differs is refused and left as it is', async () => {
  await withLab('dest-share', async (lab) => {
    const { guest, golden, top } = await goldenGuest(lab);
    await lab.mustVirsh('start', 'vm1');
    await guest.serial.waitAcked(300);
    const there = join(lab.b, 'golden.qcow2');
    await copyFile(golden, there);
    await write(lab, there, 'write -P 1 80M 64k');
    const other = await stat(there, { bigint: true });

    const differs = await lab.ferry(...move, lab.b, '--share-base');
    assert.match(differs.stderr, /they differ, first at byte 83886080 of the disk/);
    assert.deepEqual(await readdir(lab.b), ['golden.qcow2']);
    assert.deepEqual(await sources(lab), [top]);
    assert.equal((await stat(there, { bigint: true })).mtimeNs, other.mtimeNs, 'it is untouched');
    await lab.qemuImg('resize', '-q', there, '513M');
    assert.match(
      (await lab.ferry(...move, lab.b, '--share-base')).stderr,
      /cannot stand for \S+golden\.qcow2: it is a disk of 537919488 bytes, not of 536870912/,
    );

    await copyFile(golden, there);
    const before = await stat(there, { bigint: true });
    assert.match(
      await lab.mustFerry('plan', ...move, lab.b, '--share-base'),
      /golden\.qcow2 \(there already\)/,
    );
    const id = await begin(lab, lab.b, '--share-base');
    await lab.mustFerry('ops', 'wait', String(id));
    const { copies } = await operation(lab, id);
    assert.deepEqual(
      copies.map(({ from }) => from),
      [top],
      'the base is not copied',
    );
    const after = await stat(there, { bigint: true });
    assert.deepEqual([after.ino, after.mtimeNs], [before.ino, before.mtimeNs]);
    assert.deepEqual(await sources(lab), [join(lab.b, 'vda.qcow2')]);
    assert.equal((await infoOf(lab, join(lab.b, 'vda.qcow2')))['backing-filename'], there);
    await endsWell(lab, guest);
    assert.equal((await stat(there, { bigint: true })).mtimeNs, before.mtimeNs);
  });
});

/** [what is said, how it is refused] */
const refusals: readonly (readonly [readonly string[], RegExp])[] = [
  [['B/', '--format', 'raw'], /has 2 images, and a raw image cannot stand on another.*--flatten/],
  [['B', '--cluster-size', '96K'], /powers of two from 64K to 2M/],
  [['B', '--overlay-dir', 'B'], /shut off, so there is nothing for --overlay-dir to act on/],
  [['B/golden.qcow2'], /two images of its chain have the same file name/],
  [['B/new'], /no such folder; create it or mount the storage\. The name of a file would end in/],
  [['B/none/new.qcow2'], /\/b\/none: there is no such folder/],
];

test('a shut-off disk gets a name and other clusters; what cannot be is refused before anything is touched', async () => {
  await withLab('dest-off', async (lab) => {
    const { guest, golden } = await goldenGuest(lab);
    await lab.mustVirsh('start', 'vm1');
    await guest.serial.waitAcked(300);
    await lab.mustVirsh('destroy', 'vm1');
    for (const [said, expected] of refusals) {
      const [to = '', ...options] = said.map((word) => word.replace(/^B/, lab.b));
      const { code, stderr } = await lab.ferry(...move, to, ...options);
      assert.match(stderr, expected);
      assert.ok(code === 2 || code === 4, stderr);
    }
    assert.deepEqual(await readdir(lab.b), []);

    await copyFile(golden, join(lab.b, 'golden.qcow2'));
    const file = join(lab.b, 'web.qcow2');
    await lab.mustFerry(...move, file, '--cluster-size', '1M', '--share-base');
    assert.deepEqual((await readdir(lab.b)).toSorted(), ['golden.qcow2', 'web.qcow2']);
    const info = await infoOf(lab, file);
    assert.equal(info['cluster-size'], 1 << 20);
    assert.equal(info['backing-filename'], join(lab.b, 'golden.qcow2'));
    assert.deepEqual(await sources(lab), [file]);
    await lab.mustVirsh('start', 'vm1');
    await endsWell(lab, guest);
  });
});
