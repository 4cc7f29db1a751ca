// What the service manager is told: sd_notify(3). Node has no datagrams on unix sockets, so systemd's own tool sends them
// (docs/decisions/0007). It is started by a small shell that runs as long as we do and is told over a pipe, because
// starting a process stops this one's event loop for milliseconds, and a guest may stand still just then.

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { within } from '../std/deadline.js';
import { messageOf } from '../std/errors.js';

/** One assignment a line. With `--pid` root's messages come from us, so that `NotifyAccess=main` takes them. */
const teller = 'while IFS= read -r line; do systemd-notify --pid="$1" "$line"; done';
/** The manager is asked to confirm each message; one that does not must not keep us from ending. */
const LAST_WORD_TIMEOUT_MS = 2000;

export interface ServiceManager {
  /** `READY=1`, `STATUS=…`: in the order of the calls. Does not wait, never throws. */
  tell(...assignments: readonly string[]): void;
  /** Says that we end, and waits until that is said. */
  stopping(): Promise<void>;
}

const nobody: ServiceManager = { tell: () => undefined, stopping: async () => undefined };

/** `warn` is told once what keeps messages from being sent. */
export function serviceManager(
  env: NodeJS.ProcessEnv,
  warn: (problem: string) => void,
): ServiceManager {
  if ((env['NOTIFY_SOCKET'] ?? '') === '') return nobody;
  const shell = spawn('/bin/sh', ['-c', teller, 'ferryd-notify', String(process.pid)], {
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  const problem = (text: string): void => {
    warn(text.trim());
    shell.stderr.removeAllListeners('data').resume();
  };
  shell.stderr.setEncoding('utf8').on('data', problem);
  shell.on('error', (error) => problem(messageOf(error)));
  // It may be gone: `error` or its last words said so.
  shell.stdin.on('error', () => undefined);
  const tell = (...assignments: readonly string[]): void => {
    const lines = assignments.map((one) => `${one.replaceAll('\n', ' ')}\n`);
    if (shell.stdin.writable) shell.stdin.write(lines.join(''));
  };
  keepAlive(env, tell);
  return { tell, stopping: () => lastWord(shell, tell) };
}

async function lastWord(shell: ChildProcess, tell: ServiceManager['tell']): Promise<void> {
  tell('STOPPING=1', 'STATUS=ends; guests go on');
  if (shell.exitCode !== null || shell.pid === undefined) return;
  const said = once(shell, 'exit');
  shell.stdin?.end();
  // Ending matters more than saying so.
  await within(said, LAST_WORD_TIMEOUT_MS, 'tell the service manager').catch(() => undefined);
}

/** sd_watchdog_enabled(3): twice in the time it gives, from the event loop, so that one that hangs is seen. */
function keepAlive(env: NodeJS.ProcessEnv, tell: ServiceManager['tell']): void {
  const { WATCHDOG_USEC: micros = '', WATCHDOG_PID: pid = String(process.pid) } = env;
  const periodMs = Number(micros) / 2000;
  if (!(periodMs > 0) || pid !== String(process.pid)) return;
  setInterval(() => tell('WATCHDOG=1'), periodMs).unref();
}
