// A state directory that is full, read-only, damaged, of another version or in use: said at start, in one line, before
// anything is touched. The guest of this file writes all the time.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { until } from '../../src/std/deadline.js';
import { Ferryd, type FerrydOptions } from '../lib/ferryd.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { endsWell, running as guestRuns } from '../lib/mirrored.js';
import { fill, inMounts, small } from '../lib/mounts.js';

async function running(lab: Lab, options: FerrydOptions = {}): Promise<LabGuest> {
  await lab.ferryd(options);
  return await guestRuns(lab, 1);
}

/** Starts a daemon that cannot start; the one line that it ends with. */
async function refused(
  lab: Lab,
  options: FerrydOptions & { readonly runDir?: string; readonly stateDir?: string },
): Promise<{ readonly text: string; readonly exit: number | null }> {
  const daemon = Ferryd.start({ runDir: lab.runDir, stateDir: lab.stateDir, ...options });
  lab.daemons.push(daemon);
  const exit = await daemon.ended(60_000);
  const fatal = daemon.log.filter((line) => line['msg'] === 'cannot start');
  assert.equal(fatal.length, 1, daemon.logTail());
  assert.equal(fatal[0], daemon.log.at(-1));
  assert.equal(fatal[0]?.['exit'], exit);
  return { text: String(fatal[0]?.['error']), exit };
}

/** Overwrites bytes of the database, in a copy that only this daemon sees. */
const spoiled = (state: string, bytes: string, at: number): string =>
  `${small(state, 8)}; printf '${bytes}' | dd of='${state}/ferry.db' bs=1 seek=${at} conv=notrunc 2>/dev/null`;

const rows = (
  state: string,
): readonly (readonly [name: string, script: string, exit: number, text: RegExp])[] => [
  [
    'full',
    `${small(state, 8)}; ${fill(state)}`,
    6,
    /^journal: cannot (open|write) .*ferry\.db: its file system is full \(.*(FULL|ENOSPC)\); make room there; the guests run on/,
  ],
  [
    'full, and nothing is kept in reserve',
    `${small(state, 8)}; rm '${state}/reserve'; ${fill(state)}`,
    6,
    /its file system is full/,
  ],
  [
    'full before there is a database',
    `mount -t tmpfs -o size=64k none '${state}'; ${fill(state)}`,
    6,
    /its file system is full/,
  ],
  [
    'too small for the reserve',
    `mount -t tmpfs -o size=512k none '${state}'`,
    6,
    /its file system is full/,
  ],
  [
    'a directory that is read-only',
    `mount --bind '${state}' '${state}'; mount -o remount,bind,ro '${state}'`,
    6,
    /^journal: cannot \w+ .*ferry\.db: it may not be written \(.*\); mount its file system for writing/,
  ],
  [
    'a database that is read-only',
    `mount --bind '${state}/ferry.db' '${state}/ferry.db'; mount -o remount,bind,ro '${state}/ferry.db'`,
    6,
    /^journal: cannot \w+ .*ferry\.db: it may not be written/,
  ],
  [
    'no database at all in that file',
    spoiled(state, 'garbage', 0),
    6,
    /^journal: cannot open .*ferry\.db: it is damaged \(file is not a database.*\); 'ferry doctor'/,
  ],
  [
    'a damaged page',
    spoiled(state, 'garbage garbage garbage', 4096),
    6,
    /^journal: cannot (open|trust) .*ferry\.db: it is damaged/,
  ],
  [
    'a newer version',
    spoiled(state, '\\0\\0\\0\\143', 60),
    4,
    /^start: .*ferry\.db has version 99, this ferryd knows versions up to \d+; start the newer ferryd/,
  ],
];

test('a state directory that cannot be used is refused at start, and the guest does not notice', async () => {
  await withLab('refused', async (lab) => {
    const guest = await running(lab);
    await lab.daemons.at(-1)?.stop();
    for (const [name, script, exit, text] of rows(lab.stateDir)) {
      const said = await refused(lab, { under: inMounts(script) });
      assert.match(said.text, text, name);
      assert.equal(said.exit, exit, name);
      assert.ok(!existsSync(join(lab.runDir, 'libvirt-sock')), `${name}: no door was opened`);
      await guest.serial.waitProgress();
    }
    await lab.ferryd();
    assert.match(await lab.mustVirsh('domstate', 'vm1'), /running/);
    await endsWell(lab, guest);
  });
});

test('two daemons on one state or run directory: the second is told who has it, the first answers on', async () => {
  await withLab('twice', async (lab) => {
    const guest = await running(lab);
    const first = lab.daemons.at(-1)?.pid;
    const other = join(lab.directory, 'other');
    for (const [name, directories, text] of [
      ['state', { runDir: other }, `state directory ${lab.stateDir}`],
      ['run', { stateDir: other }, `run directory ${lab.runDir}`],
      ['both', {}, `run directory ${lab.runDir}`],
    ] as const) {
      const said = await refused(lab, directories);
      const expected = `start: ${text} is in use by the ferryd with pid ${first}; end it first, or give another`;
      assert.ok(said.text.startsWith(expected), `${name}: ${said.text}`);
      assert.equal(said.exit, 4, name);
      assert.match(await lab.mustVirsh('domstate', 'vm1'), /running/, name);
    }
    // Killed, it leaves its sockets and its lock files, which nobody holds.
    await lab.daemons.at(0)?.kill9();
    assert.ok(existsSync(join(lab.runDir, 'libvirt-sock')));
    await lab.ferryd();
    await endsWell(lab, guest);
  });
});

test('a damaged database moved aside: guests go on, and their definitions are where the text says', async () => {
  await withLab('aside', async (lab) => {
    const guest = await running(lab);
    // After a switch, so that the definition is not the one that was given.
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b);
    await lab.daemons.at(-1)?.stop();
    const copy = join(lab.stateDir, 'xml', 'vm1.xml');
    assert.match(
      await readFile(copy, 'utf8'),
      new RegExp(`<source file='${lab.b}/vm1-vda.qcow2'/>`),
    );
    const database = join(lab.stateDir, 'ferry.db');
    await writeFile(database, 'garbage'.repeat(1000));
    const said = await refused(lab, {});
    assert.match(said.text, /definitions lie in xml\/ beside it/);

    await rename(database, `${database}.damaged`);
    await lab.ferryd();
    assert.equal((await lab.mustVirsh('list', '--all', '--name')).trim(), '');
    await lab.mustVirsh('define', copy);
    const again = await lab.virsh('start', 'vm1');
    const pid = /runs already \(pid (\d+)\) that this ferryd does not know/.exec(again.stderr)?.[1];
    assert.ok(pid !== undefined, again.stderr);
    await guest.serial.waitProgress();
    process.kill(Number(pid), 'SIGTERM');
    const started = async (): Promise<true | null> =>
      (await lab.virsh('start', 'vm1')).code === 0 ? true : null;
    await until(started, 20_000, 'its QEMU is gone');
    await guest.serial.waitProgress();
    await endsWell(lab, guest);
  });
});
