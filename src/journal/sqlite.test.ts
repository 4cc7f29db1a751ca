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

import { inMounts } from '../../test/lib/mounts.js';
import { must } from '../../test/lib/process.js';
import { JournalError, StateError, SystemError } from '../std/errors.js';
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
        error instanceof JournalError &&
        error.trouble === 'damaged' &&
        /ferry\.db: it is damaged .*'ferry doctor' tells/.test(error.message),
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
  [
    'a record that is no JSON',
    (path: string) => {
      const db = new Database(path);
      db.exec("INSERT INTO domain VALUES ('u', '{')");
      db.close();
    },
  ],
  [
    'the tables of another program',
    (path: string) => {
      const db = new Database(path);
      db.exec('PRAGMA foreign_keys = OFF; DROP TABLE operation');
      db.close();
    },
  ],
  ['a lost end', (path: string) => truncateSync(path, 3 * 4096)],
] as const) {
  test(`a database with ${name} is refused as damaged`, async () => {
    await inStateDir(async (stateDir) => {
      damage(await filled(stateDir));
      assert.throws(
        () => openJournal({ stateDir }),
        (error) => error instanceof JournalError && error.trouble === 'damaged',
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

/** What a full disk does to a journal that is open: on 4 MiB of its own, filled and freed again. */
const onFullDisk = `
  const [journalUrl, stateDir] = process.argv.slice(1);
  const { openJournal } = await import(journalUrl);
  const { existsSync, rmSync, writeFileSync } = await import('node:fs');
  const plan = { operation: 'toy', domain: 'u', domainName: 'vm', steps: [{ kind: 'remove-file', path: '/a' }], commitAt: 0 };
  const journal = openJournal({ stateDir });
  const said = [];
  const note = async (what, body) => said.push([what, await body().then(() => 'done', (error) => error.trouble)]);
  const begun = await journal.begin(plan);
  const fill = (name) => { try { writeFileSync(stateDir + '/' + name, Buffer.alloc(8 << 20)); } catch {} };
  fill('fill');
  await note('step', () => journal.append(begun, { type: 'doing', step: 0 }));
  await note('reserve', async () => { if (existsSync(stateDir + '/reserve')) throw { trouble: 'kept' }; });
  await note('begin', () => journal.begin(plan));
  await note('writable', () => journal.writable());
  await note('next step', () => journal.append(begun, { type: 'done', step: 0 }));
  fill('more');
  await note('without reserve', () => journal.append(begun, { type: 'end', outcome: 'committed' }));
  rmSync(stateDir + '/fill');
  await note('with room', () => journal.append(begun, { type: 'end', outcome: 'committed' }));
  await note('begin again', () => journal.begin(plan));
  await note('reserve again', async () => { if (!existsSync(stateDir + '/reserve')) throw { trouble: 'missing' }; });
  await note('entries', async () => { throw { trouble: (await journal.entries(begun)).map(({ entry }) => entry.type).join() }; });
  process.stdout.write(JSON.stringify(Object.fromEntries(said)));
`;

test('on a full disk what has begun goes on from a reserve, and nothing new begins', async () => {
  await inStateDir(async (stateDir) => {
    const [program = '', ...args] = inMounts(`mount -t tmpfs -o size=4m none '${stateDir}'`);
    const journalUrl = new URL('sqlite.js', import.meta.url).href;
    const node = [process.execPath, '--input-type=module', '-e', onFullDisk, journalUrl, stateDir];
    assert.deepEqual(JSON.parse(await must(program, [...args, ...node])), {
      step: 'done',
      reserve: 'done',
      begin: 'full',
      writable: 'full',
      'next step': 'done',
      'without reserve': 'full',
      'with room': 'done',
      'begin again': 'done',
      'reserve again': 'done',
      entries: 'doing,done,end',
    });
  });
});

test('a database larger than a check may take is checked where it tells what is true now', async () => {
  await inStateDir(async (stateDir) => {
    const path = await filled(stateDir);
    const db = new Database(path);
    db.exec("INSERT INTO operation VALUES (1, 'u', '{}', 1, 1)");
    const insert = db.prepare('INSERT INTO entry (operation, at_ms, entry) VALUES (1, 1, ?)');
    db.transaction(() => {
      for (let i = 0; i < 70; i++) insert.run('x'.repeat(1024 * 1024));
    })();
    db.close();
    await openJournal({ stateDir })[Symbol.asyncDispose]();
    // Its setting lies on one of the first pages.
    const file = openSync(path, 'r+');
    for (let page = 2; page < 30; page++)
      writeSync(file, Buffer.alloc(2048, 0xa5), 0, 2048, page * 4096);
    closeSync(file);
    assert.throws(() => openJournal({ stateDir }), JournalError);
  });
});
