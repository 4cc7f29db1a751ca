// How a file is cut into pieces, and the hash of a piece. Both follow from the bytes alone: the same content gives the
// same pieces and the same root, on whatever storage and with whatever holes it lies.

import { createHash } from 'node:crypto';
import type { Extent, Piece } from '../block/copy.js';

/** What is either a hole or data; cp takes the same. */
export const blockBytes = 4096;

/** Holes smaller than that are read through: a system call costs as much. */
const smallHoleBytes = 64 << 10;

/** The part of a file that is read, hashed and written as one. */
export interface Window {
  readonly offset: number;
  readonly length: number;
  /** Where there may be data in it, in order and by position in the file. */
  readonly parts: readonly Extent[];
  /** How much data the storage says that there is. */
  readonly dataBytes: number;
}

/** The windows of `pieceBytes` that hold any of the `extents`, which are in order. */
export function windowsOf(
  extents: readonly Extent[],
  sizeBytes: number,
  pieceBytes: number,
): readonly Window[] {
  const byOffset = new Map<number, Extent[]>();
  for (const extent of joined(inBlocks(extents, sizeBytes), 0))
    for (const part of cut(extent, pieceBytes)) {
      const offset = part.start - (part.start % pieceBytes);
      const parts = byOffset.get(offset);
      if (parts === undefined) byOffset.set(offset, [part]);
      else parts.push(part);
    }
  return [...byOffset].map(([offset, parts]) => ({
    offset,
    length: Math.min(pieceBytes, sizeBytes - offset),
    parts: joined(parts, smallHoleBytes),
    dataBytes: parts.reduce((sum, { length }) => sum + length, 0),
  }));
}

/** Whole blocks: a storage with smaller ones can begin its data in the middle of one of ours. */
function inBlocks(extents: readonly Extent[], sizeBytes: number): readonly Extent[] {
  return extents.flatMap(({ start, length }) => {
    const first = start - (start % blockBytes);
    const end = Math.min(Math.ceil((start + length) / blockBytes) * blockBytes, sizeBytes);
    return end > first ? [{ start: first, length: end - first }] : [];
  });
}

/** Extents with less than `gapBytes` between them, or none at all, become one. */
function joined(extents: readonly Extent[], gapBytes: number): readonly Extent[] {
  const found: Extent[] = [];
  for (const { start, length } of extents) {
    const last = found.at(-1);
    const end = last === undefined ? -1 : last.start + last.length;
    if (last === undefined || (start > end && start - end >= gapBytes)) {
      found.push({ start, length });
    } else {
      const union = Math.max(end, start + length) - last.start;
      found[found.length - 1] = { start: last.start, length: union };
    }
  }
  return found;
}

function cut({ start, length }: Extent, pieceBytes: number): readonly Extent[] {
  const parts: Extent[] = [];
  for (let at = start; at < start + length;) {
    const end = Math.min(start + length, at - (at % pieceBytes) + pieceBytes);
    parts.push({ start: at, length: end - at });
    at = end;
  }
  return parts;
}

/** Runs of blocks of `bytes` that are not all zero. Looked for in `parts` (whole blocks, in order); the rest is zero. */
export function runsOf(bytes: Buffer, parts: readonly Extent[]): readonly Extent[] {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  const runs: Extent[] = [];
  let start = -1;
  let end = -1;
  for (const part of parts) {
    const stop = part.start + part.length;
    for (let at = part.start; at < stop; at += blockBytes) {
      const blockEnd = Math.min(at + blockBytes, stop);
      // Most blocks say with their first word that they are not zero.
      if ((words[at >> 2] ?? 0) === 0 && isZero(bytes, at, blockEnd)) continue;
      if (at !== end) {
        if (start >= 0) runs.push({ start, length: end - start });
        start = at;
      }
      end = blockEnd;
    }
  }
  if (start >= 0) runs.push({ start, length: end - start });
  return runs;
}

const zeroes = Buffer.alloc(blockBytes);

export const isZero = (bytes: Buffer, start: number, end: number): boolean =>
  bytes.compare(zeroes, 0, end - start, start, end) === 0;

/** Of the runs of `bytes`, each with its position in the file; `emptyHash` when there are none. */
export function hashOf(bytes: Buffer, runs: readonly Extent[], offset: number): string {
  const hash = createHash('sha256');
  const head = Buffer.alloc(16);
  for (const { start, length } of runs) {
    head.writeBigUInt64LE(BigInt(offset + start), 0);
    head.writeBigUInt64LE(BigInt(length), 8);
    hash.update(head).update(bytes.subarray(start, start + length));
  }
  return hash.digest('hex');
}

export const emptyHash = createHash('sha256').digest('hex');

/** One hash for a whole file, from those of all its pieces. */
export function rootOf(
  sizeBytes: bigint,
  pieces: Iterable<Pick<Piece, 'offset' | 'hash'>>,
): string {
  const hash = createHash('sha256').update(`${sizeBytes}\n`);
  const sorted = [...pieces].toSorted((a, b) => a.offset - b.offset);
  for (const { offset, hash: of } of sorted) {
    // Whether a piece of zeroes was looked at says nothing of the content.
    if (of !== emptyHash) hash.update(`${offset} ${of}\n`);
  }
  return hash.digest('hex');
}
