// One daemon for a directory: a lock that the kernel drops with its process, however that ends.

import { closeSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';

import { messageOf, StateError, SystemError } from '../std/errors.js';

/**
 * Makes the run directory where it is missing and holds its lock file until it is closed or this process ends.
 *
 * SQLite has the one lock that Node can reach: a transaction over an empty database, which writes nothing.
 *
 * @throws {StateError} another daemon holds it.
 * @throws {SystemError} the directory cannot be made or written.
 */
export function lockRunDir(directory: string): { close(): void } {
  const path = join(directory, 'ferryd.lock');
  try {
    // Only its user may look in; the sockets' own modes say who may talk.
    mkdirSync(directory, { recursive: true, mode: 0o711 });
    // SQLite would make it readable for all, and who can read it can lock it.
    closeSync(openSync(path, 'a', 0o600));
    return locked(path);
  } catch (error) {
    if (isBusy(error)) throw inUse(`run directory ${directory}`, path, 'another --run-dir', error);
    throw new SystemError(
      `start: cannot use run directory ${directory}: ${messageOf(error)}; mend it, or give another --run-dir`,
      { cause: error },
    );
  }
}

function locked(path: string): { close(): void } {
  const db = new Database(path, { timeout: 0 });
  try {
    db.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

export const isBusy = (error: unknown): boolean =>
  error instanceof Database.SqliteError && error.code.startsWith('SQLITE_BUSY');

/** `path`: the file whose lock another process has. */
export function inUse(what: string, path: string, instead: string, cause: unknown): StateError {
  const pid = holderOf(path);
  const who = pid === null ? 'another ferryd' : `the ferryd with pid ${pid}`;
  const message = `start: ${what} is in use by ${who}; end it first, or give ${instead}`;
  return new StateError('OPERATION_INVALID', message, { cause });
}

/** SQLite's PENDING_BYTE: its locks lie there, whatever the size of the file. */
const FIRST_LOCKED_BYTE = 0x40000000;

/** The process that holds SQLite's lock on a file, by the kernel's own list (proc(5), /proc/locks). */
function holderOf(path: string): number | null {
  const inode = String(statSync(path).ino);
  for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
    const [, , , kind, pid, file, start] = line.trim().split(/\s+/);
    // Not by device: some file systems show another one here than to stat(2).
    const isIt = kind === 'WRITE' && file?.split(':')[2] === inode;
    // 0 and -1: in a pid namespace that is not ours.
    if (isIt && Number(start) >= FIRST_LOCKED_BYTE && Number(pid) > 0) return Number(pid);
  }
  return null;
}
