// What only the journal on disk can meet: a second daemon, a file of another version, a damaged one.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import Database from 'better-sqlite3';

import { StateError, SystemError } from '../std/errors.js';
import { openJournal } from './sqlite.js';

async function inStateDir(body: (stateDir: string) => Promise<void>): Promise<void> {
  const stateDir = mkdtempSync(join(tmpdir(), 'ferry-sqlite-'));
  try {
    await body(stateDir);
  } finally {
    rmSync(stateDir, { recursive: true });
  }
}

async function filled(stateDir: string): Promise<string> {
  const journal = openJournal({ stateDir });
  for (let i = 0; i < 200; i++) await journal.putSetting(`key ${i}`, 'x'.repeat(200));
  await journal[Symbol.asyncDispose]();
  return join(stateDir, 'ferry.db');
}

const holder = `
  const { openJournal } = await import(process.argv[1]);
  const journal = openJournal({ stateDir: process.argv[2] });
  await journal.putSetting('holder', String(process.pid));
  process.stdout.write('held');
  setInterval(() => journal, 1000);
`;

test('a second daemon on one state directory is refused and told who has it, until that one dies', async () => {
  await inStateDir(async (stateDir) => {
    const journalUrl = new URL('sqlite.js', import.meta.url).href;
    const child = spawn(
      process.execPath,
      ['--input-type=module', '-e', holder, journalUrl, stateDir],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    await once(child.stdout, 'data');
    assert.throws(
      () => openJournal({ stateDir }),
      (error) =>
        error instanceof StateError && error.message.includes(`ferryd with pid ${child.pid};`),
    );
    child.kill('SIGKILL');
    await once(child, 'exit');
    await using journal = openJournal({ stateDir });
    assert.equal(await journal.setting('holder'), String(child.pid));
  });
});

test('a second journal in the same process is refused too', async () => {
  await inStateDir(async (stateDir) => {
    await using _first = openJournal({ stateDir });
    assert.throws(() => openJournal({ stateDir }), StateError);
  });
});

test('a database of a newer version is refused', async () => {
  await inStateDir(async (stateDir) => {
    const path = await filled(stateDir);
    const db = new Database(path);
    db.pragma('user_version = 99');
    db.close();
    assert.throws(
      () => openJournal({ stateDir }),
      /has version 99, this ferryd knows versions up to \d+; start the newer/,
    );
  });
});

test('a database of the first version gets the tables of this one and keeps what it held', async () => {
  await inStateDir(async (stateDir) => {
    const db = new Database(await filled(stateDir));
    db.exec('DROP TABLE piece; DROP TABLE copy; PRAGMA user_version = 1');
    db.close();
    await using journal = openJournal({ stateDir });
    assert.equal(await journal.setting('key 1'), 'x'.repeat(200));
    assert.equal(await journal.copy(1, 0), null);
  });
});

test('a file that is no database is refused by name', async () => {
  await inStateDir(async (stateDir) => {
    writeFileSync(
      join(stateDir, 'ferry.db'),
      'not a database, and longer than a header. '.repeat(100),
    );
    assert.throws(
      () => openJournal({ stateDir }),
      (error) =>
        error instanceof SystemError &&
        /ferry\.db is damaged .*put a backup in its place/.test(error.message),
    );
  });
});

for (const [name, damage] of [
  [
    'overwritten pages',
    (path: string) => {
      const file = openSync(path, 'r+');
      for (let page = 2; page < 8; page++)
        writeSync(file, Buffer.alloc(2048, 0xa5), 0, 2048, page * 4096);
      closeSync(file);
    },
  ],
  ['a lost end', (path: string) => truncateSync(path, 3 * 4096)],
] as const) {
  test(`a database with ${name} is refused as damaged`, async () => {
    await inStateDir(async (stateDir) => {
      damage(await filled(stateDir));
      assert.throws(
        () => openJournal({ stateDir }),
        (error) => error instanceof SystemError && /is damaged/.test(error.message),
      );
    });
  });
}

test('a state directory that cannot be made is an error of the system', async () => {
  await inStateDir(async (stateDir) => {
    writeFileSync(join(stateDir, 'file'), '');
    const below = join(stateDir, 'file', 'state');
    assert.throws(
      () => openJournal({ stateDir: below }),
      (error) => error instanceof SystemError && /cannot open .*ENOTDIR/.test(error.message),
    );
  });
});
