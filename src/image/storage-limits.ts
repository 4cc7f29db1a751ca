// What all copies that write to one storage may take of it together, whichever operations they belong to
// (`ferryd --storage-limit`). A storage is a file system, told by the number that the kernel gives it.

import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';

import type { Pacing } from './pace.js';
import { Pace } from './pace.js';

export interface StorageLimit {
  /** Any folder of the storage; it may be mounted later. */
  readonly folder: string;
  readonly bytesPerSecond: bigint;
}

export class StorageLimits {
  private readonly paces: readonly { readonly folder: string; readonly pace: Pace }[];

  constructor(limits: readonly StorageLimit[]) {
    this.paces = limits.map(({ folder, bytesPerSecond }) => ({
      folder,
      pace: new Pace(() => Number(bytesPerSecond)),
    }));
  }

  /** For what is written to `path`: at most `own`, and at most what its storage has left for all. */
  async for(path: string, own: Pacing | undefined): Promise<Pacing | undefined> {
    const device = await deviceOf(dirname(path));
    const all: Pacing[] = own === undefined ? [] : [own];
    for (const { folder, pace } of this.paces)
      if (device !== null && (await deviceOf(folder)) === device) all.push(pace);
    return all.length < 2 ? all[0] : { pass: (bytes, signal) => passAll(all, bytes, signal) };
  }
}

async function passAll(all: readonly Pacing[], bytes: number, signal: AbortSignal): Promise<void> {
  // One after the other: whoever waits for his own limit takes nothing of what others could use.
  for (const pace of all) await pace.pass(bytes, signal);
}

const deviceOf = async (folder: string): Promise<number | null> =>
  await stat(folder).then(
    ({ dev }) => dev,
    () => null,
  );
