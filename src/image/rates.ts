// How fast storages are, by a short look: enough to tell whether a copy takes seconds or hours.

import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';

const pieceBytes = 1 << 20;
const pieces = 32;
const limitMs = 300;

/** What a file gives in a second, in bytes; null: there is too little in it to tell. Its own bytes are read, no lock is taken. */
export async function readRate(path: string): Promise<bigint | null> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const buffer = Buffer.alloc(pieceBytes);
    // Spread over the file: its beginning is what others read before us, and so what the host's cache holds.
    const step = Math.max(pieceBytes, Math.floor(size / pieces / pieceBytes) * pieceBytes);
    return await rateOf(async (i) => {
      if ((i + 1) * step > size) return null;
      const { bytesRead } = await file.read(buffer, 0, pieceBytes, i * step);
      // A hole costs nothing, and is not copied.
      return buffer.subarray(0, bytesRead).every((byte) => byte === 0) ? 0 : bytesRead;
    });
  } finally {
    await file.close();
  }
}

/**
 * What a folder's storage takes in a second with all of it durable, in bytes; null: it does not let us try. Written to a file
 * without a name, so nothing is left whatever dies.
 */
export async function writeRate(folder: string): Promise<bigint | null> {
  // `open` of Linux: O_TMPFILE is this bit with O_DIRECTORY.
  const nameless = 0o20000000 | constants.O_DIRECTORY | constants.O_RDWR;
  let file: FileHandle;
  try {
    file = await open(folder, nameless, 0o600);
  } catch {
    return null; // NFS and others have no such files
  }
  try {
    const buffer = Buffer.alloc(pieceBytes, 0xa5);
    // 1, 1, 2, 4, 8, 16 of them: a slow storage is left alone after the first, a fast one is not held up by each.
    return await rateOf(async (i) => {
      const [from, to] = [i === 0 ? 0 : 2 ** (i - 1), 2 ** i];
      if (to > pieces) return null;
      let bytes = 0;
      for (let at = from; at < to; at++)
        bytes += (await file.write(buffer, 0, pieceBytes, at * pieceBytes)).bytesWritten;
      await file.datasync();
      return bytes;
    });
  } catch {
    return null; // full, or ill: the copy will say so in its own words
  } finally {
    await file.close();
  }
}

/** `piece` does one piece, and says how many bytes that were; null: there are no more. */
async function rateOf(piece: (i: number) => Promise<number | null>): Promise<bigint | null> {
  let bytes = 0;
  let counted = 0;
  const begin = performance.now();
  for (let i = 0; i < pieces && performance.now() - begin < limitMs; i++) {
    const before = performance.now();
    const done = await piece(i);
    if (done === null) break;
    if (done > 0) counted += performance.now() - before;
    bytes += done;
  }
  return bytes === 0 ? null : BigInt(Math.floor((bytes / Math.max(counted, 0.001)) * 1000));
}
