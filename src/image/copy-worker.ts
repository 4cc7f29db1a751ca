// A thread that copies pieces: reads, hashes, writes, all blocking, one piece after the other. It decides nothing.

import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import type { Extent } from '../block/copy.js';
import { messageOf } from '../std/errors.js';
import { present } from '../std/assert.js';
import type { Answer, CopyPaths, Side, ToWorker, Trouble, Work } from './copy-work.js';
import { pageMemory, storageReads } from './direct.js';
import { blockBytes, isZero, PieceHash, runsOf } from './pieces.js';

const port = present(parentPort, 'this file is a worker');
let paths: CopyPaths = { from: '', to: '', key: '' };
let key = Buffer.alloc(0);

/** How a file is reached; `storage`: the target past the page cache. */
type Door = Side | 'storage';

const opened = new Map<Door, number>();
const buffers = new Map<Door, Buffer>();
/** Until its storage has refused that. */
let isPassable = true;

port.on('message', (message: ToWorker) => {
  if (message === null) port.close();
  else if ('kind' in message) port.postMessage(answer(message));
  else begin(message);
});

function begin(copyPaths: CopyPaths): void {
  paths = copyPaths;
  key = Buffer.from(paths.key, 'hex');
  isPassable = true;
}

function answer(work: Work): Answer {
  try {
    // The kernel is asked for its accounts only where they are the proof.
    const before = work.kind === 'read-back' ? storageReads() : null;
    const hash = kinds[work.kind](work);
    const storageBytes = before === null ? 0 : (storageReads() ?? before) - before;
    return { id: work.id, hash, storageBytes };
  } catch (error) {
    return { id: work.id, trouble: troubleOf(error) };
  } finally {
    // Not kept for the next piece: a copy that starts over has another file behind the same name.
    for (const file of opened.values()) closeSync(file);
    opened.clear();
  }
}

function copy({ offset, length, parts, used }: Work): string {
  const hash = new PieceHash(key, offset);
  for (const chunk of chunksOf(offset, length)) {
    const here = within(parts, chunk);
    const bytes = read('source', chunk, here);
    const runs = runsOf(bytes, relative(here, chunk.start));
    hash.add(bytes, runs, chunk.start);
    for (const run of runs) write(bytes, run.start, run.length, chunk.start);
    clear(bytes, chunk, within(used, chunk));
  }
  return hash.digest();
}

function check({ offset, length, used }: Work, door: Door = 'target'): string {
  const hash = new PieceHash(key, offset);
  for (const chunk of chunksOf(offset, length)) {
    const here = within(used, chunk);
    const bytes = read(door, chunk, here);
    hash.add(bytes, runsOf(bytes, relative(here, chunk.start)), chunk.start);
  }
  return hash.digest();
}

/** So much of a piece at a time that it is still in the processor's cache when it is hashed and written. Of the format: runs end there. */
const chunkBytes = 2 << 20;

function* chunksOf(offset: number, length: number): Generator<Extent> {
  for (let start = offset; start < offset + length; start += chunkBytes)
    yield { start, length: Math.min(chunkBytes, offset + length - start) };
}

/** What of `parts` lies in it. */
const within = (parts: readonly Extent[], { start, length }: Extent): readonly Extent[] =>
  parts.flatMap((part) => {
    const first = Math.max(part.start, start);
    const end = Math.min(part.start + part.length, start + length);
    return end > first ? [{ start: first, length: end - first }] : [];
  });

/** Past the page cache where the storage lets us; the kernel's accounts tell whether it did. */
function readBack(work: Work): string {
  if (!isPassable) return check(work);
  try {
    return check(work, 'storage');
  } catch (error) {
    if (!isRefusal(error)) throw error;
    isPassable = false;
    return check(work);
  }
}

/** open(2), read(2): a file system without O_DIRECT, or one that wants it in larger blocks or in other memory. */
const isRefusal = (error: unknown): boolean =>
  error instanceof Failure && ['EINVAL', 'EOPNOTSUPP'].includes(error.trouble.code ?? '');

