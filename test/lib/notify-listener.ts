// A service manager's end of sd_notify(3): a datagram socket, and what arrived on it. Python's, because Node has none.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { until } from '../../src/std/deadline.js';
import { messageOf } from '../../src/std/errors.js';

const listener = `
import socket, struct, sys
door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
door.bind(sys.argv[1])
door.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
print('0 listens', flush=True)
while True:
    message, extra, _, _ = door.recvmsg(65536, 1024)
    pid = 0
    for level, kind, data in extra:
        if kind == socket.SCM_CREDENTIALS: pid = struct.unpack('3i', data)[0]
        # The sender of a barrier waits until its descriptor is closed.
        if kind == socket.SCM_RIGHTS: [socket.close(fd) for fd in struct.unpack('%di' % (len(data) // 4), data)]
    for line in message.decode().split('\\n'):
        print(pid, line, flush=True)
`;

export interface Told {
  /** Whose message the kernel says it is. */
  readonly pid: number;
  /** One assignment, as `READY=1`. */
  readonly text: string;
}

export class NotifyListener implements AsyncDisposable {
  readonly path: string;
  readonly told: Told[] = [];
  private readonly child: ChildProcess;

  private constructor(path: string) {
    this.path = path;
    this.child = spawn('/usr/bin/python3', ['-c', listener, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  }

  static async at(path: string): Promise<NotifyListener> {
    const made = new NotifyListener(path);
    const { stdout } = made.child;
    if (stdout === null) throw new Error('its output is a pipe');
    createInterface({ input: stdout }).on('line', (line) => {
      const [pid = '', ...text] = line.split(' ');
      made.told.push({ pid: Number(pid), text: text.join(' ') });
    });
    await made.waitFor('listens');
    return made;
  }

  /** The first message from `since` on that begins so. */
  async waitFor(start: string, since = 0): Promise<Told> {
    const find = (): Told | null =>
      this.told.slice(since).find(({ text }) => text.startsWith(start)) ?? null;
    try {
      return await until(find, 20_000, `message '${start}'`);
    } catch (cause) {
      const told = this.told.map(({ text }) => text).join(', ');
      throw new Error(`${messageOf(cause)}; told were: ${told}`, { cause });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await gone;
  }
}
