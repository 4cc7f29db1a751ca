// Making files and their names durable (fsync(2): a new name needs its folder synced too).

import * as fs from 'node:fs/promises';
import { dirname } from 'node:path';

/** The file with all its data and times, and its name. */
export async function syncFile(path: string): Promise<void> {
  const file = await fs.open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  await syncFolder(path);
}

/** The folder that holds `path`. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await fs.open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
