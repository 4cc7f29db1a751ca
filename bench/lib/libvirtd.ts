// A real libvirtd (Debian: libvirt-daemon, libvirt-daemon-driver-qemu) for a lab alone, on sockets of its own.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { until } from '../../src/std/deadline.js';
import type { Lab } from '../../test/lib/lab.js';
import { killNow, must } from '../../test/lib/process.js';

export const LIBVIRTD = '/usr/sbin/libvirtd';

/** As root it would be the system's daemon; a session daemon needs another user. */
const NOBODY = '65534';

/** Its QEMUs run as another user: what they use has to be open to all. */
export class Libvirtd implements AsyncDisposable {
  readonly uri: string;
  private readonly child: ChildProcess;

  private constructor(child: ChildProcess, socket: string) {
    this.child = child;
    this.uri = `qemu+unix:///session?socket=${socket}`;
  }

  static async start(lab: Lab): Promise<Libvirtd> {
    const home = join(lab.directory, 'home');
    const runtime = join(lab.directory, 'rt');
    const config = join(home, 'libvirt');
    for (const folder of [home, runtime, config]) await mkdir(folder);
    // QEMU itself appends to the file of a serial line, which a watch of the lab follows.
    await writeFile(join(config, 'qemu.conf'), 'stdio_handler = "file"\n');
    await must('/bin/chown', ['-R', NOBODY, home, runtime]);
    await must('/bin/chmod', ['755', lab.directory]);
    const child = spawn(
      'setpriv',
      [`--reuid=${NOBODY}`, '--clear-groups', LIBVIRTD, '--timeout', '7200'],
      {
        env: {
          ...process.env,
          HOME: home,
          XDG_RUNTIME_DIR: runtime,
          XDG_CONFIG_HOME: home,
          XDG_CACHE_HOME: home,
          XDG_DATA_HOME: home,
        },
        stdio: 'ignore',
      },
    );
    const socket = join(runtime, 'libvirt', 'libvirt-sock');
    const listens = (): true | null => {
      if (child.exitCode !== null) throw new Error(`libvirtd ended with code ${child.exitCode}`);
      return existsSync(socket) ? true : null;
    };
    await until(listens, 20_000, 'libvirtd listens', 20);
    return new Libvirtd(child, socket);
  }

  /** Its guests stay, and go with the lab. */
  async [Symbol.asyncDispose](): Promise<void> {
    killNow(this.child.pid ?? 0);
  }
}
