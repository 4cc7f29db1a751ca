// How a file is cut into pieces, and the hash of a piece. Both follow from the bytes and a key alone: the same content gives
// the same pieces and the same root, on whatever storage and with whatever holes it lies.

import type { CipherGCM } from 'node:crypto';
import { createCipheriv, createHash, randomBytes } from 'node:crypto';
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

/** In hex. A copy gets one of its own and keeps it with its hashes. */
export const newKey = (): string => randomBytes(keyBytes).toString('hex');

const keyBytes = 16;

/** A piece without data. */
export const emptyHash = '0'.repeat(2 * keyBytes);

/**
 * The hash of one piece, from its runs in order, each with its position in the file; `emptyHash` when there are none.
 *
 * GMAC (NIST SP 800-38D): two pieces that differ are taken for one with a chance of at most 2^-108, whatever a guest has
 * written, for it does not know the key; and it costs a seventh of SHA-256 (decision 15). Who has the key can make two
 * pieces of one hash, so this is no proof against whoever can read the journal.
 */
export class PieceHash {
  private readonly mac: CipherGCM;
  private readonly head = Buffer.alloc(16);
  private isEmpty = true;

  constructor(key: Buffer, offset: number) {
    const nonce = Buffer.alloc(12);
    nonce.writeBigUInt64LE(BigInt(offset));
    this.mac = createCipheriv('aes-128-gcm', key, nonce);
  }

  /** Runs of `bytes`, which begin at `offset` of the file. */
  add(bytes: Buffer, runs: readonly Extent[], offset: number): void {
    for (const { start, length } of runs) {
      this.isEmpty = false;
      this.head.writeBigUInt64LE(BigInt(offset + start), 0);
      this.head.writeBigUInt64LE(BigInt(length), 8);
      this.mac.setAAD(this.head).setAAD(bytes.subarray(start, start + length));
    }
  }

  /** In hex. */
  digest(): string {
    if (this.isEmpty) return emptyHash;
    this.mac.final();
    return this.mac.getAuthTag().toString('hex');
  }
}

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
