// Makes pieces durable, then writes down that they are: in this order, so that what is written down survives whatever
// happens to the host. One checkpoint at a time; the copy goes on meanwhile, but not further than the next one.

import type { CopyNote, Piece } from '../block/copy.js';
import type { Tuning } from './copying.js';

export class Checkpoints {
  private readonly files: { sync(): Promise<void> };
  private readonly save: (note: CopyNote) => Promise<void>;
  private readonly tuning: Tuning;
  /** Copied since the last checkpoint began. */
  private waiting: Piece[] = [];
  private waitingBytes = 0;
  private beganMs = performance.now();
  private underWay: Promise<void> = Promise.resolve();

  constructor(
    files: { sync(): Promise<void> },
    save: (note: CopyNote) => Promise<void>,
    tuning: Tuning,
  ) {
    this.files = files;
    this.save = save;
    this.tuning = tuning;
  }

  /** Takes a piece that was copied. Rejects when the checkpoint before failed. */
  async add(piece: Piece): Promise<void> {
    this.waiting.push(piece);
    this.waitingBytes += piece.dataBytes;
    if (!this.isDue()) return;
    await this.underWay;
    // Another lane may have come first.
    if (!this.isDue()) return;
    this.underWay = this.write();
    // Whoever comes next is told.
    this.underWay.catch(() => undefined);
  }

  /** The last checkpoint. After one that failed there is none: what it meant to sync may be lost, and nobody would tell. */
  async finish(): Promise<void> {
    await this.underWay;
    await this.write();
  }

  private isDue(): boolean {
    const { checkpointBytes, checkpointMs } = this.tuning;
    return this.waitingBytes >= checkpointBytes || performance.now() - this.beganMs >= checkpointMs;
  }

  private async write(): Promise<void> {
    const pieces = this.waiting;
    this.waiting = [];
    this.waitingBytes = 0;
    this.beganMs = performance.now();
    if (pieces.length === 0) return;
    await this.files.sync();
    await this.save({ note: 'pieces', pieces });
  }
}
