// A real `bin/ferry` against a host in memory, and transcripts of it as golden files.

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';

import { golden as compare } from '../../../test/lib/golden.js';
import { root } from '../../../test/lib/process.js';
import { serveHttp } from '../../http/server.js';
import type { MemoryHost } from '../../http/testing/memory-host.js';
import { sampleHost } from '../../http/testing/samples.js';

export const checkout = root;

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Bench {
  readonly host: MemoryHost;
  readonly directory: string;
  /** Runs `ferry` with this command line until it ends. */
  readonly ferry: (args: readonly string[], stdin?: string) => Promise<Ran>;
  readonly spawned: (args: readonly string[]) => ChildProcess;
}

/** A host, its door and a directory to work in. */
export async function bench(t: TestContext): Promise<Bench> {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-cli-'));
  const host = sampleHost();
  const door = await serveHttp(host, { socketPath: join(directory, 'ferry.sock'), mode: 0o600 });
  t.after(async () => {
    await door.close();
    await rm(directory, { recursive: true });
  });
  const spawned = (args: readonly string[]): ChildProcess => spawnFerry(directory, args);
  return {
    host,
    directory,
    spawned,
    ferry: async (args, stdin = '') => await finished(spawned(args), stdin),
  };
}

export function spawnFerry(directory: string, args: readonly string[]): ChildProcess {
  const env = { PATH: process.env['PATH'], TZ: 'UTC', FERRY_RUN_DIR: directory };
  return spawn(process.execPath, [join(checkout, 'bin/ferry'), ...args], { cwd: directory, env });
}

export async function finished(child: ChildProcess, stdin = ''): Promise<Ran> {
  const { stdin: input, stdout, stderr } = child;
  assert.ok(input !== null && stdout !== null && stderr !== null);
  const code = new Promise<number | null>((resolve) => child.once('close', resolve));
  input.on('error', () => undefined); // A command that reads nothing has closed it already.
  input.end(stdin);
  const [out, err, exit] = await Promise.all([text(stdout), text(stderr), code]);
  return { code: exit, stdout: out, stderr: err };
}

/** A command line as the transcripts show it: words that hold spaces are quoted. */
const quoted = (args: readonly string[]): string =>
  args.map((word) => (/[\s<]/.test(word) ? `'${word}'` : word)).join(' ');

/** Runs the command lines one after the other and writes down what a person would have seen. */
export async function transcript(
  on: Bench,
  lines: readonly (readonly string[])[],
): Promise<string> {
  const parts: string[] = [];
  for (const args of lines) {
    const { code, stdout, stderr } = await on.ferry(args);
    const told = stderr.replaceAll(/^(?=.)/gm, '! ');
    parts.push(`$ ferry ${quoted(args)}\n${stdout}${told}[exit ${code}]\n`);
  }
  return parts.join('\n').replaceAll(on.directory, 'RUN_DIR');
}

/** Compares with a golden file of the command line. */
export const golden = (name: string, actual: string): void =>
  compare(`src/cli/golden/${name}`, actual);
