// A tool of QEMU that reads and writes much: followed by what it says of its progress, held to a rate that may change, ended
// with its user or with us.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

import { SystemError } from '../std/errors.js';

export interface ToolEnd {
  /** Null: it was ended by us. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ToolRun {
  readonly signal: AbortSignal;
  /** Of what it reads. Null: as fast as it goes; 0: it stands still. */
  readonly limitBytesPerSecond: () => number | null;
  /** From 0 to 1. */
  readonly onShare: (share: number) => void;
}

const lookMs = 20;

/**
 * `qemu-img -r` holds one rate for good; this one is asked for again and again, so the process itself is stopped whenever it
 * has read more than it may have, by the kernel's accounts.
 */
export async function runPaced(
  tool: string,
  args: readonly string[],
  { signal, limitBytesPerSecond, onShare }: ToolRun,
): Promise<ToolEnd> {
  // It must not outlive us: another life begins anew, and nobody would let a stopped one go on.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', tool, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const pacer = new Pacer(limitBytesPerSecond, () => readBytesOf(child.pid), {
    stop: () => child.kill('SIGSTOP'),
    goOn: () => child.kill('SIGCONT'),
  });
  const look = (): void => pacer.look(performance.now());
  look();
  const timer = setInterval(look, lookMs);
  const end = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', end);
  if (signal.aborted) end();
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (text: Buffer) => {
    stdout = (stdout + text.toString()).slice(-KEPT);
    const share = shareOf(stdout);
    if (share !== null) onShare(share);
  });
  child.stderr.on('data', (text: Buffer) => (stderr = (stderr + text.toString()).slice(-KEPT)));
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', (cause) =>
        reject(
          new SystemError(
            `setpriv, which ends ${tool} with ferryd, cannot be started: ${cause.message}; it comes with util-linux`,
            { cause },
          ),
        ),
      );
      child.once('close', (code) => resolve({ code, stdout, stderr: stderr.trim() }));
    });
  } finally {
    clearInterval(timer);
    signal.removeEventListener('abort', end);
  }
}

/** Of what it says, the last of it. */
const KEPT = 4096;

/** The last `(12.34/100%)` that `qemu-img -p` printed; null: none yet. */
export function shareOf(said: string): number | null {
  const last = said.lastIndexOf('/100%)');
  const [, percent] = /\((\d+(?:\.\d+)?)$/.exec(said.slice(0, Math.max(0, last))) ?? [];
  return last < 0 || percent === undefined ? null : Math.min(1, Number(percent) / 100);
}

/** Lets a process go on as long as it has not read more than it may have. */
export class Pacer {
  private readonly rate: () => number | null;
  private readonly readBytes: () => number | null;
  private readonly process: { readonly stop: () => void; readonly goOn: () => void };
  /** What it may have read until now. */
  private dueBytes = 0;
  private atMs: number | null = null;
  private isStopped = false;

  constructor(
    rate: () => number | null,
    readBytes: () => number | null,
    process: { readonly stop: () => void; readonly goOn: () => void },
  ) {
    this.rate = rate;
    this.readBytes = readBytes;
    this.process = process;
  }

  look(nowMs: number): void {
    const rate = this.rate();
    const read = this.readBytes() ?? 0;
    const passedMs = nowMs - (this.atMs ?? nowMs);
    this.atMs = nowMs;
    // What was not used is not saved up: a storage that stood still does not make up for it.
    const paid = rate === null ? 0 : (passedMs / 1000) * rate;
    this.dueBytes = rate === null ? read : Math.min(this.dueBytes, read) + paid;
    const isAhead = rate !== null && (rate === 0 || read > this.dueBytes);
    if (isAhead === this.isStopped) return;
    this.isStopped = isAhead;
    if (isAhead) this.process.stop();
    else this.process.goOn();
  }
}

/** `rchar` of proc(5): what its system calls read. Null: it is gone, or has not begun. */
function readBytesOf(pid: number | undefined): number | null {
  if (pid === undefined) return null;
  try {
    const [, bytes] = /^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8')) ?? [];
    return bytes === undefined ? null : Number(bytes);
  } catch {
    return null;
  }
}
