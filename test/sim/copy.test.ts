// The copier itself, over the fake's storage and a journal: struck at every call, alone and in pairs, by what ends a
// process, a host, or a storage's honesty; and over a storage that does not keep what the page cache shows. However it
// went, the copy is whole in the end and nothing was copied in vain.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { CopyWhole, VerifyMode } from '../../src/block/copy.js';
import type { CopyFiles } from '../../src/image/copying.js';
import { copyFrozen } from '../../src/image/copy.js';
import { sampleOf } from '../../src/image/verify.js';
import { MemoryJournal } from '../../src/journal/memory.js';
import { present } from '../../src/std/assert.js';
import { FakeCopyFiles } from '../fake/copy-files.js';
import { blockBytes, FakeStorage } from '../fake/storage.js';
import type { Cut } from './ferry-stories.js';
import { crash, everyFault, everyPair, Striker, struck, trouble } from './faults.js';
import { copyTuning, isCopy } from './product-store.js';
import { toyPlan } from './toy.js';

const from = '/src/base.qcow2';
const to = '/dst/base.qcow2.part';
const pieceBlocks = copyTuning.pieceBytes / blockBytes;
const pieceCount = 6;

/** What a life of the copy may have copied and not written down: the checkpoint under way, the next one, and the lanes. */
const mostInFlight = 2 * Math.ceil(copyTuning.checkpointBytes / copyTuning.pieceBytes) + 2;

class CopyBench {
  readonly storage = new FakeStorage();
  journal = new MemoryJournal({ nowMs: () => 0 });
  operation = 0;
  /** Pieces written, by life. */
  readonly copied: number[] = [];
  resumes = 0;
  /** The most that a life found broken of what was saved. */
  brokenBytes = 0;
  /** How often the storage will lose a block of this piece once it was copied. */
  rots = 0;
  readonly rotten = 2 * copyTuning.pieceBytes;
  /** Loses one of the first piece whenever the header is rewritten. */
  rotsHeaders = false;
  verify: VerifyMode = 'full';

  static async open(rots = 0): Promise<CopyBench> {
    const bench = new CopyBench();
    bench.rots = rots;
    const { storage } = bench;
    const sizeBytes = BigInt(pieceCount * copyTuning.pieceBytes);
    await storage.create({ path: from, format: 'qcow2', sizeBytes, backing: null });
    // Every piece has data and holes; where they are differs.
    const image = present(storage.files.get(from), 'it was created');
    for (let block = 0; block < pieceCount * pieceBlocks; block++)
      if ((block * 7) % 5 < 3) image.blocks.set(block, block + 1);
    bench.operation = await bench.journal.begin(toyPlan);
    return bench;
  }

  async copy(striker: Striker): Promise<CopyWhole> {
    const { operation } = this;
    const journal = struck(this.journal, striker);
    this.copied.push(0);
    return await copyFrozen(
      this.counted(striker),
      {
        doing: 'copy',
        backing: { path: '/dst/below', format: 'raw' },
        saved: await journal.copy(operation, 0),
        save: async (note) => await journal.saveCopy(operation, 0, note),
        onProgress: () => undefined,
        signal: new AbortController().signal,
        verify: this.verify,
      },
      copyTuning,
    );
  }

  /** On the storage a block is not what it was written as; the page cache has it right. */
  rot(offset: number): void {
    const image = present(this.storage.files.get(to), 'it is there');
    const end = (offset + copyTuning.pieceBytes) / blockBytes;
    const block = [...image.blocks.keys()].find((one) => one >= offset / blockBytes && one < end);
    image.rotten.set(present(block, 'every piece has data'), 777);
  }

