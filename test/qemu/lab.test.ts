// What the lab promises about itself: nothing of it is left behind.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';

import { imageNode } from '../lib/bare.js';
import { withLab, type Lab } from '../lib/lab.js';

test('a lab sees what runs in it, and leaves nothing behind', async () => {
  let kept: Lab | null = null;
  await withLab('leftovers', async (lab) => {
    kept = lab;
    const file = await lab.createImage(join(lab.a, 'disk.raw'), { sizeMiB: 1, format: 'raw' });
    await lab.bare({ nodes: [imageNode('disk0', file, { driver: 'raw' })], args: ['-S'] });
    const { processes, files } = await lab.leftovers();
    assert.equal(processes.length, 1);
    assert.ok(files.includes('a/disk.raw'));
  });
  assert.deepEqual(await leftoversOf(kept), { processes: [], files: [] });
});

test('a lab whose test fails leaves nothing behind, not even a process that nobody waits for', async () => {
  let kept: Lab | null = null;
  const failing = withLab('failing', async (lab) => {
    kept = lab;
    const stray = spawn('tail', ['-f', '/dev/null'], {
      cwd: lab.runDir,
      detached: true,
      stdio: 'ignore',
    });
    await once(stray, 'spawn');
    assert.equal((await lab.leftovers()).processes.length, 1);
    throw new Error('as planned');
  });
  await assert.rejects(failing, /as planned/);
  assert.deepEqual(await leftoversOf(kept), { processes: [], files: [] });
});

async function leftoversOf(lab: Lab | null): ReturnType<Lab['leftovers']> {
  assert.ok(lab !== null);
  return await lab.leftovers();
}
