// Who has a file open on this host.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { holdersOf } from './open-files.js';

test('a process that reads and one that writes are told apart, whatever link they came by', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ferry-open-'));
  t.after(async () => await rm(folder, { recursive: true }));
  const [a, free, link] = [join(folder, 'a'), join(folder, 'free'), join(folder, 'link')];
  await writeFile(a, 'text');
  await writeFile(free, 'text');
  await symlink(a, link);
  // Says so when it has it open.
  const child = spawn('sh', ['-c', 'exec 3<"$1"; echo open; read line', 'sh', link]);
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  await using file = await open(a, 'r+');
  assert.ok(file.fd > 0);
  const found = await holdersOf([a, free, join(folder, 'gone')]);
  assert.deepEqual([...found.keys()], [a]);
  const holders = found.get(a)?.toSorted((x, y) => Number(x.writes) - Number(y.writes));
  assert.deepEqual(
    holders?.map(({ pid, writes }) => [pid, writes]),
    [
      [child.pid, false],
      [process.pid, true],
    ],
  );
  assert.equal(holders?.[0]?.command, 'sh');
});
