// Calls per second of libvirt-python, one connection: ferryd and a real libvirtd, each serving its own running domain, the
// rounds interleaved. libvirtd (Debian: libvirt-daemon, libvirt-daemon-driver-qemu) runs privately, on sockets of its own.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { until } from '../src/std/deadline.js';
import { withLab, type Lab } from '../test/lib/lab.js';
import { killNow, run } from '../test/lib/process.js';

const LIBVIRTD = '/usr/sbin/libvirtd';
const ROUNDS = 5;
const CALLS = 4000;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

/** Starts a session libvirtd whose home lies in the lab; answers its URI and what ends it. */
async function libvirtd(lab: Lab): Promise<{ readonly uri: string; readonly end: () => void }> {
  const home = join(lab.directory, 'home');
  const runtime = join(lab.directory, 'rt');
  for (const folder of [home, runtime]) await mkdir(folder);
  const env = { ...process.env, HOME: home, XDG_RUNTIME_DIR: runtime, LIBVIRT_AUTOSTART: '0' };
  // As root it would be the system's daemon; a session daemon needs another user.
  const child = spawn(
    'setpriv',
    ['--reuid=65534', '--clear-groups', LIBVIRTD, '--timeout', '600'],
    {
      env: { ...env, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home, XDG_DATA_HOME: home },
      stdio: 'ignore',
    },
  );
  await run('/bin/chown', ['-R', '65534', home, runtime]);
  await run('/bin/chmod', ['755', lab.directory]);
  const socket = join(runtime, 'libvirt', 'libvirt-sock');
  await until(() => (existsSync(socket) ? true : null), 20_000, 'libvirtd listens', 20);
  return { uri: `qemu+unix:///session?socket=${socket}`, end: () => killNow(child.pid ?? 0) };
}

/** Calls per second of one verb. */
async function rate(uri: string, verb: 'info' | 'XMLDesc'): Promise<number> {
  const script = `
import libvirt, time
dom = libvirt.open(${JSON.stringify(uri)}).lookupByName('vm1')
for _ in range(200): dom.${verb}()
start = time.time()
for _ in range(${CALLS}): dom.${verb}()
print(${CALLS} / (time.time() - start))
`;
  const { stdout, stderr, code } = await run('/usr/bin/python3', ['-'], { input: script });
  if (code !== 0) throw new Error(stderr);
  return Number(stdout);
}

await withLab('rpc', async (lab) => {
  await lab.ferryd();
  const guest = await lab.guest({ name: 'vm1' });
  await lab.mustVirsh('create', guest.xmlFile, '--paused');
  if (!existsSync(LIBVIRTD)) {
    for (const verb of ['info', 'XMLDesc'] as const) {
      say(
        `${verb}: ferryd ${Math.round(await rate(lab.uri, verb))} calls/s; libvirtd is not installed`,
      );
    }
    return;
  }
  const real = await libvirtd(lab);
  try {
    const theirs = await lab.guest({
      name: 'vm1',
      disks: [{ file: await lab.createImage(join(lab.b, 'theirs')) }],
    });
    // Its QEMU runs as that other user.
    await run('/bin/chmod', ['-R', 'a+rwX', lab.b, lab.directory]);
    const made = await run('/usr/bin/virsh', [
      '-c',
      real.uri,
      'create',
      theirs.xmlFile,
      '--paused',
    ]);
    if (made.code !== 0) throw new Error(made.stderr);
    for (const verb of ['info', 'XMLDesc'] as const) {
      const ours: number[] = [];
      const others: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        ours.push(await rate(lab.uri, verb));
        others.push(await rate(real.uri, verb));
      }
      const [a, b] = [median(ours), median(others)];
      say(
        `${verb}: ferryd ${Math.round(a)}, libvirtd ${Math.round(b)} calls/s, ratio ${(a / b).toFixed(2)}`,
      );
    }
  } finally {
    real.end();
  }
});
