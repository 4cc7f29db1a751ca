// `ferry move` by full mirrors, to files and block devices and from them, on real QEMU with a writing guest.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { until } from '../../src/std/deadline.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { beginMove, operation } from '../lib/moves.js';
import { nothingLostIn, sourcesOf } from '../lib/places.js';
import { killNow, must } from '../lib/process.js';
import { LoopDevice } from '../lib/storage.js';
import { qemuPid } from '../lib/mirrored.js';

const writer = { resume: 1 };
const onServer = process.env['CI'] === '1';
const noLoop =
  onServer || (process.getuid?.() === 0 && existsSync('/dev/loop-control'))
    ? false
    : 'not tried here: needs root and loop devices';

async function running(
  lab: Lab,
  disks: number,
  format: 'qcow2' | 'raw' = 'qcow2',
): Promise<LabGuest> {
  await lab.ferryd();
  const guest = await lab.guest({ name: 'vm1', disks, format, writer });
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(300);
  return guest;
}

const nodesLeft = async (lab: Lab): Promise<number> =>
  (
    await lab.mustVirsh(
      'qemu-monitor-command',
      'vm1',
      '{"execute":"query-named-block-nodes","arguments":{"flat":true}}',
    )
  ).match(/ferry-\d+-format/g)?.length ?? 0;

test('a chain of two becomes one file by a full mirror, sparse, and the domain starts from it', async () => {
  await withLab('full-file', async (lab) => {
    const guest = await running(lab, 1, 'raw');
    await lab.mustVirsh('snapshot-create-as', 'vm1', 's1', '--disk-only');
    await guest.serial.waitAcked(guest.serial.acked() + 100);
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b, '--strategy', 'full');
    const copy = join(lab.b, 'vm1-vda.s1');
    assert.deepEqual(await sourcesOf(lab), [copy]);
    assert.deepEqual(await readdir(lab.b), ['vm1-vda.s1']);
    assert.equal(await nodesLeft(lab), 1);
    assert.ok((await stat(copy)).blocks * 512 < 64 << 20, 'what is zero takes no room');
    await nothingLostIn(lab, guest, [{ file: copy, format: 'qcow2' }]);
    await lab.mustVirsh('start', 'vm1');
    await nothingLostIn(lab, guest, [{ file: copy, format: 'qcow2' }]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test(
  'a disk moves to a block device that nobody has, from there to a larger one, and back to a file',
  { skip: noLoop },
  async () => {
    await withLab('full-device', async (lab) => {
      await using one = await LoopDevice.over(join(lab.b, 'one.img'), 128);
      await using two = await LoopDevice.over(join(lab.b, 'two.img'), 160);
      await using small = await LoopDevice.over(join(lab.b, 'small.img'), 64);
      const guest = await running(lab, 1);
      // What it held before is not to show through.
      await must('dd', ['if=/dev/urandom', `of=${one.path}`, 'bs=1M', 'count=128', 'status=none']);
      const mounted = join(lab.directory, 'mnt');
      await mkdir(mounted);
      await must('mkfs.ext4', ['-q', '-F', two.path]);
      await must('mount', [two.path, mounted]);
      const taken = await lab.ferry('move', 'vm1', 'vda', '--to', `block:${two.path}`);
      await must('umount', [mounted]);
      assert.match(taken.stderr, new RegExp(`it is mounted on ${mounted}; free it first`));
      const rows = [
        [small.path, /the disk has 134217728 bytes and the device 67108864/],
        [join(lab.b, 'one.img'), /it is no block device/],
        ['/dev/nowhere', /there is no such device/],
      ] as const;
      for (const [path, expected] of rows) {
        const { code, stderr } = await lab.ferry('move', 'vm1', 'vda', '--to', `block:${path}`);
        assert.match(stderr, expected);
        assert.equal(code, 2, stderr);
      }

      await lab.mustFerry('move', 'vm1', 'vda', '--to', `block:${one.path}`);
      assert.deepEqual(await sourcesOf(lab), [one.path]);
      assert.equal(await nodesLeft(lab), 1);
      const xml = await lab.mustVirsh('dumpxml', 'vm1', '--inactive');
      assert.match(xml, new RegExp(`<disk type='block'[^]*type='raw'[^]*dev='${one.path}'`));
      await nothingLostIn(lab, guest, [{ file: one.path, format: 'raw' }]);
      const { blocks } = await stat(join(lab.b, 'one.img'));
      assert.ok(blocks * 512 < 64 << 20, 'what is zero was discarded');

      await lab.mustVirsh('start', 'vm1');
      const again = await lab.ferry('move', 'vm1', 'vda', '--to', `block:${one.path}`);
      assert.match(again.stderr, /domain 'vm1' has it/);
      const plan = await lab.mustFerry('plan', 'move', 'vm1', 'vda', '--to', `block:${two.path}`);
      assert.match(plan, /33554432 bytes longer than the disk/);
      await lab.mustFerry('move', 'vm1', 'vda', '--to', `block:${two.path}`);
      await guest.serial.waitAcked(guest.serial.acked() + 50);
      await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.a);
      const file = join(lab.a, 'vm1-vda.raw');
      assert.deepEqual(await sourcesOf(lab), [file]);
      await nothingLostIn(lab, guest, [{ file, format: 'raw' }]);
      assert.deepEqual(guest.serial.setbacks, []);
    });
  },
);

test('QEMU dies in a full mirror: it waits, and starts over with the next start', async () => {
  await withLab('full-dies', async (lab) => {
    const guest = await running(lab, 1);
    const image = guest.files[0] ?? '';
    const id = await beginMove(lab, '--strategy', 'full', '--bandwidth', '1K');
    const is = async (status: string, kind?: string): Promise<true | null> => {
      const seen = await operation(lab, id);
      const at = seen.steps.find(({ mark }) => mark === 'none' || mark === 'doing')?.kind;
      return seen.status === status && (kind === undefined || at === kind) ? true : null;
    };
    await until(async () => await is('running', 'wait-ready'), 20_000, 'it mirrors');
    killNow(await qemuPid(lab));
    await until(async () => await is('waiting'), 20_000, 'it waits');
    await lab.mustVirsh('start', 'vm1');
    await until(async () => await is('running', 'wait-ready'), 20_000, 'it mirrors again');
    await guest.serial.waitAcked(guest.serial.acked() + 50);
    assert.deepEqual(await sourcesOf(lab), [image]);
    await lab.mustFerry('limit', String(id), 'none');
    await lab.mustFerry('ops', 'wait', String(id));
    const copy = join(lab.b, 'vm1-vda.qcow2');
    assert.deepEqual(await sourcesOf(lab), [copy]);
    await nothingLostIn(lab, guest, [copy]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});
