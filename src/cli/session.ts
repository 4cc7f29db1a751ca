// What every command works with: the daemon, where output goes, and how it looks.

import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';

import { defaultRunDir, defaultStateDir } from '../host/run-dir.js';
import type { FerryClient } from '../http/client.js';
import { ferryClient } from '../http/client.js';
import { toJson } from '../http/wire.js';
import { RequestError, messageOf } from '../std/errors.js';
import type { Paint } from './text.js';
import { coloured, plain } from './text.js';

export interface Session {
  readonly client: FerryClient;
  readonly runDir: string;
  readonly stateDir: string;
  readonly json: boolean;
  readonly paint: Paint;
  /** Prints a result: `value` with `--json`, else its text. */
  readonly print: (value: unknown, text: () => string) => void;
  /** Prints one value of a stream: a JSON line with `--json`, else its text. */
  readonly printLine: (value: unknown, text: () => string) => void;
}

export interface GlobalOptions {
  readonly runDir?: string;
  readonly stateDir?: string;
  readonly json?: true;
}

export function openSession(options: GlobalOptions): Session {
  const json = options.json === true;
  const runDir = resolve(options.runDir ?? defaultRunDir());
  const write = (line: string): void => void process.stdout.write(`${line}\n`);
  return {
    client: ferryClient(join(runDir, 'ferry.sock')),
    runDir,
    stateDir: resolve(options.stateDir ?? defaultStateDir()),
    json,
    paint: paintFor(process.stdout),
    print: (value, describe) => write(json ? toJson(value, 2) : describe()),
    printLine: (value, describe) => write(json ? toJson(value) : describe()),
  };
}

/** Colour for people only: https://no-color.org. */
export function paintFor(stream: NodeJS.WriteStream): Paint {
  return stream.isTTY && (process.env['NO_COLOR'] ?? '') === '' ? coloured : plain;
}

/** The text of `file`; `-` is standard input. */
export async function readInput(file: string): Promise<string> {
  if (file === '-') return await text(process.stdin);
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    const why = `it cannot be read: ${messageOf(error)}; name a file, or - for standard input`;
    throw new RequestError('INVALID_ARG', why, { cause: error });
  }
}
