// The verification of a copy, on real storage: what changed below the page cache is found, by a move of a running guest too.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import type { CopyWhole, VerifyMode } from '../../src/block/copy.js';
import { HostCopyFiles } from '../../src/image/copy-host.js';
import type { CopyFiles } from '../../src/image/copying.js';
import { copyFrozen } from '../../src/image/copy.js';
import { newKey } from '../../src/image/pieces.js';
import { copyTool } from '../../src/image/qemu-img.js';
import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { withLab, type Lab } from '../lib/lab.js';
import { endsWell } from '../lib/mirrored.js';
import { beginMove, heavyGuest, operation, watched } from '../lib/moves.js';
import { DeviceStorage, SmallStorage, cannotMount } from '../lib/storage.js';

const MiB = 1 << 20;
const pieceBytes = MiB;
const sourceBytes = 6 * MiB + 777;
const markedPiece = 2 * MiB;
const mark = Buffer.alloc(4096, 'a block that is nowhere else. ');

interface Copied {
  readonly from: string;
  readonly to: string;
}

/** A source in a lab, and a folder of its own where the copy goes. */
async function source(lab: Lab): Promise<Copied & { readonly folder: string }> {
  const bytes = randomBytes(sourceBytes);
  mark.copy(bytes, markedPiece + 64 * 1024);
  const [from, folder] = [join(lab.directory, 'from'), join(lab.directory, 'other')];
  await writeFile(from, bytes);
  await mkdir(folder);
  return { from, folder, to: join(folder, 'to') };
}

const isSame = async ({ from, to }: Copied): Promise<boolean> =>
  (await readFile(to)).equals(await readFile(from));

interface Asked {
  readonly verify: VerifyMode;
  /** Called after each sync of the copy. */
  readonly synced: () => Promise<void>;
}

async function copy({ from, to }: Copied, { verify, synced }: Asked): Promise<CopyWhole> {
  await using files = new HostCopyFiles({ from, to, key: newKey() }, copyTool('qemu-img'), null);
  const watched = new Proxy<CopyFiles>(files, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]) => {
        const result = (await Reflect.apply(value, target, args)) as unknown;
        if (key === 'sync') await synced();
        return result;
      };
    },
  });
  return await copyFrozen(
    watched,
    {
      doing: `copy ${from} to ${to}`,
      backing: null,
      saved: null,
      save: async () => undefined,
      onProgress: () => undefined,
      signal: new AbortController().signal,
      verify,
    },
    { pieceBytes, checkpointBytes: 64 * MiB, checkpointMs: 60_000 },
  );
}

/** Spoils the marked block below the page cache, which still shows what was written: no reader of the file sees it. */
const spoiler = (device: DeviceStorage, copied: Copied, times: number) => {
  const spoilt = { left: times };
  const synced = async (): Promise<void> => {
    if (spoilt.left-- <= 0) return;
    assert.ok(await isSame(copied), 'now it is in the page cache');
    assert.ok(await device.spoil(mark), 'what is durable is on the device');
    assert.ok(await isSame(copied), 'the page cache has it as it was written');
  };
  return { spoilt, synced };
};

test(
  'what changes below the page cache is found and copied again, where a reader of the file sees nothing of it',
  { skip: cannotMount },
  async () => {
    await withLab('verify-below', async (lab) => {
      const { folder, ...copied } = await source(lab);
      await using device = await DeviceStorage.mount(folder, join(lab.directory, 'device'), 32);
      const { verified } = await copy(copied, { verify: 'full', ...spoiler(device, copied, 1) });
      assert.deepEqual(
        { ...verified, seconds: 0 },
        {
          how: 'full',
          bytes: sourceBytes,
          storageBytes: sourceBytes,
          repairedBytes: pieceBytes,
          seconds: 0,
        },
      );
      await device.forget();
      assert.ok(await isSame(copied), 'the device has it');
    });
  },
);

