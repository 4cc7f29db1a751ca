// Real clients, run as child processes against a server of this process.

import { execFile, execFileSync } from 'node:child_process';

/** Why the real clients cannot be run here; false when they can. */
export function missing(command: string, ...args: readonly string[]): string | false {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return false;
  } catch {
    return `${command} ${args.join(' ')} does not run here`;
  }
}

export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Long enough for a loaded machine; a client that hangs fails its test. */
const TIMEOUT_MS = 30_000;

export async function run(command: string, args: readonly string[]): Promise<Output> {
  return await new Promise((resolve) => {
    execFile(command, args, { timeout: TIMEOUT_MS }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, stdout: stdout.trimEnd(), stderr: stderr.trimEnd() });
    });
  });
}

export const uriOf = (socket: string): string => `qemu+unix:///system?socket=${socket}`;
