// Who has a file open on this host: by the file descriptors of processes we may look into, and by the kernel's list of
// locks, which shows those of others too (QEMU locks every image that it opens: block/file-posix.c).

import { readFile, readdir, readlink, stat } from 'node:fs/promises';
import { basename } from 'node:path';

export interface Holder {
  /** Null: a lock is held, and its process is not ours to look into. */
  readonly pid: number | null;
  readonly command: string;
  /** Opened for writing. Of a process that we may not look into it is not known, so it counts as one that writes. */
  readonly writes: boolean;
}

/** By path; those that nobody holds, or that are not there, are missing. */
export async function holdersOf(
  paths: readonly string[],
): Promise<ReadonlyMap<string, readonly Holder[]>> {
  const wanted = new Map<string, string>();
  for (const path of new Set(paths)) {
    const key = await keyOf(path);
    if (key !== null) wanted.set(key, path);
  }
  if (wanted.size === 0) return new Map();
  const found = new Map<string, Holder[]>();
  const names = new Set([...wanted.values()].map((path) => basename(path)));
  for (const pid of await processes())
    for (const [key, writes] of await filesOf(pid, names)) {
      const path = wanted.get(key);
      const holder = { pid, command: await commandOf(pid), writes };
      if (path !== undefined) found.set(path, [...(found.get(path) ?? []), holder]);
    }
  for (const key of await locked()) {
    const path = wanted.get(key);
    if (path !== undefined && !found.has(path))
      found.set(path, [{ pid: null, command: 'a process of another user', writes: true }]);
  }
  return found;
}

/** Device and inode as /proc/locks writes them: `08:01:1234`. */
async function keyOf(path: string): Promise<string | null> {
  try {
    const { dev, ino } = await stat(path, { bigint: true });
    // gnu_dev_major and gnu_dev_minor of glibc.
    const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
    const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
    const hex = (number: bigint): string => number.toString(16).padStart(2, '0');
    return `${hex(major)}:${hex(minor)}:${ino}`;
  } catch {
    return null;
  }
}

async function processes(): Promise<readonly number[]> {
  const names = await readdir('/proc').catch(() => []);
  return names.filter((name) => /^\d+$/.test(name)).map(Number);
}

/** What `pid` has open under one of these names, and whether to write. A name is asked first: a stat of everything could hang on dead storage. */
async function filesOf(
  pid: number,
  names: ReadonlySet<string>,
): Promise<ReadonlyMap<string, boolean>> {
  const folder = `/proc/${pid}/fd`;
  const keys = new Map<string, boolean>();
  for (const fd of await readdir(folder).catch(() => [])) {
    const link = await readlink(`${folder}/${fd}`).catch(() => '');
    if (!names.has(basename(link))) continue;
    const key = await keyOf(`${folder}/${fd}`);
    if (key !== null) keys.set(key, keys.get(key) === true || (await isWriter(pid, fd)));
  }
  return keys;
}

/** proc(5): the flags of open(2), in octal; the lowest two bits are the access mode, 0 for reading only. */
async function isWriter(pid: number, fd: string): Promise<boolean> {
  const info = await readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8').catch(() => '');
  const flags = /^flags:\s*([0-7]+)/m.exec(info)?.[1];
  return flags === undefined || (Number.parseInt(flags, 8) & 3) !== 0;
}

const commandOf = async (pid: number): Promise<string> =>
  (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '?')).trim();

async function locked(): Promise<ReadonlySet<string>> {
  const text = await readFile('/proc/locks', 'utf8').catch(() => '');
  const keys = text.matchAll(/ ([0-9a-f]+:[0-9a-f]+:\d+) /g);
  return new Set([...keys].map((match) => match[1] ?? ''));
}
