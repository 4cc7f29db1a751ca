// `ferry doctor` and `ferry gc` on real QEMU: daemon and QEMU are killed in the middle of things, and what the doctor
// calls live is put to the verifier. Design §3 laws 1, 13, 14.

import assert from 'node:assert/strict';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';

import type { DoctorReport } from '../../src/host/doctor/types.js';
import { fromJson, toJson } from '../../src/http/wire.js';
import { until } from '../../src/std/deadline.js';
import type { Ferryd } from '../lib/ferryd.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { killNow } from '../lib/process.js';
import { verifyChains } from '../lib/verify.js';

const writer = { resume: 1 };
const uuid = '0b0c6f0e-6f5b-4a87-9a63-3f1f4a3c7d22';
const debug = { args: ['--log-level', 'debug'] };

async function running(lab: Lab): Promise<{ daemon: Ferryd; guest: LabGuest }> {
  const daemon = await lab.ferryd(debug);
  const guest = await lab.guest({ name: 'vm1', uuid, disks: 1, writer });
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(300);
  return { daemon, guest };
}

const qemuPid = async (lab: Lab): Promise<number> =>
  Number(await readFile(join(lab.runDir, 'qemu', `${uuid}.pid`), 'utf8'));

async function snapshotFile(lab: Lab): Promise<string> {
  const file = join(lab.directory, 'snapshot.xml');
  const disk = `<disk name='vda' snapshot='external'><source file='${join(lab.a, 'vda.s1')}'/><mirror file='${join(lab.b, 'vda.s1')}'/></disk>`;
  await writeFile(file, `<domainsnapshot><name>s1</name><disks>${disk}</disks></domainsnapshot>`);
  return file;
}

/** Exit code and report. Without a daemon it looks itself. */
async function doctor(lab: Lab, ...args: readonly string[]) {
  const { code, stdout, stderr } = await lab.ferry('doctor', ...args, '--json');
  assert.ok(code === 0 || code === 7, stderr);
  return { code, said: fromJson(stdout) as DoctorReport }; // our own CLI
}

const liveOf = (said: DoctorReport): string | null => said.domains[0]?.disks[0]?.live ?? null;

const textOf = (said: DoctorReport): string => toJson(said.domains);

async function nothingLost(guest: LabGuest, live: string | null): Promise<void> {
  assert.ok(live !== null);
  const acked = guest.serial.acked();
  const verdict = await verifyChains([live], { acked, state: 'crashed', writer });
  assert.ok(verdict.ok, JSON.stringify(verdict));
}

/** A line of the daemon's log: a step of this kind is there. */
async function reached(daemon: Ferryd, kind: string, state: string): Promise<void> {
  await until(
    () =>
      daemon.log.some((line) => line['kind'] === kind && line['state'] === state) ? true : null,
    60_000,
    `${kind} ${state}`,
    1,
  );
}

// Where the journal stands when both die: before and after it knows of the new layer, and with the mirror on.
for (const [kind, state] of [
  ['snapshot', 'doing'],
  ['snapshot', 'done'],
  ['start-mirror', 'done'],
] as const) {
  test(`ferryd and QEMU are killed at '${kind} ${state}' of a mirrored snapshot: the image that is called live has everything`, async () => {
    await withLab(`doctor-${kind}-${state}`, async (lab) => {
      const { daemon, guest } = await running(lab);
      const pid = await qemuPid(lab);
      const asked = lab.virsh('snapshot-create', 'vm1', await snapshotFile(lab));
      await reached(daemon, kind, state);
      await daemon.kill9();
      killNow(pid);
      await asked;
      const { code, said } = await doctor(lab, 'vm1');
      assert.equal(code, 7);
      assert.equal(said.lookedBy, 'ferry');
      assert.equal(said.domains[0]?.state, 'QEMU is gone, and nobody has noticed yet');
      await nothingLost(guest, liveOf(said));
      // Nothing that it looked at has changed by it: the next daemon comes to the same.
      await lab.ferryd();
      await until(
        async () => ((await lab.mustFerry('ops', '--json')).trim() === '[]' ? true : null),
        60_000,
        'what was open is settled',
      );
      await nothingLost(guest, liveOf((await doctor(lab, 'vm1')).said));
    });
  });
}