  private counted(striker: Striker): CopyFiles {
    const files = struck<CopyFiles>(new FakeCopyFiles(this.storage, from, to), striker);
    const copy: CopyFiles['copy'] = async (piece, used) => {
      const hash = await files.copy(piece, used);
      this.copied[this.copied.length - 1] = (this.copied.at(-1) ?? 0) + 1;
      if (piece.offset === this.rotten && this.rots-- > 0) this.rot(piece.offset);
      return hash;
    };
    const setBacking: CopyFiles['setBacking'] = async (backing) => {
      const written = await files.setBacking(backing);
      if (this.rotsHeaders) this.rot(0);
      return written;
    };
    return new Proxy(files, {
      get: (target, key) =>
        key === 'copy'
          ? copy
          : key === 'setBacking'
            ? setBacking
            : (Reflect.get(target, key, target) as unknown),
    });
  }

  /** What is left of it all by what ended the life before. */
  die(cut: Cut, calls: number): void {
    const part = this.storage.files.get(to);
    if (cut !== 'daemon') this.storage.powerFailed(calls % 2 === 0 ? 'none' : 'half');
    if (cut === 'lie' && part !== undefined) this.storage.loseHalf(part);
    this.journal = this.journal.crash();
  }
}

/** Copies in as many lives as it takes. */
async function story(striker: Striker, cut: Cut, rots = 0): Promise<CopyBench> {
  const bench = await CopyBench.open(rots);
  for (let life = 0; life < 5; life++) {
    const ended = await bench.copy(striker).then(() => true, isExplained(striker));
    // What the dead one still had in hand comes to nothing.
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (striker.dead) bench.die(cut, striker.calls);
    striker.restart();
    if (!ended) continue;
    assert.ok(isCopy(bench.storage, from, to), 'the copy is not what was copied');
    const saved = await bench.journal.copy(bench.operation, 0);
    assert.equal(saved?.pieces.length, pieceCount, 'pieces are missing in the journal');
    bench.resumes = saved.resumes.length;
    bench.brokenBytes = Math.max(0, ...saved.resumes.map(({ brokenBytes }) => brokenBytes));
    return bench;
  }
  throw new Error('it never came to its end');
}

const isExplained =
  (striker: Striker) =>
  (error: unknown): false => {
    if (striker.dead || (error instanceof Error && striker.thrown.includes(error))) return false;
    throw error;
  };

/** What was saved is there, and one fault costs no more than what was in flight; only a storage that lies costs more. */
function spares({ copied, brokenBytes }: CopyBench, faults: number, rots = 0): void {
  // The header is rewritten at the end: a life that begins behind that finds one piece that it does not know.
  assert.ok(brokenBytes <= (1 + rots) * copyTuning.pieceBytes, 'what was saved was not on disk');
  const pieces = copied.reduce((sum, one) => sum + one, 0);
  const most = pieceCount + faults * (mostInFlight + 1) + rots;
  assert.ok(pieces <= most, `${pieces} pieces were copied, ${most} at most are right`);
}

const rows = [
  ['an error', trouble, 'daemon', 0],
  ['a crash of the daemon', crash, 'daemon', 0],
  ['a power cut', crash, 'power', 0],
  ['a power cut, and a storage that lied', crash, 'lie', 0],
  [
    'a crash of the daemon, over a storage that lost a block below the page cache',
    crash,
    'daemon',
    1,
  ],
  ['a power cut, over a storage that lost a block below the page cache', crash, 'power', 1],
] as const;

const cuts = ['daemon', 'power', 'lie'] as const;

// Before the first `test`: inside one, node:test follows every promise, and this takes four times as long.
const singles: PromiseSettledResult<{ readonly tried: number; readonly resumed: number }>[] = [];
for (const [, error, cut, rots] of rows) {
  let resumed = 0;
  const struckOnce = everyFault(error, async (striker) => {
    const bench = await story(striker, cut, rots);
    resumed += bench.resumes;
    if (cut !== 'lie') spares(bench, 1, rots);
  });
  singles.push(...(await Promise.allSettled([struckOnce.then((tried) => ({ tried, resumed }))])));
}
const pairs: PromiseSettledResult<number>[] = [];
for (const cut of cuts) {
  const struckTwice = everyPair(crash, crash, async (striker) => {
    const bench = await story(striker, cut);
    if (cut !== 'lie') spares(bench, 2);
  });
  pairs.push(...(await Promise.allSettled([struckTwice])));
}

