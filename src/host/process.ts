// Processes of QEMU: started so that they outlive us, told apart beyond doubt, ended, and seen to have ended.

import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Identity } from '../job/world.js';
import type { QemuStart } from '../plan/step.js';
import { until } from '../std/deadline.js';
import { QemuError, messageOf } from '../std/errors.js';

/** How long a QEMU may take to flush and go before it is made to. */
const TERM_TIMEOUT_MS = 5000;
const KILL_TIMEOUT_MS = 10_000;

interface ProcessStat {
  readonly state: string;
  readonly startTicks: number;
  readonly cpuTicks: bigint;
}

/** Fields 3, 14, 15 and 22 of /proc/PID/stat (proc(5)); null when there is no such process. */
function statOf(pid: number): ProcessStat | null {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return null;
  }
  // The second field is the name in brackets and may hold anything.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const field = (number: number): string => fields[number - 3] ?? '0';
  return {
    state: field(3),
    startTicks: Number(field(22)),
    cpuTicks: BigInt(field(14)) + BigInt(field(15)),
  };
}

/** Linux counts process times in ticks of USER_HZ, which is 100 everywhere. */
const NS_PER_TICK = 10_000_000n;

/** Half a tick: a second look within it would see the same. */
const CPU_TIME_FRESH_MS = 5;
let lastCpu = { pid: 0, atMs: 0, cpuNs: 0n };

/** What clients poll most, so a process is not asked more often than its clock ticks. */
export function cpuTimeNs(pid: number): bigint {
  const atMs = performance.now();
  if (lastCpu.pid !== pid || atMs - lastCpu.atMs > CPU_TIME_FRESH_MS) {
    lastCpu = { pid, atMs, cpuNs: (statOf(pid)?.cpuTicks ?? 0n) * NS_PER_TICK };
  }
  return lastCpu.cpuNs;
}

/** A zombie counts as dead: where PID 1 reaps slowly it may stay for seconds. */
export function isAlive({ pid, startTicks }: Identity): boolean {
  const found = statOf(pid);
  return (
    found !== null && found.startTicks === startTicks && found.state !== 'Z' && found.state !== 'X'
  );
}

/** The QEMU that a pid file names: alive, and with our socket on its command line. Null: not there. */
export function identify(pidFile: string, mark: string): Identity | null {
  let pid: number;
  try {
    pid = Number(readFileSync(pidFile, 'utf8').trim());
    if (!Number.isInteger(pid) || pid <= 1) return null;
    // The pid may be somebody else's by now.
    if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(mark)) return null;
  } catch {
    return null;
  }
  const found = statOf(pid);
  if (found === null || found.state === 'Z' || found.state === 'X') return null;
  return { pid, startTicks: found.startTicks };
}

export interface RunAs {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Starts QEMU in a session of its own, so that neither a terminal nor our end reaches it, with its output in its log.
 *
 * Resolves when the process exists. `exited` resolves, with its last words, if it goes while we are there.
 */
export async function launch(
  start: QemuStart,
  runAs: RunAs | null,
): Promise<{ readonly exited: Promise<string>; readonly pid: number }> {
  await mkdir(dirname(start.logFile), { recursive: true, mode: 0o700 });
  const log = openSync(start.logFile, 'a', 0o600);
  try {
    const [program, ...args] = commandOf(start, runAs);
    const child = spawn(program, args, {
      detached: true,
      stdio: ['ignore', log, log],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...start.env },
    });
    const exited = new Promise<string>((resolve) => {
      child.on('exit', (code, by) =>
        resolve(by === null ? `it ended with exit code ${code}` : `it was ended by ${by}`),
      );
    });
    await new Promise<void>((resolve, reject) => {
      child.on('spawn', resolve);
      child.on('error', (cause) =>
        reject(
          new QemuError(
            `start ${start.emulator}: ${messageOf(cause)}; install QEMU or name another <emulator>`,
            { cause },
          ),
        ),
      );
    });
    child.unref();
    // Known, because it was spawned.
    return { exited, pid: child.pid ?? 0 };
  } finally {
    closeSync(log);
  }
}

function commandOf(start: QemuStart, runAs: RunAs | null): readonly [string, ...string[]] {
  const command: readonly [string, ...string[]] = [start.emulator, ...start.argv];
  return runAs === null ? command : asUser(runAs, command);
}

/** With all groups of the user, of which `kvm` may be one: Node's own `uid` drops them. setpriv(1) becomes the program, by the same pid. */
export function asUser(
  { uid, gid }: RunAs,
  command: readonly [string, ...string[]],
): readonly [string, ...string[]] {
  return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', '--', ...command];
}

/** The last words in a log: what QEMU said before it went. */
export function lastWords(logFile: string): string {
  try {
    const lines = readFileSync(logFile, 'utf8').trimEnd().split('\n');
    return lines.slice(-4).join(' | ').slice(-1000);
  } catch {
    return '';
  }
}

export const kill = (identity: Identity): void => signal(identity, 'SIGKILL');

/** SIGTERM lets QEMU flush and close its images; SIGKILL follows when it does not go. */
export async function end(identity: Identity): Promise<void> {
  const gone = (): true | null => (isAlive(identity) ? null : true);
  signal(identity, 'SIGTERM');
  try {
    await until(gone, TERM_TIMEOUT_MS, `QEMU ${identity.pid} ends`, 2);
  } catch {
    signal(identity, 'SIGKILL');
    await until(
      gone,
      KILL_TIMEOUT_MS,
      `QEMU ${identity.pid} ends after SIGKILL; it hangs in its storage, see 'dmesg'`,
      5,
    );
  }
}

function signal(identity: Identity, name: 'SIGTERM' | 'SIGKILL'): void {
  if (!isAlive(identity)) return;
  try {
    process.kill(identity.pid, name);
  } catch (error) {
    // Gone between the look and the signal.
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
