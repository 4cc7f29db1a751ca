// A thread that copies pieces: reads, hashes, writes, all blocking, one piece after the other. It decides nothing.

import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import type { Extent } from '../block/copy.js';
import { messageOf } from '../std/errors.js';
import { present } from '../std/assert.js';
import type { Answer, CopyPaths, Side, Trouble, Work } from './copy-work.js';
import { blockBytes, hashOf, isZero, runsOf } from './pieces.js';

const port = present(parentPort, 'this file is a worker');
const paths = workerData as CopyPaths; // what copy-threads.ts starts it with

const opened = new Map<Side, number>();
const buffers = new Map<Side, Buffer>();

port.on('message', (work: Work | null) => {
  if (work === null) port.close();
  else port.postMessage(answer(work));
});

function answer(work: Work): Answer {
  try {
    const hash = work.kind === 'copy' ? copy(work) : check(work);
    return { id: work.id, hash };
  } catch (error) {
    return { id: work.id, trouble: troubleOf(error) };
  } finally {
    // Not kept for the next piece: a copy that starts over has another file behind the same name.
    for (const file of opened.values()) closeSync(file);
    opened.clear();
  }
}

function copy({ offset, length, parts, used }: Work): string {
  const bytes = read('source', offset, length, parts);
  const runs = runsOf(bytes, relative(parts, offset));
  const hash = hashOf(bytes, runs, offset);
  for (const { start, length: many } of runs) write(bytes, start, many, offset);
  clear(bytes, { offset, length, used });
  return hash;
}

function check({ offset, length, used }: Work): string {
  const bytes = read('target', offset, length, used);
  return hashOf(bytes, runsOf(bytes, relative(used, offset)), offset);
}

/** Writes zeroes where the target holds something and the source does not. */
function clear(source: Buffer, piece: Pick<Work, 'offset' | 'length' | 'used'>): void {
  const { offset, length, used } = piece;
  if (used.length === 0) return;
  const there = read('target', offset, length, used);
  for (const { start, length: many } of runsOf(there, relative(used, offset)))
    for (let at = start; at < start + many; at += blockBytes) {
      const end = Math.min(at + blockBytes, start + many);
      if (isZero(source, at, end)) write(source, at, end - at, offset);
    }
}

const relative = (parts: readonly Extent[], offset: number): readonly Extent[] =>
  parts.map(({ start, length }) => ({ start: start - offset, length }));

/** The piece with its parts read, and zeroes in between. Good until the next read of that side. */
function read(side: Side, offset: number, length: number, parts: readonly Extent[]): Buffer {
  const bytes = bufferFor(side, length);
  let at = 0;
  for (const part of parts) {
    const start = part.start - offset;
    bytes.fill(0, at, start);
    readPart(side, bytes, start, part);
    at = start + part.length;
  }
  return bytes.fill(0, at, length);
}

function readPart(side: Side, bytes: Buffer, at: number, { start, length }: Extent): void {
  for (let done = 0; done < length;) {
    const many = on(side, () =>
      readSync(fileOf(side), bytes, at + done, length - done, start + done),
    );
    if (many === 0) throw new Failure({ side, code: null, message: `it ends at ${start + done}` });
    done += many;
  }
}

function write(bytes: Buffer, start: number, length: number, offset: number): void {
  for (let done = 0; done < length;) {
    const at = start + done;
    done += on('target', () => writeSync(fileOf('target'), bytes, at, length - done, offset + at));
  }
}

function bufferFor(side: Side, length: number): Buffer {
  let buffer = buffers.get(side);
  if (buffer === undefined || buffer.length < length) {
    buffer = Buffer.allocUnsafeSlow(length);
    buffers.set(side, buffer);
  }
  return buffer.subarray(0, length);
}

function fileOf(side: Side): number {
  let file = opened.get(side);
  if (file === undefined) {
    file = on(side, () =>
      side === 'source'
        ? openSync(paths.from, constants.O_RDONLY)
        : openSync(paths.to, constants.O_RDWR),
    );
    opened.set(side, file);
  }
  return file;
}

class Failure extends Error {
  readonly trouble: Trouble;

  constructor(trouble: Trouble) {
    super(trouble.message);
    this.trouble = trouble;
  }
}

/** Says of an error which file it came from. */
function on<T>(side: Side, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof Failure) throw error;
    const code = error instanceof Error && 'code' in error ? String(error.code) : null;
    throw new Failure({ side, code, message: messageOf(error) });
  }
}

function troubleOf(error: unknown): Trouble {
  if (error instanceof Failure) return error.trouble;
  throw error;
}