for (const [i, [name]] of rows.entries()) {
  test(`${name} at any call: the copy goes on and is whole`, (t) => {
    const result = singles[i];
    if (result?.status !== 'fulfilled') throw result?.reason;
    const { tried, resumed } = result.value;
    t.diagnostic(`${tried} faults, ${resumed} times it went on`);
    assert.ok(tried >= 40, `only ${tried} faults`);
    assert.ok(resumed >= 20, `it went on only ${resumed} times`);
  });
}

for (const [i, cut] of cuts.entries()) {
  test(`two crashes (${cut}) at any two calls: the copy goes on twice and is whole`, (t) => {
    const result = pairs[i];
    if (result?.status !== 'fulfilled') throw result?.reason;
    t.diagnostic(`${result.value} pairs`);
    assert.ok(result.value >= 1500, `only ${result.value} pairs`);
  });
}

/** Copies until the first checkpoint is written down, and dies. */
async function half(): Promise<CopyBench> {
  const bench = await CopyBench.open();
  const saves = { left: 2 };
  const striker = new Striker();
  const { saveCopy } = bench.journal;
  bench.journal.saveCopy = async (...note) => {
    await saveCopy.apply(bench.journal, note);
    if (--saves.left === 0) striker.dead = true;
  };
  await assert.rejects(bench.copy(striker));
  await new Promise<void>((resolve) => setImmediate(resolve));
  bench.die('daemon', 0);
  const saved = await bench.journal.copy(bench.operation, 0);
  assert.ok(saved !== null && saved.pieces.length > 1 && saved.pieces.length < pieceCount);
  return bench;
}

test('what was saved is read back, not copied again', async () => {
  const bench = await half();
  const saved = await bench.journal.copy(bench.operation, 0);
  await bench.copy(new Striker());
  assert.equal(bench.copied.at(-1), pieceCount - (saved?.pieces.length ?? 0));
  assert.ok(isCopy(bench.storage, from, to));
});

test('a saved piece that is not as it was saved is copied again, it alone', async () => {
  const bench = await half();
  const saved = await bench.journal.copy(bench.operation, 0);
  const broken = present(saved?.pieces.at(-1), 'some are saved');
  present(bench.storage.files.get(to), 'it is there').blocks.set(broken.offset / blockBytes, 999);
  await bench.copy(new Striker());
  assert.equal(bench.copied.at(-1), pieceCount - (saved?.pieces.length ?? 0) + 1);
  const [resume] = (await bench.journal.copy(bench.operation, 0))?.resumes ?? [];
  assert.equal(resume?.brokenBytes, broken.dataBytes);
  assert.ok(isCopy(bench.storage, from, to));
});

test('data where the source has a hole is found, in a piece that was saved and in one that was not', async () => {
  for (const at of ['saved', 'not saved'] as const) {
    const bench = await half();
    const saved = await bench.journal.copy(bench.operation, 0);
    const done = new Set(saved?.pieces.map(({ offset }) => offset / copyTuning.pieceBytes));
    const hole = [...Array(pieceCount * pieceBlocks).keys()].find(
      (block) =>
        !present(bench.storage.files.get(from), 'it is there').blocks.has(block) &&
        done.has(Math.floor(block / pieceBlocks)) === (at === 'saved'),
    );
    const part = present(bench.storage.files.get(to), 'it is there');
    part.blocks.set(present(hole, 'there are holes'), 999);
    await bench.copy(new Striker());
    assert.ok(isCopy(bench.storage, from, to), at);
  }
});

for (const [name, change] of [
  ['the source was written to', ({ storage }: CopyBench) => touch(storage, from)],
  ['the copy was removed', async ({ storage }: CopyBench) => await storage.remove(to)],
  [
    'the copy has another size',
    ({ storage }: CopyBench) => {
      present(storage.files.get(to), 'it is there').virtualSizeBytes -= 1n;
    },
  ],
] as const) {
  test(`it starts over when ${name}`, async () => {
    const bench = await half();
    await change(bench);
    await bench.copy(new Striker());
    assert.equal(bench.copied.at(-1), pieceCount);
    assert.deepEqual((await bench.journal.copy(bench.operation, 0))?.resumes, []);
    assert.ok(isCopy(bench.storage, from, to));
  });
}

