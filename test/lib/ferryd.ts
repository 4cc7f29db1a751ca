// One run of the daemon under test: its process, and its log of JSON lines.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import { until, within } from '../../src/std/deadline.js';
import { messageOf } from '../../src/std/errors.js';
import { killNow, root } from './process.js';

export interface FerrydOptions {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly readyMs?: number;
  /** A program and its arguments that become the daemon; see `inMounts`. */
  readonly under?: readonly string[];
  /** A module that is loaded before it, in the same process; it can then be talked to (`child_process` IPC). */
  readonly preload?: string;
}

export type LogLine = Readonly<Record<string, unknown>>;

export class Ferryd {
  readonly pid: number;
  /** Lines of its log, parsed; a line that is not JSON is kept as `{ raw }`. */
  readonly log: LogLine[] = [];
  private readonly child: ChildProcess;
  private readonly readyMs: number;
  private startError: Error | null = null;
  private rest = '';

  private constructor(child: ChildProcess, readyMs: number) {
    this.child = child;
    this.pid = child.pid ?? 0;
    this.readyMs = readyMs;
    child.once('error', (error) => (this.startError = error));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => this.take(text));
  }

  static start(
    options: FerrydOptions & { readonly runDir: string; readonly stateDir: string },
  ): Ferryd {
    const {
      runDir,
      stateDir,
      args = [],
      env = {},
      readyMs = 60_000,
      under = [],
      preload,
    } = options;
    const own = [join(root, 'bin/ferryd'), '--run-dir', runDir, '--state-dir', stateDir, ...args];
    const loaded = preload === undefined ? own : [process.execPath, '--import', preload, ...own];
    const [program = '', ...rest] = [...under, ...loaded];
    const child = spawn(program, rest, {
      stdio: ['ignore', 'ignore', 'pipe', ...(preload === undefined ? [] : ['ipc' as const])],
      env: { ...process.env, ...env },
    });
    return new Ferryd(child, readyMs);
  }

  /** Says something to the module that was loaded before it, and waits for its answer. */
  async tell(message: Readonly<Record<string, unknown>>, timeoutMs = 20_000): Promise<unknown> {
    const over = new AbortController();
    const { signal } = over;
    const answer = once(this.child, 'message', { signal }).then(([said]: unknown[]) => said);
    const gone = once(this.child, 'exit', { signal }).then(() => {
      throw new Error(`ferryd ${this.pid} ended before it answered`);
    });
    this.child.send(message, () => undefined); // that it is gone is told by its end
    try {
      return await within(Promise.race([answer, gone]), timeoutMs, `answer of ferryd ${this.pid}`);
    } finally {
      answer.catch(() => undefined);
      gone.catch(() => undefined);
      over.abort();
    }
  }

  async ready(): Promise<void> {
    await this.waitLog('ready', this.readyMs);
  }

  /** The first log line with that message, from the given place of `log` on. */
  async waitLog(message: string, timeoutMs = 20_000, since = 0): Promise<LogLine> {
    try {
      return await until(
        () => this.find(message, since),
        timeoutMs,
        `ferryd: log line '${message}'`,
      );
    } catch (cause) {
      throw new Error(`${messageOf(cause)}\n${this.logTail()}`, { cause });
    }
  }

  /** Kills it as a crash would. Guests go on running. */
  async kill9(): Promise<void> {
    // The number of one that is gone may be another program's by now.
    if (this.running()) killNow(this.pid);
    await this.ended();
  }

  /** Ends it as its service manager would. Guests go on running. */
  async stop(): Promise<number | null> {
    if (this.running()) this.child.kill('SIGTERM');
    return await this.ended();
  }

  /** Waits for its end, which something else causes; the exit code, or null after a signal. */
  async ended(timeoutMs = 20_000): Promise<number | null> {
    if (this.running())
      await within(once(this.child, 'exit'), timeoutMs, `end of ferryd ${this.pid}`);
    return this.child.exitCode;
  }

  logTail(lines = 40): string {
    return this.log
      .slice(-lines)
      .map((line) => JSON.stringify(line))
      .join('\n');
  }

  running(): boolean {
    return this.pid !== 0 && this.child.exitCode === null && this.child.signalCode === null;
  }

  private find(message: string, since: number): LogLine | null {
    if (this.startError !== null) throw this.startError;
    const found = this.log.slice(since).find((line) => line['msg'] === message);
    if (found !== undefined) return found;
    if (!this.running()) throw new Error(`ferryd ended with code ${this.child.exitCode}`);
    return null;
  }

  private take(text: string): void {
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop() ?? '';
    for (const line of lines) this.log.push(parse(line));
  }
}

function parse(line: string): LogLine {
  try {
    return JSON.parse(line) as LogLine; // pino writes objects only
  } catch {
    return { raw: line };
  }
}
