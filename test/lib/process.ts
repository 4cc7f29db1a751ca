// Running other programs from tests, and finding the processes that belong to a directory.

import { spawn } from 'node:child_process';
import { readdir, readFile, readlink } from 'node:fs/promises';

import { messageOf } from '../../src/std/errors.js';

/** The checkout: this file runs as dist/test/lib/process.js. */
export const root = new URL('../../../', import.meta.url).pathname;

export interface Finished {
  /** Exit code; null when a signal or the deadline ended it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  readonly cwd?: string;
}

/** Runs a program to its end. A failure of the program is a result; not being able to start it is an error. */
export async function run(
  program: string,
  args: readonly string[],
  { timeoutMs = 60_000, env = {}, input = '', cwd }: RunOptions = {},
): Promise<Finished> {
  const child = spawn(program, args, {
    env: { ...process.env, ...env },
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    ...(cwd === undefined ? {} : { cwd }),
  });
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  // A program that ends without reading its input is no error of ours.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', (cause) => reject(new Error(`${program}: ${messageOf(cause)}`, { cause })));
    child.once('close', resolve);
  });
  return {
    code,
    stdout: Buffer.concat(stdout).toString(),
    stderr: Buffer.concat(stderr).toString(),
  };
}

/** Like `run`, but any end other than success is an error that shows what the program said. */
export async function must(
  program: string,
  args: readonly string[],
  options?: RunOptions,
): Promise<string> {
  const finished = await run(program, args, options);
  if (finished.code === 0) return finished.stdout;
  throw new Error(
    `${program} ${args.join(' ')}: exit ${finished.code}\n${finished.stdout}${finished.stderr}`,
  );
}

export interface ProcessSeen {
  readonly pid: number;
  readonly command: string;
}

/** The processes, other than this one, whose command line or working directory is inside `directory`. */
export async function processesOf(directory: string): Promise<readonly ProcessSeen[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const seen = await Promise.all(pids.map((pid) => describe(pid, directory)));
  return seen.filter((one) => one !== null);
}

async function describe(pid: number, directory: string): Promise<ProcessSeen | null> {
  if (pid === process.pid) return null;
  try {
    const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ').trim();
    const home = await readlink(`/proc/${pid}/cwd`);
    const inside = command.includes(`${directory}/`) || `${home}/`.startsWith(`${directory}/`);
    return inside && command !== '' ? { pid, command } : null;
  } catch {
    // It ended while we looked, or is not ours to look at.
    return null;
  }
}

/** Kills without a last word; a process that is gone already is as good. */
export function killNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone.
  }
}