const kinds: Readonly<Record<Work['kind'], (work: Work) => string>> = {
  copy,
  check,
  'read-back': readBack,
};

/** Writes zeroes where the target holds something and the source does not. */
function clear(source: Buffer, chunk: Extent, used: readonly Extent[]): void {
  if (used.length === 0) return;
  const offset = chunk.start;
  const there = read('target', chunk, used);
  for (const { start, length: many } of runsOf(there, relative(used, offset)))
    for (let at = start; at < start + many; at += blockBytes) {
      const end = Math.min(at + blockBytes, start + many);
      if (isZero(source, at, end)) write(source, at, end - at, offset);
    }
}

const relative = (parts: readonly Extent[], offset: number): readonly Extent[] =>
  parts.map(({ start, length }) => ({ start: start - offset, length }));

/** A chunk with its parts read, and zeroes in between. Good until the next read of that side. */
function read(door: Door, { start: offset, length }: Extent, parts: readonly Extent[]): Buffer {
  // Whole blocks: past the cache, the end of a file is asked for as if there were more of it.
  const bytes = bufferFor(door, Math.ceil(length / blockBytes) * blockBytes);
  let at = 0;
  for (const part of parts) {
    const start = part.start - offset;
    bytes.fill(0, at, start);
    readPart(door, bytes, start, part);
    at = start + part.length;
  }
  return bytes.fill(0, at, length).subarray(0, length);
}

function readPart(door: Door, bytes: Buffer, at: number, { start, length }: Extent): void {
  const side = door === 'source' ? 'source' : 'target';
  for (let done = 0; done < length;) {
    const left = length - done;
    const most = door === 'storage' ? Math.ceil(left / blockBytes) * blockBytes : left;
    const many = on(side, 'read', () =>
      readSync(fileOf(door), bytes, at + done, most, start + done),
    );
    if (many === 0)
      throw new Failure({ side, doing: 'read', code: null, message: `it ends at ${start + done}` });
    done += many;
  }
}

/**
 * Long runs go past the page cache: that takes an eighth of the CPU (no page is filled and written back), a third of the
 * time, and no memory that guests could use. Short ones are for the kernel to gather.
 */
const longRunBytes = 256 << 10;

function write(bytes: Buffer, start: number, length: number, offset: number): void {
  // The end of a file can be in the middle of a block.
  const long = length < longRunBytes || !isPassable ? 0 : length - (length % blockBytes);
  try {
    writeTo('storage', bytes, start, long, offset);
    writeTo('target', bytes, start + long, length - long, offset);
  } catch (error) {
    if (!isRefusal(error)) throw error;
    isPassable = false;
    writeTo('target', bytes, start, length, offset);
  }
}

function writeTo(door: Door, bytes: Buffer, start: number, length: number, offset: number): void {
  for (let done = 0; done < length;) {
    const at = start + done;
    done += on('target', 'write', () =>
      writeSync(fileOf(door), bytes, at, length - done, offset + at),
    );
  }
}

function bufferFor(door: Door, length: number): Buffer {
  let buffer = buffers.get(door);
  if (buffer === undefined || buffer.length < length) {
    buffer = (isPassable ? pageMemory(length) : null) ?? Buffer.allocUnsafeSlow(length);
    buffers.set(door, buffer);
  }
  return buffer.subarray(0, length);
}

const opening: Readonly<Record<Door, () => number>> = {
  source: () => openSync(paths.from, constants.O_RDONLY),
  target: () => openSync(paths.to, constants.O_RDWR),
  storage: () => openSync(paths.to, constants.O_RDWR | constants.O_DIRECT),
};

/** Throws as the system does. */
function fileOf(door: Door): number {
  let file = opened.get(door);
  if (file === undefined) {
    file = opening[door]();
    opened.set(door, file);
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
function on<T>(side: Side, doing: Trouble['doing'], body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof Failure) throw error;
    const code = error instanceof Error && 'code' in error ? String(error.code) : null;
    throw new Failure({ side, doing, code, message: messageOf(error) });
  }
}

function troubleOf(error: unknown): Trouble {
  if (error instanceof Failure) return error.trouble;
  throw error;
}
