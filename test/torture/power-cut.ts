// What a power cut takes: the run directory, which lies in memory, and what of the files was not durable. It does the worst
// that POSIX lets a file system do: whatever was not made durable did not happen.

import { copyFile, readdir, rename, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';

import type { NameChange, Unsynced } from './blow.js';

export async function afterPowerCut(runDir: string, { data, names }: Unsynced): Promise<void> {
  for (const name of await readdir(runDir))
    await rm(join(runDir, name), { recursive: true, force: true });
  for (const { path, kept } of data) {
    if (!(await isThere(path))) continue;
    if (kept === null) await truncate(path, 0);
    else await copyFile(kept, path);
  }
  for (const change of names.toReversed()) await takeBack(change);
}

async function takeBack(change: NameChange): Promise<void> {
  switch (change.change) {
    case 'made':
      return await rm(change.path, { force: true });
    case 'renamed':
      return (await isThere(change.path)) ? await rename(change.path, change.from) : undefined;
    case 'removed':
      return await rename(change.kept, change.path);
  }
}

const isThere = async (path: string): Promise<boolean> =>
  await stat(path).then(
    () => true,
    () => false,
  );
