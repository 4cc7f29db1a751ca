// Writers are kept off images by QEMU's own locks, readers are not, and nothing stays locked.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { must, run } from '../../test/lib/process.js';
import { ImageHolds } from './hold.js';

async function withImage(body: (path: string, format: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'ferry-hold-'));
  try {
    for (const format of ['raw', 'qcow2']) {
      // QEMU's options in JSON need no quoting.
      const path = join(folder, `a "b", c.${format}`);
      await must('qemu-img', ['create', '-q', '-f', format, path, '1M']);
      await body(path, format);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
}

const qemuIo = async (path: string, format: string, ...args: readonly string[]) => {
  const file = { driver: 'file', filename: path };
  return await run('qemu-io', [...args, `json:${JSON.stringify({ driver: format, file })}`]);
};
const write = async (path: string, format: string) =>
  await qemuIo(path, format, '-c', 'write 0 512');

test('whoever writes is refused, whoever reads is not, and afterwards all may', async () => {
  await withImage(async (path, format) => {
    const holds = new ImageHolds('qemu-io');
    assert.deepEqual(await holds.hold('a', [path]), [path]);
    assert.deepEqual(await holds.hold('a', [path]), [], 'once is enough');
    assert.deepEqual(await holds.hold('b', [path]), [path], 'another one may hold it as well');
    await holds.letGo('b');
    assert.match((await write(path, format)).stderr, /Failed to get "write" lock/);
    assert.equal((await qemuIo(path, format, '-r', '-c', 'read 0 512')).code, 0);
    await holds.letGo('a');
    await holds.letGo('a');
    assert.equal((await write(path, format)).code, 0);
  });
});

test('what cannot be held is refused, and says why', async () => {
  await withImage(async (path) => {
    const holds = new ImageHolds('qemu-io');
    await assert.rejects(holds.hold('a', [`${path}.not`]), /No such file or directory/);
    const missing = new ImageHolds('/no/such/qemu-io');
    await assert.rejects(missing.hold('a', [path]), /cannot be started.*qemu-utils/);
  });
});
