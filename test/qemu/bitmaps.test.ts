// The bitmap of somebody's backup goes with a disk that moves, and misses nothing that was written meanwhile.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { until } from '../../src/std/deadline.js';
import { withLab, type Lab } from '../lib/lab.js';
import { heavyGuest } from '../lib/moves.js';

const bitmap = 'backup0';
const KiB64 = 64 * 1024;

async function monitor<T>(lab: Lab, execute: string, args: object = {}): Promise<T> {
  const command = JSON.stringify({ execute, arguments: args });
  const said = await lab.mustVirsh('qemu-monitor-command', 'vm1', command);
  return (JSON.parse(said) as { return: T }).return; // QEMU's own reply
}

async function activeNode(lab: Lab, file: string): Promise<string> {
  const nodes = await monitor<readonly { file: string; drv: string; 'node-name': string }[]>(
    lab,
    'query-named-block-nodes',
    { flat: true },
  );
  return nodes.find((node) => node.file === file && node.drv === 'qcow2')?.['node-name'] ?? '';
}

async function contents(lab: Lab, file: string): Promise<Buffer> {
  const raw = join(lab.directory, 'contents.raw');
  await lab.qemuImg('convert', '-f', 'qcow2', '-O', 'raw', file, raw);
  return await readFile(raw);
}

/** The clusters that the bitmap of an image calls dirty, as an NBD client is told (`qemu:dirty-bitmap`). */
async function dirtyClusters(lab: Lab, file: string): Promise<ReadonlySet<number>> {
  const socket = join(lab.directory, 'nbd.sock');
  const args = ['-r', '-f', 'qcow2', '-k', socket, '-B', bitmap, file];
  const server = spawn('/usr/bin/qemu-nbd', args, { stdio: 'inherit' });
  const ended = once(server, 'exit');
  await until(() => (existsSync(socket) ? true : null), 10_000, 'the socket of qemu-nbd');
  const options = `driver=nbd,server.type=unix,server.path=${socket},x-dirty-bitmap=qemu:dirty-bitmap:${bitmap}`;
  const said = await lab.qemuImg('map', '--output=json', '--image-opts', options);
  await ended; // it serves one client
  const dirty = new Set<number>();
  for (const { start, length, data } of JSON.parse(said) as {
    start: number;
    length: number;
    data: boolean;
  }[]) {
    // The option shows what is dirty as what has no data.
    if (data) continue;
    for (let at = start; at < start + length; at += KiB64) dirty.add(Math.floor(at / KiB64));
  }
  return dirty;
}

test('a bitmap moves with its disk, goes on recording, and names every cluster that has changed', async () => {
  await withLab('bitmaps', async (lab) => {
    const guest = await heavyGuest(lab, 8);
    const [file = ''] = guest.files;
    const then = join(lab.directory, 'then.qcow2');
    await lab.mustVirsh('suspend', 'vm1'); // QEMU flushes all when it stops
    await copyFile(file, then);
    const node = await activeNode(lab, file);
    await monitor(lab, 'block-dirty-bitmap-add', { node, name: bitmap, persistent: true });
    await lab.mustVirsh('resume', 'vm1');
    await guest.serial.waitAcked(guest.serial.acked() + 300);

    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b, '--progress=none');
    await guest.serial.waitAcked(guest.serial.acked() + 300);
    const moved = join(lab.b, 'vm1-vda.qcow2');
    const nodes = await monitor<
      readonly { 'node-name': string; 'dirty-bitmaps'?: readonly Record<string, unknown>[] }[]
    >(lab, 'query-named-block-nodes', { flat: true });
    const active = await activeNode(lab, moved);
    const [found] = nodes.find((one) => one['node-name'] === active)?.['dirty-bitmaps'] ?? [];
    const { name, recording, persistent, inconsistent = false } = found ?? {};
    assert.deepEqual(
      { name, recording, persistent, inconsistent },
      { name: bitmap, recording: true, persistent: true, inconsistent: false },
    );

    await lab.mustVirsh('destroy', 'vm1');
    const [before, after] = [await contents(lab, then), await contents(lab, moved)];
    const dirty = await dirtyClusters(lab, moved);
    const changed = Array.from({ length: after.length / KiB64 }, (_, i) => i).filter(
      (i) =>
        !before
          .subarray(i * KiB64, (i + 1) * KiB64)
          .equals(after.subarray(i * KiB64, (i + 1) * KiB64)),
    );
    assert.ok(changed.length > 10, `${changed.length} clusters changed`);
    assert.deepEqual(
      changed.filter((i) => !dirty.has(i)),
      [],
      'clusters that changed and are not in the bitmap',
    );
    assert.ok(
      dirty.size < after.length / KiB64 / 2,
      `${dirty.size} clusters are dirty: not all of them`,
    );
  });
});