test('QEMU is asked while nobody else is connected to it, and not believed about what it cannot be asked', async () => {
  await withLab('doctor-asks', async (lab) => {
    const { daemon, guest } = await running(lab);
    await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab));
    const snap = join(lab.a, 'vda.s1');
    const asked = await doctor(lab);
    assert.deepEqual([asked.code, asked.said.lookedBy, liveOf(asked.said)], [0, 'ferryd', snap]);

    await daemon.kill9();
    const alone = await doctor(lab, 'vm1');
    assert.deepEqual([alone.code, alone.said.lookedBy, liveOf(alone.said)], [7, 'ferry', snap]);
    assert.equal(alone.said.domains[0]?.disks[0]?.saidBy, 'qemu');
    assert.match(textOf(alone.said), /in step \(READY\)|being copied to/);

    // Somebody holds the monitor: the journal still says it, and that it is busy is said.
    const socket = connect(join(lab.runDir, 'qemu', `${uuid}.qmp`));
    await new Promise((resolve) => socket.once('data', resolve));
    const busy = await doctor(lab, 'vm1');
    assert.equal(busy.said.domains[0]?.disks[0]?.saidBy, 'journal');
    assert.equal(liveOf(busy.said), snap);
    assert.match(textOf(busy.said), /its monitor is busy/);
    socket.destroy();

    // No journal: what QEMU has open is all that is said, and its mirror is not taken for a disk.
    await rename(lab.stateDir, `${lab.stateDir}.away`);
    const blind = await doctor(lab, 'vm1');
    assert.equal(blind.code, 7);
    assert.equal(liveOf(blind.said), snap);
    assert.equal(blind.said.domains[0]?.disks[0]?.target, 'virtio-disk0');
    assert.match(
      textOf(blind.said),
      new RegExp(`also writes ${lab.b}/vda\\.s1, which no disk reads`),
    );
    await rename(`${lab.stateDir}.away`, lab.stateDir);

    // Nobody was disturbed by all that.
    await guest.serial.waitAcked(guest.serial.acked() + 200);
    await lab.ferryd();
    assert.equal((await doctor(lab, 'vm1')).code, 0);
    killNow(await qemuPid(lab));
    await nothingLost(guest, snap);
  });
});

test('after a move the source is called stale since when, and goes only by its name, with what stands on it', async () => {
  await withLab('doctor-move', async (lab) => {
    const { guest } = await running(lab);
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b);
    const { code, said } = await doctor(lab, 'vm1');
    assert.equal(code, 0);
    const [source, copy] = [join(lab.a, 'vm1-vda.qcow2'), join(lab.b, 'vm1-vda.qcow2')];
    assert.equal(liveOf(said), copy);
    const old = said.domains[0]?.disks[0]?.others.find(({ path }) => path === source);
    assert.equal(old?.what, 'stale');
    assert.ok(old !== undefined && old.ageSeconds !== null && old.ageSeconds < 600);
    const listed = await lab.mustFerry('gc');
    assert.match(listed, /Kept; 'ferry gc --yes PATH…' removes those that you name/);
    assert.match(
      listed,
      new RegExp(`copied it whole to ${copy} \\(step \\d+\\) before the switch`),
    );

    assert.match(await lab.mustFerry('gc', '--yes'), /^Nothing was removed/);
    const alone = await lab.ferry('gc', '--yes', source);
    assert.equal(alone.code, 4);
    assert.match(
      alone.stderr,
      /vm1-vda\.qcow2\.move-\d+ names it as the image below; name that one too/,
    );

    // An image of somebody else stands on it: now it is kept, whatever is named.
    const overlay = said.domains[0]?.disks[0]?.others.find(({ path }) => path.includes('.move-'));
    assert.ok(overlay !== undefined);
    const theirs = join(lab.a, 'theirs.qcow2');
    await lab.qemuImg('create', '-q', '-f', 'qcow2', '-b', source, '-F', 'qcow2', theirs);
    const kept = await lab.ferry('gc', '--yes', source, overlay.path);
    assert.equal(kept.code, 4);
    assert.match(kept.stderr, /is kept: .*theirs\.qcow2 names it; nothing was removed/);
    await rename(theirs, join(lab.directory, 'elsewhere.qcow2'));

    assert.match(
      await lab.mustFerry('gc', '--yes', source, overlay.path),
      /^Removed 2 files, .* \(operation \d+\)/,
    );
    assert.deepEqual(
      (await lab.leftovers()).files.filter((file) => file.startsWith('a/')),
      [],
    );
    assert.deepEqual((await doctor(lab, 'vm1')).said.domains[0]?.disks[0]?.others, []);
    await guest.serial.waitAcked(guest.serial.acked() + 200);
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, copy);
  });
});

test('the target of a dropped mirror, and the log of a domain that is gone, go without a name', async () => {
  await withLab('doctor-gc', async (lab) => {
    const { guest } = await running(lab);
    await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab));
    assert.equal(await lab.mustFerry('gc'), 'Nothing that we left is there.\n');
    await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--remove-mirror');
    assert.match(await lab.mustFerry('gc', '--yes'), /^Removed 1 file, .*\n.*\/b\/vda\.s1\n$/);
    await guest.serial.waitAcked(guest.serial.acked() + 200);
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, join(lab.a, 'vda.s1'));
    await lab.mustVirsh('undefine', 'vm1');
    assert.match(await lab.mustFerry('gc', '--yes'), /^Removed 1 file, .*\n.*\/log\/vm1\.log\n$/);
    const { files } = await lab.leftovers();
    assert.ok(files.includes('a/vda.s1') && files.includes('a/vm1-vda.qcow2'), 'images stay');
  });
});
