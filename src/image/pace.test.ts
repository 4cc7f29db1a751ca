// One budget for several copies.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { must } from '../../test/lib/process.js';
import { HostCopyFiles } from './copy-host.js';
import { copyFrozen } from './copy.js';
import type { CopyFiles } from './copying.js';
import { Pace } from './pace.js';
import { newKey } from './pieces.js';
import { copyTool } from './qemu-img.js';

const MiB = 1 << 20;
const tuning = { pieceBytes: MiB / 4, checkpointBytes: MiB, checkpointMs: 60_000 };

test('two copies that share a pace do not go faster than one', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'ferry-pace-'));
  try {
    const pace = new Pace(() => 16 * MiB);
    const { signal } = new AbortController();
    const began = performance.now();
    await Promise.all(
      ['a', 'b'].map(async (name) => {
        const [from, to] = [join(folder, name), join(folder, `${name}.copy`)];
        await writeFile(from, randomBytes(4 * MiB));
        const key = newKey();
        await using files = new HostCopyFiles({ from, to, key }, copyTool('qemu-img'), null);
        const counted = Object.assign(Object.create(files) as CopyFiles, {
          clone: async () => false,
        });
        const request = { doing: name, backing: null, saved: null, save: async () => undefined };
        const more = { onProgress: () => undefined, signal, verify: 'none', pace } as const;
        await copyFrozen(counted, { ...request, ...more }, tuning);
        await must('cmp', [from, to]);
      }),
    );
    const seconds = (performance.now() - began) / 1000;
    assert.ok(seconds >= (8 * MiB - 2 * tuning.pieceBytes) / (16 * MiB), `${seconds} s`);
  } finally {
    await rm(folder, { recursive: true });
  }
});
