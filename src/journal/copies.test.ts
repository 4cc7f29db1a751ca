// What both journals keep of copies: one suite over both, also after the process died.

import assert from 'node:assert/strict';

import type { CopyNote, FileIdentity, Piece } from '../block/copy.js';
import { AssertionError } from '../std/assert.js';
import { fact, plan } from './testing/both.js';

const source: FileIdentity = { inode: 2n ** 63n, sizeBytes: 3n << 20n, mtimeNs: 1n << 61n };
const begun: CopyNote = {
  note: 'begun',
  source,
  pieceBytes: 1 << 20,
  key: 'k',
  totalBytes: 2 << 20,
};
const pieceAt = (offset: number, hash: string): Piece => ({
  offset,
  length: 1 << 20,
  dataBytes: 5,
  hash,
});
const whole = { how: 'data', root: 'r', file: source } as const;

fact(
  'a copy is there again with its pieces, each of them once, and each life that went on with it',
  async (bench) => {
    const id = await bench.journal.begin(plan);
    assert.equal(await bench.journal.copy(id, 0), null);
    await bench.journal.saveCopy(id, 0, begun);
    const pieces = [pieceAt(2 ** 40, 'c'), pieceAt(0, 'a')];
    await bench.journal.saveCopy(id, 0, { note: 'pieces', pieces });
    let journal = await bench.reopen();
    await journal.saveCopy(id, 0, { note: 'resumed', keptBytes: 5, brokenBytes: 5 });
    await journal.saveCopy(id, 0, { note: 'pieces', pieces: [pieceAt(2 ** 40, 'd')] });
    journal = await bench.reopen();
    const state = {
      source,
      pieceBytes: 1 << 20,
      key: 'k',
      totalBytes: 2 << 20,
      resumes: [{ atMs: 7, keptBytes: 5, brokenBytes: 5 }],
      whole: null,
    };
    assert.deepEqual(await journal.copy(id, 0), {
      ...state,
      pieces: [pieceAt(0, 'a'), pieceAt(2 ** 40, 'd')],
    });
    assert.deepEqual((await journal.operation(id))?.copies, [
      { step: 0, ...state, savedBytes: 10 },
    ]);
    assert.equal(await journal.copy(id, 1), null);
  },
  { nowMs: () => 7 },
);

fact('a copy that begins again has nothing of what was saved before', async (bench) => {
  const id = await bench.journal.begin(plan);
  await bench.journal.saveCopy(id, 0, begun);
  await bench.journal.saveCopy(id, 0, { note: 'pieces', pieces: [pieceAt(0, 'a')] });
  await bench.journal.saveCopy(id, 0, { note: 'resumed', keptBytes: 5, brokenBytes: 0 });
  await bench.journal.saveCopy(id, 0, { note: 'whole', whole });
  await bench.journal.saveCopy(id, 0, { ...begun, totalBytes: 1 });
  const journal = await bench.reopen();
  const saved = await journal.copy(id, 0);
  assert.deepEqual(
    [saved?.pieces, saved?.resumes, saved?.whole, saved?.totalBytes],
    [[], [], null, 1],
  );
});

fact(
  'with the end of its operation the pieces of a copy are forgotten, not its root',
  async (bench) => {
    const id = await bench.journal.begin(plan);
    const next = await bench.journal.begin(plan);
    for (const one of [id, next]) {
      await bench.journal.saveCopy(one, 0, begun);
      await bench.journal.saveCopy(one, 0, { note: 'pieces', pieces: [pieceAt(0, 'a')] });
    }
    await bench.journal.saveCopy(id, 0, { note: 'whole', whole });
    await bench.journal.append(id, { type: 'end', outcome: 'committed' });
    const journal = await bench.reopen();
    const [copy] = (await journal.operation(id))?.copies ?? [];
    assert.deepEqual(copy?.whole, whole);
    assert.equal(copy?.savedBytes, 2 << 20);
    assert.deepEqual((await journal.copy(id, 0))?.pieces, []);
    assert.equal((await journal.copy(next, 0))?.pieces.length, 1);
    await assert.rejects(journal.saveCopy(id, 0, begun), AssertionError);
  },
);

fact(
  'nothing of a copy is saved that was not begun, or of an operation that is not',
  async ({ journal }) => {
    const id = await journal.begin(plan);
    const pieces: CopyNote = { note: 'pieces', pieces: [pieceAt(0, 'a')] };
    await assert.rejects(journal.saveCopy(id, 0, pieces), AssertionError);
    await assert.rejects(journal.saveCopy(id + 1, 0, begun), AssertionError);
    assert.equal(await journal.copy(id, 0), null);
  },
);

fact(
  'with an operation that is dropped its copies are',
  async ({ journal }) => {
    for (const id of [1, 2]) {
      await journal.begin(plan);
      await journal.saveCopy(id, 0, begun);
      await journal.append(id, { type: 'end', outcome: 'committed' });
    }
    assert.equal(await journal.copy(1, 0), null);
    assert.notEqual(await journal.copy(2, 0), null);
  },
  { keep: { operations: 1 } },
);