test('a source that is written to while it is copied makes no copy', async () => {
  const bench = await CopyBench.open();
  const striker = new Striker();
  const { saveCopy } = bench.journal;
  bench.journal.saveCopy = async (...note) => {
    touch(bench.storage, from);
    await saveCopy.apply(bench.journal, note);
  };
  await assert.rejects(bench.copy(striker), /the source was written to meanwhile/);
});

function touch(storage: FakeStorage, path: string): void {
  const image = present(storage.files.get(path), 'it is there');
  storage.set(image, 3, 333);
}

test('what the storage lost below the page cache is found, and copied again, it alone', async () => {
  const bench = await CopyBench.open(1);
  const { verified } = await bench.copy(new Striker());
  assert.deepEqual(bench.copied, [pieceCount + 1]);
  const dataBytes = present(bench.storage.files.get(from), 'it is there').blocks.size * blockBytes;
  assert.equal(verified?.how, 'full');
  assert.equal(verified?.bytes, dataBytes);
  assert.equal(verified?.storageBytes, dataBytes);
  assert.ok(verified.repairedBytes > 0 && verified.repairedBytes <= copyTuning.pieceBytes);
  assert.ok(isCopy(bench.storage, from, to));
});

test('what the storage loses twice ends the copy: it says where, and what to do', async () => {
  const bench = await CopyBench.open(2);
  await assert.rejects(bench.copy(new Striker()), (error: Error) => {
    const where = `in the ${copyTuning.pieceBytes} bytes from offset ${bench.rotten},`;
    assert.ok(error.message.includes(where), error.message);
    assert.match(
      error.message,
      /^copy: verification: .* the guest stays on the source\. Look into/,
    );
    return true;
  });
  assert.equal((await bench.journal.copy(bench.operation, 0))?.whole ?? null, null);
});

test('a header that is not on the storage as it was rewritten ends the copy', async () => {
  const bench = await CopyBench.open();
  bench.rotsHeaders = true;
  await assert.rejects(bench.copy(new Striker()), /from offset 0, after its header was rewritten/);
});

test('without verification nothing is read back, and the record says so', async () => {
  const bench = await CopyBench.open(1);
  bench.verify = 'none';
  const { verified } = await bench.copy(new Striker());
  assert.deepEqual(bench.copied, [pieceCount]);
  assert.deepEqual({ ...verified, seconds: 0 }, nothingVerified);
  assert.ok(!isCopy(bench.storage, from, to), 'the storage lost a block, and nobody looked');
});

const nothingVerified = { how: 'none', bytes: 0, storageBytes: 0, repairedBytes: 0, seconds: 0 };

test('what a life has to look at when it goes on counts as verified, and is not read a second time', async () => {
  const bench = await half();
  const saved = await bench.journal.copy(bench.operation, 0);
  const striker = new Striker();
  const { verified } = await bench.copy(striker);
  assert.ok(present(saved, 'half of it is saved').pieces.length > 0);
  const { blocks } = present(bench.storage.files.get(from), 'it is there');
  assert.equal(verified?.bytes, blocks.size * blockBytes);
});

test('a sample has the ends and a share between them, follows from its number, and differs by it', () => {
  const all = [...Array(1000).keys()];
  const samples = Array.from({ length: 50 }, (_, seed) => sampleOf(all, seed));
  for (const [seed, sample] of samples.entries()) {
    assert.equal(new Set(sample).size, 50);
    assert.ok(sample[0] === 0 && sample.at(-1) === 999);
    assert.deepEqual(sampleOf(all, seed), sample);
  }
  const hit = new Set(samples.flat());
  assert.ok(hit.size > 800, `50 samples of 50 hit ${hit.size} of 1000`);
  assert.equal(sampleOf(all.slice(0, 100), 7).length, 16);
  assert.deepEqual(sampleOf(all.slice(0, 16), 7), all.slice(0, 16));
});
