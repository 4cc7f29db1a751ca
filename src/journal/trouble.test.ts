// Which errors are the disk's, and which are ours.

import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import Database from 'better-sqlite3';

import { JournalError } from '../std/errors.js';
import { translated } from './trouble.js';

const path = join(tmpdir(), 'ferry.db');
const sqlite = (code: string): Error => new Database.SqliteError('said by SQLite', code);
const system = (code: string): Error =>
  Object.assign(new Error('said by the system'), { code, syscall: 'write' });

for (const [error, verb, trouble] of [
  [sqlite('SQLITE_FULL'), 'write', 'full'],
  [system('ENOSPC'), 'open', 'full'],
  [system('EDQUOT'), 'write', 'full'],
  [sqlite('SQLITE_READONLY'), 'write', 'read-only'],
  [sqlite('SQLITE_READONLY_DIRECTORY'), 'open', 'read-only'],
  [system('EROFS'), 'open', 'read-only'],
  [system('EACCES'), 'open', 'read-only'],
  [sqlite('SQLITE_IOERR_WRITE'), 'write', 'failing'],
  [sqlite('SQLITE_IOERR_FSYNC'), 'write', 'failing'],
  [sqlite('SQLITE_CANTOPEN'), 'open', 'failing'],
  [system('EIO'), 'write', 'failing'],
  [sqlite('SQLITE_CORRUPT'), 'read', 'damaged'],
  [sqlite('SQLITE_CORRUPT_INDEX'), 'write', 'damaged'],
  [sqlite('SQLITE_NOTADB'), 'open', 'damaged'],
  [sqlite('SQLITE_ERROR'), 'open', 'damaged'],
  [new SyntaxError('no JSON'), 'read', 'damaged'],
] as const) {
  const name = 'code' in error ? String(error.code) : error.name;
  test(`${name} at ${verb} is ${trouble}, with the path, what was said and what to do`, () => {
    const thrown = (): never => {
      throw error;
    };
    assert.throws(
      () => translated(path, verb, thrown),
      (told) =>
        told instanceof JournalError &&
        told.trouble === trouble &&
        told.cause === error &&
        told.next.length > 0 &&
        told.message.startsWith(`journal: cannot ${verb} ${path}: `) &&
        told.message.includes(error.message) &&
        told.message.endsWith('; the guests run on meanwhile'),
    );
  });
}

for (const error of [
  sqlite('SQLITE_ERROR'),
  sqlite('SQLITE_CONSTRAINT'),
  new TypeError('a bug'),
  new JournalError('full', 'told already'),
]) {
  test(`${error.name} that is nobody's but ours stays as it is: ${error.message}`, () => {
    const thrown = (): never => {
      throw error;
    };
    assert.throws(
      () => translated(path, 'write', thrown),
      (told) => told === error,
    );
  });
}
