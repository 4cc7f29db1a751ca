// ferryd as a service: what systemd is told, its unit files, and whom its sockets let in.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { until } from '../../src/std/deadline.js';
import { FailingDisk } from '../lib/failing-disk.js';
import { Ferryd } from '../lib/ferryd.js';
import { withLab, type Lab } from '../lib/lab.js';
import { NotifyListener } from '../lib/notify-listener.js';
import { must, root, run } from '../lib/process.js';

const isRoot = process.getuid?.() === 0;

const listening = async (lab: Lab): Promise<NotifyListener> =>
  await NotifyListener.at(join(lab.directory, 'notify'));

test('the service manager is told when ferryd is ready, that it lives, what is wrong, and when it ends', async () => {
  await withLab('notify', async (lab) => {
    await using manager = await listening(lab);
    const disk = await FailingDisk.at(lab.directory);
    const env = { ...disk.env, NOTIFY_SOCKET: manager.path, WATCHDOG_USEC: '400000' };
    const daemon = await lab.ferryd({ env });
    const ready = await manager.waitFor('READY=1');
    await lab.mustVirsh('version');
    // So that `NotifyAccess=main` is enough.
    if (isRoot) assert.equal(ready.pid, daemon.pid);

    const alive = (): number => manager.told.filter(({ text }) => text === 'WATCHDOG=1').length;
    await until(() => (alive() >= 3 ? true : null), 20_000, 'it says that it lives');

    const before = manager.told.length;
    const { xmlFile } = await lab.guest({ name: 'vm1' });
    await disk.failAfter(0, 'EIO');
    assert.notEqual((await lab.virsh('define', xmlFile)).code, 0);
    await manager.waitFor('STATUS=journal: cannot write ', before);
    await disk.mend();
    await manager.waitFor('STATUS=answers', before);
    await lab.mustVirsh('define', xmlFile);

    assert.equal(await daemon.stop(), 0);
    await manager.waitFor('STOPPING=1');
    await nobodyTells(daemon.pid);
  });
});

test('the service manager is told why ferryd cannot start, and never that it is ready', async () => {
  await withLab('notify-not', async (lab) => {
    await using manager = await listening(lab);
    await writeFile(join(lab.stateDir, 'ferry.db'), 'garbage'.repeat(1000));
    const env = { NOTIFY_SOCKET: manager.path };
    const daemon = Ferryd.start({ runDir: lab.runDir, stateDir: lab.stateDir, env });
    lab.daemons.push(daemon);
    assert.equal(await daemon.ended(), 6);
    await manager.waitFor('STATUS=cannot start: journal: cannot open ');
    await manager.waitFor('STOPPING=1');
    assert.ok(manager.told.every(({ text }) => text !== 'READY=1'));
  });
});

test('who tells the service manager goes with a ferryd that is killed, and ferryd works without', async () => {
  await withLab('notify-killed', async (lab) => {
    await using manager = await listening(lab);
    const daemon = await lab.ferryd({ env: { NOTIFY_SOCKET: manager.path } });
    await manager.waitFor('READY=1');
    await daemon.kill9();
    await nobodyTells(daemon.pid);

    // Only Node in its path: as where systemd's tools are missing.
    await mkdir(join(lab.directory, 'bin'));
    await must('ln', ['-s', process.execPath, join(lab.directory, 'bin', 'node')]);
    const path = join(lab.directory, 'bin');
    const other = await lab.ferryd({ env: { NOTIFY_SOCKET: manager.path, PATH: path } });
    const { problem } = await other.waitLog('the service manager cannot be told');
    assert.match(String(problem), /systemd-notify/);
    await lab.mustVirsh('version');
  });
});

/** Waits until the helper of that daemon is gone. */
async function nobodyTells(pid: number): Promise<void> {
  const look = async (): Promise<true | null> => {
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const commands = await Promise.all(
      pids.map((one) => readFile(`/proc/${one}/cmdline`, 'utf8').catch(() => '')),
    );
    return commands.some((text) => text.includes(`\0ferryd-notify\0${pid}\0`)) ? null : true;
  };
  await until(look, 20_000, 'nobody tells any more');
}

test('a group is let in by the sockets, and nobody else', async () => {
  await withLab('group', async (lab) => {
    const gid = process.getgid?.() ?? 0;
    const name = (await must('id', ['-gn'])).trim();
    await lab.ferryd({ args: ['--socket-group', name] });
    for (const socket of ['libvirt-sock', 'ferry.sock']) {
      const found = await stat(join(lab.runDir, socket));
      assert.deepEqual([found.mode & 0o777, found.gid], [0o660, gid], socket);
    }
  });
});

/** Says so where a tool of systemd is missing; where CI is set that is an error. */
function isThere(t: TestContext, tool: string): boolean {
  if (existsSync(tool)) return true;
  t.diagnostic(`NOT CHECKED: ${tool} is missing; install Debian's package systemd`);
  assert.ok(!process.env['CI'], `${tool} is missing`);
  return false;
}

async function inTemporary(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-deploy-'));
  try {
    await body(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

test('systemd finds nothing wrong with the unit files', async (t) => {
  if (!isThere(t, '/usr/bin/systemd-analyze')) return;
  await inTemporary(async (directory) => {
    const units = ['ferryd.service', 'ferry-seal.service'];
    for (const unit of units) {
      const text = await readFile(join(root, 'deploy', unit), 'utf8');
      // From this checkout instead of the search path.
      const here = text.replaceAll(/^(Exec\w+=)(ferryd?)\b/gm, `$1${root}bin/$2`);
      assert.notEqual(here, text, unit);
      await writeFile(join(directory, unit), here);
    }
    const paths = units.map((unit) => join(directory, unit));
    const args = ['verify', '--man=no', ...paths];
    const { code, stdout, stderr } = await run('/usr/bin/systemd-analyze', args);
    assert.equal(stdout + stderr, '');
    assert.equal(code, 0);
  });
});

test('CANARY: systemd finds what is wrong', async (t) => {
  if (!isThere(t, '/usr/bin/systemd-analyze')) return;
  await inTemporary(async (directory) => {
    const path = join(directory, 'wrong.service');
    await writeFile(path, '[Service]\nExecStart=/nowhere/at/all\nKillMode=proces\n');
    const { code, stderr } = await run('/usr/bin/systemd-analyze', ['verify', path]);
    assert.notEqual(code, 0);
    assert.match(stderr, /kill mode/i);
  });
});

test('a guest outlives its daemon by the unit file: what would end it is not there', async () => {
  const text = await readFile(join(root, 'deploy/ferryd.service'), 'utf8');
  for (const line of [
    'KillMode=process',
    'Restart=always',
    'RuntimeDirectoryPreserve=yes',
    'OOMPolicy=continue',
  ])
    assert.ok(text.split('\n').includes(line), line);
});

test('systemd makes the group of the sockets', async (t) => {
  if (!isThere(t, '/bin/systemd-sysusers')) return;
  await inTemporary(async (directory) => {
    const file = join(root, 'deploy/blockferry.sysusers.conf');
    await mkdir(join(directory, 'etc'));
    await must('/bin/systemd-sysusers', [`--root=${directory}`, file]);
    assert.match(await readFile(join(directory, 'etc/group'), 'utf8'), /^blockferry:/m);
  });
});
