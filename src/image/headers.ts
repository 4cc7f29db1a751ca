// What the headers of images in a folder name below them, read without QEMU's tools: for finding who stands on an
// image, which has to look at every file there. Nothing is ever opened by what is found here.

import type { FileHandle } from 'node:fs/promises';
import { open, readdir, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

const MAGIC = 0x51_46_49_fb;
/** docs/interop/qcow2.txt: the name is at most this long, and lies in the first cluster. */
const MAX_NAME_BYTES = 1023;
/** How much of a file of another kind is searched for a name: headers of other formats, definitions, notes. */
const SEARCHED_BYTES = 65_536;

/** Of the qcow2 header of `path`, the name of its backing file as it stands there; null: none, or no such header. */
export async function backingName(path: string): Promise<string | null> {
  const file = await open(path, 'r').catch(() => null);
  if (file === null) return null;
  try {
    return await nameIn(file);
  } finally {
    await file.close();
  }
}

async function nameIn(file: FileHandle): Promise<string | null> {
  const header = Buffer.alloc(20);
  const { bytesRead } = await file.read(header, 0, header.length, 0);
  if (!isQcow2(header.subarray(0, bytesRead))) return null;
  const [offset, length] = [Number(header.readBigUInt64BE(8)), header.readUInt32BE(16)];
  if (offset === 0 || length === 0 || length > MAX_NAME_BYTES) return null;
  const name = Buffer.alloc(length);
  const { bytesRead: got } = await file.read(name, 0, length, offset);
  return name.toString('utf8', 0, got);
}

/** Where a backing name in the header of `path` leads to; null when it is no plain path (`json:`, `nbd:`). */
export function backingPath(path: string, name: string): string | null {
  const plain = name.startsWith('file:') ? name.slice('file:'.length) : name;
  return /^[a-z][a-z0-9+.-]*:/i.test(plain) ? null : resolve(dirname(path), plain);
}

/**
 * Files in the folder of `path` that name it: by their qcow2 header, or in the first 64 KiB of any other file. May say
 * too much, never too little: what it is asked for is whether `path` can go.
 *
 * @throws the folder cannot be read.
 */
export async function namedInFolder(path: string): Promise<readonly string[]> {
  const folder = dirname(path);
  const found: string[] = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const other = join(folder, entry.name);
    if (!entry.isFile() || other === path) continue;
    if (await names(other, path)) found.push(other);
  }
  return found.toSorted();
}

async function names(other: string, path: string): Promise<boolean> {
  const file = await open(other, 'r').catch(() => null);
  // What cannot be read might.
  if (file === null) return true;
  try {
    const start = Buffer.alloc(SEARCHED_BYTES);
    const { bytesRead } = await file.read(start, 0, start.length, 0);
    const text = start.subarray(0, bytesRead);
    if (!isQcow2(text)) return mentions(text, basename(path));
    const named = await nameIn(file);
    if (named === null) return false;
    const below = backingPath(other, named);
    return below === null ? named.includes(basename(path)) : await isSame(below, path);
  } finally {
    await file.close();
  }
}

const isQcow2 = (start: Buffer): boolean => start.length >= 20 && start.readUInt32BE(0) === MAGIC;

async function isSame(a: string, b: string): Promise<boolean> {
  if (a === b) return true;
  const real = await Promise.all([a, b].map((path) => realpath(path).catch(() => path)));
  return real[0] === real[1];
}

/** Whether `name` stands there whole, and not as a part of a longer name. */
function mentions(text: Buffer, name: string): boolean {
  const isPart = (byte: number | undefined): boolean =>
    byte !== undefined && /[\w.-]/.test(String.fromCodePoint(byte));
  for (let at = text.indexOf(name); at >= 0; at = text.indexOf(name, at + 1)) {
    const before = text[at - 1];
    const after = text[at + Buffer.byteLength(name)];
    if (!isPart(before) && !isPart(after)) return true;
  }
  return false;
}