test(
  'what the device does not keep ends the copy with its place; without verification nobody would know',
  { skip: cannotMount },
  async () => {
    await withLab('verify-lost', async (lab) => {
      const { folder, ...copied } = await source(lab);
      await using device = await DeviceStorage.mount(folder, join(lab.directory, 'device'), 32);
      const { spoilt, synced } = spoiler(device, copied, 2);
      await assert.rejects(copy(copied, { verify: 'full', synced }), (error: Error) => {
        const where = `in the ${pieceBytes} bytes from offset ${markedPiece}, and again`;
        assert.ok(error.message.includes(`${copied.to}: verification:`), error.message);
        assert.ok(error.message.includes(where), error.message);
        return true;
      });
      assert.equal(spoilt.left, 0);
      const { verified } = await copy(copied, { verify: 'none', ...spoiler(device, copied, 1) });
      assert.equal(verified?.bytes, 0);
      await device.forget();
      assert.ok(!(await isSame(copied)), 'the device has something else');
    });
  },
);

test(
  'a storage that is nothing but page cache: the record does not say that it was passed by',
  { skip: cannotMount },
  async () => {
    await withLab('verify-memory', async (lab) => {
      const { folder, ...copied } = await source(lab);
      await using _storage = await SmallStorage.mount(folder, 32);
      const { verified } = await copy(copied, { verify: 'full', synced: async () => undefined });
      assert.equal(verified?.bytes, sourceBytes);
      assert.equal(verified.storageBytes, 0);
    });
  },
);

/** What the guest's ballast is made of (`heavyGuest`). */
const ballast = Buffer.alloc(4096, 165);

test(
  'a move finds what its destination lost, mends it, and says so; the guest is told nothing of it',
  { skip: cannotMount },
  async () => {
    await withLab('verify-move', async (lab) => {
      await using device = await DeviceStorage.mount(lab.b, join(lab.directory, 'device'), 256);
      const guest = await heavyGuest(lab, 64);
      const id = await beginMove(lab, '--bandwidth', '4M');
      await lab.mustFerry('pause', String(id));
      // What is durable there is read no more until it is verified.
      await until(
        async () => ((await device.spoil(ballast)) ? true : null),
        20_000,
        'the device has some of it',
      );
      await lab.mustFerry('limit', String(id), 'none');
      const said = watched(lab, id);
      assert.equal((await said.next()).value?.phase, 'paused');
      await lab.mustFerry('resume', String(id));
      const phases = new Set<string>();
      let percent = 0;
      for await (const progress of said) {
        phases.add(progress.phase);
        assert.ok(progress.percent >= percent, `${progress.percent} % after ${percent} %`);
        percent = progress.percent;
      }
      assert.ok(phases.has('verifying'), [...phases].join(', '));

      const [shown, ...others] = (await operation(lab, id)).copies;
      assert.deepEqual(others, []);
      const { how, root, verified } = present(shown, 'one image was copied');
      assert.equal(how, 'data');
      assert.match(root ?? '', /^[0-9a-f]{64}$/);
      assert.equal(verified?.how, 'full');
      assert.ok(verified.readBackBytes >= 64n << 20n);
      assert.equal(verified.fromStorageBytes, verified.readBackBytes);
      assert.ok(verified.repairedBytes > 0n && verified.repairedBytes <= 8n << 20n);
      assert.match(
        await lab.mustFerry('ops', 'show', String(id)),
        /root hash [0-9a-f]{64}, verified \(full\): .* past the page cache; .* copied again: have/,
      );
      await endsWell(lab, guest);
    });
  },
);

test('ferryd dies while it verifies: the next one verifies all of it before the switch', async () => {
  await withLab('verify-dies', async (lab) => {
    const guest = await heavyGuest(lab, 48);
    const id = await beginMove(lab, '--bandwidth', '8M');
    let isVerifying = false;
    for await (const { phase } of watched(lab, id)) {
      isVerifying = phase === 'verifying';
      if (isVerifying) break;
    }
    assert.ok(isVerifying);
    await present(lab.daemons.at(-1), 'it was started').kill9();
    await lab.ferryd();
    // Unless it was faster than we are.
    await lab.ferry('limit', String(id), 'none');
    await lab.mustFerry('watch', String(id), '--progress=none');
    const { verified } = present((await operation(lab, id)).copies[0], 'one image was copied');
    assert.equal(verified?.how, 'full');
    assert.ok(verified.readBackBytes >= 48n << 20n, `${verified.readBackBytes}`);
    assert.equal(verified.repairedBytes, 0n);
    await endsWell(lab, guest);
  });
});
