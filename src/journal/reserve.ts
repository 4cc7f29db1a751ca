// Room on the file system of the journal that is kept for the end of what has begun: when the disk is full, an operation
// under way (its guest may stand still just then) is written with it, and nothing new is begun before it is there again.

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

/** A step and its record take a few pages of 4 KiB; a move has some thirty steps. */
const RESERVE_BYTES = 1024 * 1024;

export class Reserve {
  private readonly path: string;
  private kept: boolean;

  constructor(stateDir: string) {
    this.path = join(stateDir, 'reserve');
    this.kept = existsSync(this.path);
  }

  /** Sets it aside unless it is there. @throws ENOSPC and the like; nothing is left then. */
  keep(): void {
    if (this.kept) return;
    const draft = `${this.path}.new`;
    try {
      const file = openSync(draft, 'w', 0o600);
      try {
        // Bytes that cannot be compressed, or left out as a hole.
        writeFileSync(file, randomBytes(RESERVE_BYTES));
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(draft, this.path);
    } catch (error) {
      rmSync(draft, { force: true });
      throw error;
    }
    this.kept = true;
  }

  /** Gives the room back to the file system. Answers whether there was some. */
  spend(): boolean {
    if (!this.kept) return false;
    rmSync(this.path, { force: true });
    this.kept = false;
    return true;
  }
}
