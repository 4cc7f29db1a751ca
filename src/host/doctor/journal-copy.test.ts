// A journal that no daemon answers for is read from a copy: nothing in its folder changes, whatever is wrong with it.

import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { test } from 'node:test';

import Database from 'better-sqlite3';

import { openJournal } from '../../journal/sqlite.js';
import { readJournalCopy } from './journal-copy.js';

async function folder(t: TestContext): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'ferry-copy-'));
  t.after(async () => await rm(made, { recursive: true }));
  return made;
}

/** The files of a daemon that was killed: what it wrote last stands in the log only. */
async function killed(t: TestContext): Promise<string> {
  const [alive, dead] = [await folder(t), await folder(t)];
  const journal = openJournal({ stateDir: alive });
  await journal.putSetting('last', 'words');
  for (const name of ['ferry.db', 'ferry.db-wal'])
    await copyFile(join(alive, name), join(dead, name));
  await journal[Symbol.asyncDispose]();
  return dead;
}

async function contents(dir: string): Promise<Readonly<Record<string, string>>> {
  const names = (await readdir(dir)).toSorted();
  const texts = names.map(async (name) => [name, await readFile(join(dir, name), 'latin1')]);
  return Object.fromEntries(await Promise.all(texts)) as Record<string, string>;
}

test('what a killed daemon wrote last is read, and its files stay as they are', async (t) => {
  const dir = await killed(t);
  const before = await contents(dir);
  {
    await using copy = await readJournalCopy(dir);
    assert.deepEqual(copy.facts, { state: 'read', path: join(dir, 'ferry.db') });
    assert.equal(await copy.journal?.setting('last'), 'words');
  }
  assert.deepEqual(await contents(dir), before);
});

test('nothing of the copy stays', async (t) => {
  const dir = await killed(t);
  const copies = async (): Promise<number> =>
    (await readdir(tmpdir())).filter((name) => name.startsWith('ferry-doctor-')).length;
  const before = await copies();
  const copy = await readJournalCopy(dir);
  assert.equal(await copies(), before + 1);
  await copy[Symbol.asyncDispose]();
  assert.equal(await copies(), before);
});

for (const [what, make, state, problem] of [
  ['no folder', async (dir) => await rm(join(dir, 'ferry.db')), 'missing', /no such file/],
  [
    'something else in its place',
    async (dir) => {
      await rm(join(dir, 'ferry.db-wal'));
      await writeFile(join(dir, 'ferry.db'), 'not a database at all'.repeat(100));
    },
    'unreadable',
    /the copy is damaged \(file is not a database\)/,
  ],
  [
    'a newer version',
    async (dir) => {
      const db = new Database(join(dir, 'ferry.db'));
      db.pragma('user_version = 99');
      db.close();
    },
    'unreadable',
    /the copy has version 99, this ferryd knows versions up to/,
  ],
] as readonly (readonly [string, (dir: string) => Promise<void>, string, RegExp])[]) {
  test(`${what}: the journal is ${state}, with the reason`, async (t) => {
    const dir = await killed(t);
    await make(dir);
    await using copy = await readJournalCopy(dir);
    assert.equal(copy.journal, null);
    assert.equal(copy.facts.state, state);
    assert.match('problem' in copy.facts ? copy.facts.problem : '', problem);
  });
}
