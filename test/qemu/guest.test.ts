// The test guest and its verifier, and that both would see what they are there to see.

import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { imageNode, type BareGuest } from '../lib/bare.js';
import { withLab, type Lab } from '../lib/lab.js';
import { testQemus } from '../lib/qemu.js';
import { verifyChains, type Verdict } from '../lib/verify.js';

const writer = { span: 16, sync: 16 };

for (const qemu of testQemus()) {
  const labTest = (fact: string, body: (lab: Lab, t: TestContext) => Promise<void>): void =>
    void test(`${qemu.name}: ${fact}`, async (t) =>
      await withLab(fact, async (lab) => await body(lab, t), qemu));

  labTest('the guest writes soon after it is started', async (lab, t) => {
    const begin = performance.now();
    const { guest } = await startOnTwoDisks(lab);
    await guest.serial.waitAcked(16, 30_000);
    t.diagnostic(
      `first write acknowledged after ${((performance.now() - begin) / 1000).toFixed(1)} s`,
    );
  });

  labTest('a killed QEMU leaves all that was acknowledged', async (lab) => {
    const { guest, files } = await startOnTwoDisks(lab);
    await guest.serial.waitAcked(1000);
    await guest.kill9();
    assertHolds(
      await verifyChains(files, { acked: guest.serial.acked(), state: 'crashed', writer }),
    );
  });

  labTest('the power button leaves an exact prefix', async (lab) => {
    const { guest, files } = await startOnTwoDisks(lab);
    await guest.serial.waitAcked(500);
    await guest.qmp.execute('system_powerdown');
    await guest.serial.waitLine('POWEROFF');
    await guest.ended();
    assertHolds(
      await verifyChains(files, { acked: guest.serial.acked(), state: 'settled', writer }),
    );
  });

  labTest('the guest goes on where it was after a reset and after a crash', async (lab) => {
    const { guest, files } = await startOnTwoDisks(lab);
    await guest.serial.waitAcked(500);
    const mark = guest.serial.mark();
    await guest.qmp.execute('system_reset');
    await guest.serial.waitLine('READY', 30_000, mark);
    await guest.serial.waitProgress();
    await guest.kill9();

    const { guest: again } = await startOnTwoDisks(lab, files);
    await again.serial.waitLine('READY');
    await again.serial.waitProgress();
    await again.qmp.execute('stop');
    await again.quit();
    assert.deepEqual(again.serial.setbacks, []);
    assertHolds(
      await verifyChains(files, { acked: again.serial.acked(), state: 'settled', writer }),
    );
  });

  labTest(
    'CANARY: images rolled back to an older copy have lost acknowledged writes',
    async (lab) => {
      const { files, acked } = await writeWithOlderCopies(lab);
      const verdict = await verifyChains(files.map(copyOf), { acked, state: 'crashed', writer });
      assert.equal(verdict.ok, false);
      assert.ok(verdict.lostAcked > 0);
      assert.equal(verdict.prefixViolations, 0);
      assert.match(
        verdict.first,
        /^lost although acknowledged: disk \d block \d+ holds \d+, expected \d+$/,
      );
    },
  );

  labTest('CANARY: one of two disks older than the other is no prefix', async (lab) => {
    const { files, copiedAt } = await writeWithOlderCopies(lab);
    const [first = '', second = ''] = files;
    const verdict = await verifyChains([first, copyOf(second)], {
      acked: copiedAt,
      state: 'crashed',
      writer,
    });
    assert.equal(verdict.ok, false);
    assert.equal(verdict.lostAcked, 0);
    assert.ok(verdict.prefixViolations > 0);
  });

  labTest('CANARY: swapped disks are foreign', async (lab) => {
    const { files } = await writeWithOlderCopies(lab);
    const verdict = await verifyChains(files.toReversed(), { acked: 0, state: 'crashed', writer });
    assert.equal(verdict.ok, false);
    assert.ok(verdict.torn > 0);
  });

  labTest('CANARY: a guest that comes up on older disks is seen', async (lab) => {
    const { files } = await writeWithOlderCopies(lab);
    const { guest } = await startOnTwoDisks(lab, files.map(copyOf));
    await guest.serial.waitLine('READY start=', 30_000, guest.serial.mark());
    assert.equal(guest.serial.setbacks.length, 1);
  });
}

async function startOnTwoDisks(
  lab: Lab,
  existing: readonly string[] = [],
): Promise<{ guest: BareGuest; files: readonly string[] }> {
  const fresh = (name: string): Promise<string> =>
    lab.createImage(join(lab.a, name), { sizeMiB: 32 });
  const files =
    existing.length > 0 ? existing : await Promise.all(['0.qcow2', '1.qcow2'].map(fresh));
  const guest = await lab.bare({
    nodes: files.map((file, i) => imageNode(`disk${i}`, file)),
    writer,
    args: ['-action', 'reboot=reset'],
  });
  return { guest, files };
}

/** A guest that wrote on after its images had been copied while it was stopped. */
async function writeWithOlderCopies(
  lab: Lab,
): Promise<{ files: readonly string[]; copiedAt: number; acked: number }> {
  const { guest, files } = await startOnTwoDisks(lab);
  await guest.serial.waitAcked(500);
  await guest.qmp.execute('stop');
  const copiedAt = guest.serial.acked();
  await Promise.all(files.map((file) => copyFile(file, copyOf(file))));
  await guest.qmp.execute('cont');
  await guest.serial.waitProgress(1000);
  await guest.kill9();
  return { files, copiedAt, acked: guest.serial.acked() };
}

const copyOf = (file: string): string => `${file}.older`;

function assertHolds(verdict: Verdict): void {
  assert.ok(verdict.ok, JSON.stringify(verdict));
  assert.ok(verdict.top >= verdict.acked);
}
