// The journal on disk, torn: the power fails while the last entry is being written. It is the write that nobody was told
// of yet, so the recovery must find the journal as it was before it.

import assert from 'node:assert/strict';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import type { Journal } from '../../src/journal/journal.js';
import { openJournal } from '../../src/journal/sqlite.js';
import type { Striker } from './faults.js';
import { crash, everyFault } from './faults.js';
import { live } from './lives.js';
import { allOrNothing, stageOf } from './stage.js';
import { toyDefinition, uuid } from './toy.js';

/** What can be left of the last frame of the log. */
const tears: Readonly<Record<string, (log: string) => void>> = {
  'without its last byte': (log) => truncateSync(log, readFileSync(log).length - 1),
  'half there': (log) => truncateSync(log, readFileSync(log).length - 2048),
  'there with a hole': (log) => {
    const bytes = readFileSync(log);
    bytes.subarray(-512).fill(0);
    writeFileSync(log, bytes);
  },
  whole: () => undefined,
};

for (const [name, tear] of Object.entries(tears)) {
  test(`a crash in the middle of a journal write that leaves it ${name} is finished forward`, async (t) => {
    const root = mkdtempSync(join(tmpdir(), 'ferry-torn-'));
    let torn = 0;
    const tried = await everyFault(crash, async (striker) => {
      torn += await tornStory(join(root, String(striker.calls)), striker, tear);
    });
    rmSync(root, { recursive: true });
    t.diagnostic(`${tried} faults, ${torn} entries torn`);
    // Each `append` is struck once after it took effect; `begin` is too.
    if (name === 'whole') assert.equal(torn, 0);
    else assert.ok(torn >= 20, `only ${torn} entries torn`);
  });
}

/** Runs the toy plan; returns how many entries the tear took. */
async function tornStory(
  root: string,
  striker: Striker,
  tear: (log: string) => void,
): Promise<number> {
  let life = 0;
  let lost = 0;
  const nextDir = (): string => {
    const stateDir = join(root, String(life++));
    mkdirSync(stateDir, { recursive: true });
    return stateDir;
  };
  let stateDir = nextDir();
  const journal = openJournal({ stateDir });
  await journal.record(uuid, [{ change: 'define', definition: toyDefinition, chains: [] }]);

  const reopen = async (dead: Journal): Promise<Journal> => {
    const before = await countOf(dead);
    const next = nextDir();
    for (const file of ['ferry.db', 'ferry.db-wal'])
      copyFileSync(join(stateDir, file), join(next, file));
    await dead[Symbol.asyncDispose]();
    stateDir = next;
    // What was durable before the last call stays so; only a write that was under way can be torn.
    const writing = ['append', 'begin'].includes(striker.last) && striker.moment === 'after';
    if (writing) tear(join(next, 'ferry.db-wal'));
    const found = openJournal({ stateDir });
    lost += before - (await countOf(found));
    return found;
  };

  const stage = { ...(await stageOf(striker)), journal, reopen };
  const story = await live(stage);
  assert.equal(story.outcome, 'committed');
  await allOrNothing(stage, story);
  await story.journal[Symbol.asyncDispose]();
  rmSync(root, { recursive: true });
  return lost;
}

/** Entries and plans. */
async function countOf(journal: Journal): Promise<number> {
  const open = await journal.openOperations();
  const [ended] = await journal.operations();
  if (ended === undefined) return 0;
  return (
    1 + (open[0] === undefined ? (await journal.entries(ended.id)).length : open[0].entries.length)
  );
}
