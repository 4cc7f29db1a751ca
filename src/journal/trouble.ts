// What can be wrong with the files of the journal, by SQLite's and the system's codes, and what to do about it.

import { accessSync, constants } from 'node:fs';
import { dirname } from 'node:path';
import Database from 'better-sqlite3';

import type { Trouble } from '../std/errors.js';
import { JournalError, messageOf } from '../std/errors.js';

type Verb = 'open' | 'read' | 'write';

/** Runs `body`; what the disk or SQLite refuses comes out as a JournalError, a bug of ours as it is. */
export function translated<T>(path: string, verb: Verb, body: () => T): T {
  try {
    return body();
  } catch (error) {
    const trouble = troubleOf(error, path, verb);
    if (trouble === null) throw error;
    const [code, text] = [codeOf(error), messageOf(error)];
    const why = code === null || text.includes(code) ? text : `${text}, ${code}`;
    throw journalError(trouble, { path, doing: `cannot ${verb} ${path}`, why, cause: error });
  }
}

/** `why`: what was found in the file. */
export const damaged = (path: string, why: string): JournalError =>
  journalError('damaged', { path, doing: `cannot trust ${path}`, why });

interface Found {
  readonly path: string;
  readonly doing: string;
  readonly why: string;
  readonly cause?: unknown;
}

function journalError(trouble: Trouble, { path, doing, why, cause }: Found): JournalError {
  const { wrong, mend, next } = texts[trouble];
  const message = `journal: ${doing}: ${wrong} (${why}); ${mend}; the guests run on meanwhile`;
  return new JournalError(trouble, message, { cause, next: next(dirname(path)) });
}

interface Text {
  readonly wrong: string;
  readonly mend: string;
  readonly next: (stateDir: string) => readonly string[];
}

const texts: Readonly<Record<Trouble, Text>> = {
  full: {
    wrong: 'its file system is full',
    mend: 'make room there',
    next: (stateDir) => [`df -h ${stateDir}`],
  },
  'read-only': {
    wrong: 'it may not be written',
    mend: 'mount its file system for writing, or mend owner and permissions',
    next: (stateDir) => [`findmnt -T ${stateDir}`, `ls -la ${stateDir}`],
  },
  failing: {
    wrong: 'its storage fails',
    mend: "look into 'dmesg' and mend the storage",
    next: (stateDir) => ['dmesg', `findmnt -T ${stateDir}`],
  },
  damaged: {
    wrong: 'it is damaged',
    mend: "'ferry doctor' tells which images are live; definitions lie in xml/ beside it; docs/daemon.md says how to go on",
    next: () => ['ferry doctor'],
  },
};

const damage = /^SQLITE_(CORRUPT|NOTADB)/;
const failure = /^SQLITE_(IOERR|CANTOPEN|PERM|NOLFS)/;
const full: ReadonlySet<string> = new Set(['SQLITE_FULL', 'ENOSPC', 'EDQUOT']);
const refused: ReadonlySet<string> = new Set(['EROFS', 'EACCES', 'EPERM']);

/** Null: neither the disk nor what is on it, so it is for the caller. See sqlite.org/rescode.html. */
function troubleOf(error: unknown, path: string, verb: Verb): Trouble | null {
  // A record that is no JSON: nobody but the disk writes it so.
  if (error instanceof SyntaxError) return 'damaged';
  const code = codeOf(error);
  if (code === null) return null;
  // At open, no such table: a database, but not ours.
  if (damage.test(code) || (verb === 'open' && code === 'SQLITE_ERROR')) return 'damaged';
  if (full.has(code)) return 'full';
  if (code.startsWith('SQLITE_READONLY') || refused.has(code)) return 'read-only';
  if (code.startsWith('SQLITE_') && !failure.test(code)) return null;
  // SQLite calls every failed write an I/O error, also on a file system that the kernel has made read-only.
  return mayWrite(path) ? 'failing' : 'read-only';
}

function codeOf(error: unknown): string | null {
  if (error instanceof Database.SqliteError) return error.code;
  const isSystem = error instanceof Error && 'syscall' in error && 'code' in error;
  return isSystem ? String(error.code) : null;
}

/** access(2) answers EROFS to root too. A file that is not there is no reason against. */
const mayWrite = (path: string): boolean =>
  [path, dirname(path)].every((one) => {
    try {
      accessSync(one, constants.W_OK);
      return true;
    } catch (error) {
      return !refused.has(codeOf(error) ?? '');
    }
  });
