// The copier on real files: every byte, every hole, and what is left of it when it is killed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { mkdtemp, open, rm, stat, utimes } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

import { must, run } from '../../test/lib/process.js';
import type { ChildNews, ChildTask } from '../../test/lib/copy-child.js';
import type { CopyNote, CopyWhole, SavedCopy } from '../block/copy.js';
import { copyAfter } from '../journal/applied.js';
import { within } from '../std/deadline.js';
import { StateError, SystemError } from '../std/errors.js';
import { copyError } from './copy-error.js';
import { HostCopyFiles } from './copy-host.js';
import type { CopyFiles, Tuning } from './copying.js';
import { copyFrozen, rootOfTarget } from './copy.js';
import { Pace } from './pace.js';
import { newKey } from './pieces.js';
import { copyTool } from './qemu-img.js';

const MiB = 1 << 20;
const KiB = 1 << 10;
const tuning: Tuning = { pieceBytes: 256 * KiB, checkpointBytes: MiB, checkpointMs: 60_000 };

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'ferry-copy-'));
  try {
    await body(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Bytes that are nowhere zero for long, the same for the same place. */
function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed + 1;
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

const megabyte = pattern(MiB, 7);

async function put(file: FileHandle, position: number, length: number): Promise<void> {
  for (let done = 0; done < length; done += MiB)
    await file.write(megabyte, 0, Math.min(MiB, length - done), position + done);
}

async function makeFile(path: string, fill: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, 'w');
  await fill(file);
  await file.sync();
  await file.close();
}

interface Kept {
  saved: SavedCopy | null;
}

/** A journal of one copy. */
const keep =
  (kept: Kept) =>
  async (note: CopyNote): Promise<void> => {
    const before = kept.saved;
    const pieces =
      note.note === 'begun'
        ? []
        : [...(before?.pieces ?? []), ...(note.note === 'pieces' ? note.pieces : [])];
    kept.saved = { ...copyAfter(before, note, 0), pieces };
  };

interface Run {
  readonly signal?: AbortSignal;
  readonly limit?: number;
  readonly onSave?: (note: CopyNote) => void;
  /** Gets how much data was copied, as far as it got. */
  readonly onCopied?: (bytes: number) => void;
}

async function copy(
  from: string,
  to: string,
  kept: Kept,
  { signal, limit, onSave, onCopied }: Run = {},
): Promise<CopyWhole> {
  const key = kept.saved?.key ?? newKey();
  await using files = new HostCopyFiles({ from, to, key }, copyTool('qemu-img'), null);
  const counted = new Proxy<CopyFiles>(files, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]) => {
        const result = (await Reflect.apply(value, target, args)) as unknown;
        if (key === 'copy') onCopied?.((args[0] as { dataBytes: number }).dataBytes);
        return result;
      };
    },
  });
  const save = keep(kept);
  return await copyFrozen(
    counted,
    {
      doing: `copy ${from} to ${to}`,
      backing: null,
      saved: kept.saved,
      save: async (note) => {
        await save(note);
        onSave?.(note);
      },
      onProgress: () => undefined,
      signal: signal ?? new AbortController().signal,
      pace: new Pace(() => limit ?? null),
    },
    tuning,
  );
}

const allocated = async (path: string): Promise<number> => (await stat(path)).blocks * 512;

const files: readonly (readonly [string, (file: FileHandle) => Promise<void>])[] = [
  ['an empty file', async () => undefined],
  ['one byte', async (file) => await put(file, 0, 1)],
  ['one byte less than a block', async (file) => await put(file, 0, 4095)],
  ['one byte more than a piece', async (file) => await put(file, 0, 256 * KiB + 1)],
  ['an odd size', async (file) => await put(file, 0, 3 * MiB + 12_345)],
  ['a hole of an odd size', async (file) => await file.truncate(5 * MiB + 77)],
  [
    'data, a hole, data up to an odd end',
    async (file) => {
      await put(file, 0, 64 * KiB);
      await put(file, 3 * MiB + 512, 100 * KiB + 3);
    },
  ],
  [
    'many small holes',
    async (file) => {
      for (let n = 0; n < 200; n++) await put(file, n * 24 * KiB, 8 * KiB);
    },
  ],
  [
    'data behind 4 GiB, and across it',
    async (file) => {
      await put(file, 0, 64 * KiB);
      await put(file, 2 ** 32 - 8 * KiB, 16 * KiB);
      await put(file, 2 ** 33 + 4 * KiB, 300 * KiB);
      await file.truncate(2 ** 34 + 1);
    },
  ],
];

for (const [name, fill] of files) {
  test(`${name} is copied to the byte, with its holes`, async () => {
    await inFolder(async (folder) => {
      const [from, to] = [join(folder, 'from'), join(folder, 'to')];
      await makeFile(from, fill);
      const kept: Kept = { saved: null };
      const whole = await copy(from, to, kept);
      await same(from, to);
      assert.ok((await allocated(to)) <= (await allocated(from)));
      assert.equal((await stat(to)).mode, (await stat(from)).mode);
      if (whole.how === 'data') assert.equal(whole.root, await rootOf(to, kept.saved?.key));
    });
  });
}

/** To the byte; a large one by its extents, or it would take minutes. */
async function same(from: string, to: string): Promise<void> {
  const { size } = await stat(from);
  assert.equal((await stat(to)).size, size);
  if (size < 64 * MiB) await must('cmp', [from, to]);
  else await must('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', from, to]);
}

async function rootOf(path: string, key = '00'.repeat(16)): Promise<string> {
  await using files = new HostCopyFiles({ from: path, to: path, key }, copyTool('qemu-img'), null);
  const { signal } = new AbortController();
  return await rootOfTarget(files, await files.source(), tuning.pieceBytes, signal);
}

test('zeroes that take room at the source are holes in the copy, and the root hash is the same', async () => {
  await inFolder(async (folder) => {
    const [from, to] = [join(folder, 'from'), join(folder, 'to')];
    const zeroes = Buffer.alloc(MiB);
    await makeFile(from, async (file) => {
      for (let n = 0; n < 8; n++) await file.write(zeroes, 0, MiB, n * MiB);
      await put(file, 3 * MiB + 4 * KiB, 4 * KiB);
      await file.truncate(9 * MiB + 5);
    });
    const sparse = join(folder, 'sparse');
    await makeFile(sparse, async (file) => {
      await put(file, 3 * MiB + 4 * KiB, 4 * KiB);
      await file.truncate(9 * MiB + 5);
    });
    const { how } = await copy(from, to, { saved: null });
    await must('cmp', [from, to]);
    assert.equal(await rootOf(from), await rootOf(sparse));
    if (how === 'data') assert.ok((await allocated(to)) <= 64 * KiB, `${await allocated(to)}`);
  });
});

test('one changed byte, or one byte more, is another root hash', async () => {
  await inFolder(async (folder) => {
    const path = join(folder, 'file');
    await makeFile(path, async (file) => await put(file, 0, MiB));
    const roots = new Set([await rootOf(path)]);
    for (const change of [
      async (file: FileHandle) => void (await file.write('x', 700_001)),
      async (file: FileHandle) => await file.truncate(MiB + 1),
    ]) {
      const file = await open(path, 'r+');
      await change(file);
      await file.close();
      roots.add(await rootOf(path));
    }
    assert.equal(roots.size, 3);
  });
});

test('where files can share blocks the copy does, elsewhere it does not', async () => {
  await inFolder(async (folder) => {
    const [from, to] = [join(folder, 'from'), join(folder, 'to')];
    await makeFile(from, async (file) => await put(file, 0, MiB));
    const { code } = await run('cp', ['--reflink=always', from, join(folder, 'asked')]);
    const kept: Kept = { saved: null };
    const { how, root } = await copy(from, to, kept);
    assert.equal(how, code === 0 ? 'reflink' : 'data');
    assert.equal(root === null, how === 'reflink');
    await must('cmp', [from, to]);
  });
});

/** A source of 8 MiB, and a copy of it that was cancelled after so much was saved. */
async function halfCopied(folder: string) {
  const [from, to] = [join(folder, 'from'), join(folder, 'to')];
  await makeFile(from, async (file) => {
    await put(file, 0, 5 * MiB);
    await put(file, 6 * MiB, 2 * MiB);
  });
  const kept: Kept = { saved: null };
  const cancel = new AbortController();
  const first = copy(from, to, kept, {
    signal: cancel.signal,
    onSave: ({ note }) => void (note === 'pieces' && cancel.abort()),
  });
  await assert.rejects(
    first,
    (error) => error instanceof StateError && error.code === 'OPERATION_ABORTED',
  );
  const savedBytes = (kept.saved?.pieces ?? []).reduce((sum, one) => sum + one.dataBytes, 0);
  assert.ok(savedBytes >= MiB && savedBytes < 7 * MiB, `${savedBytes} saved`);
  return { from, to, kept, savedBytes };
}

/** How much data the second run copied. */
async function goOn(from: string, to: string, kept: Kept): Promise<number> {
  let copied = 0;
  const { root } = await copy(from, to, kept, { onCopied: (bytes) => (copied += bytes) });
  await must('cmp', [from, to]);
  assert.equal(root, await rootOf(from, kept.saved?.key));
  return copied;
}

test('a copy that was cancelled goes on where it was', async () => {
  await inFolder(async (folder) => {
    const { from, to, kept, savedBytes } = await halfCopied(folder);
    assert.equal(await goOn(from, to, kept), 7 * MiB - savedBytes);
    assert.deepEqual(kept.saved?.resumes, [{ atMs: 0, keptBytes: savedBytes, brokenBytes: 0 }]);
  });
});

test('a saved piece that is damaged on the storage is copied again, it alone', async () => {
  await inFolder(async (folder) => {
    const { from, to, kept, savedBytes } = await halfCopied(folder);
    const piece = kept.saved?.pieces[1];
    const file = await open(to, 'r+');
    await file.write('damage', (piece?.offset ?? 0) + 100_000);
    await file.close();
    assert.equal(await goOn(from, to, kept), 7 * MiB - savedBytes + 256 * KiB);
    assert.equal(kept.saved?.resumes[0]?.brokenBytes, 256 * KiB);
  });
});

test('whatever lies in a piece that was not saved is overwritten, by holes too', async () => {
  await inFolder(async (folder) => {
    const { from, to, kept } = await halfCopied(folder);
    // The last piece that holds data gets some where it has none: 5 MiB is the end of the data, not of a block's worth.
    await makeFile(from, async (file) => await put(file, 0, 2 * MiB));
    kept.saved = null;
    const cancel = new AbortController();
    const source = await open(from, 'r+');
    await source.truncate(2 * MiB + 200 * KiB);
    await source.write('end', 2 * MiB + 199 * KiB);
    await source.close();
    const first = copy(from, to, kept, {
      signal: cancel.signal,
      onSave: ({ note }) => void (note === 'pieces' && cancel.abort()),
    });
    await assert.rejects(first);
    const target = await open(to, 'r+');
    await target.write('rubbish', 2 * MiB + 50 * KiB);
    await target.close();
    await goOn(from, to, kept);
  });
});

for (const [name, change] of [
  [
    'the source was written to',
    async ({ from }: { from: string }) => {
      const file = await open(from, 'r+');
      await file.write('changed', 4 * MiB);
      await file.close();
    },
  ],
  ['the source was touched', async ({ from }: { from: string }) => await utimes(from, 1, 1)],
  ['the copy is gone', async ({ to }: { to: string }) => await rm(to)],
  [
    'the copy holds data where the source has nothing',
    async ({ to }: { to: string }) => {
      const file = await open(to, 'r+');
      await file.write('stranger', 5 * MiB + 300 * KiB);
      await file.close();
    },
  ],
] as const) {
  test(`it starts over when ${name}`, async () => {
    await inFolder(async (folder) => {
      const half = await halfCopied(folder);
      await change(half);
      assert.equal(await goOn(half.from, half.to, half.kept), 7 * MiB);
      assert.deepEqual(half.kept.saved?.resumes, []);
    });
  });
}

test('a limit holds, and a cancel does not wait for it', async () => {
  await inFolder(async (folder) => {
    const [from, to] = [join(folder, 'from'), join(folder, 'to')];
    await makeFile(from, async (file) => await put(file, 0, 2 * MiB));
    const start = performance.now();
    await copy(from, to, { saved: null }, { limit: 4 * MiB });
    // The first piece and the lanes' go ahead of their time.
    const seconds = (performance.now() - start) / 1000;
    assert.ok(seconds >= 0.4, `2 MiB at 4 MiB/s took ${seconds} s`);
    const cancel = new AbortController();
    const slow = copy(from, to, { saved: null }, { limit: KiB, signal: cancel.signal });
    setImmediate(() => cancel.abort());
    await assert.rejects(
      within(slow, 10_000, 'cancel of a copy that would take half an hour'),
      StateError,
    );
  });
});

const childPath = new URL('../../test/lib/copy-child.js', import.meta.url).pathname;

/** Runs a process that copies; `onNews` may kill it. */
async function inChild(
  task: ChildTask,
  onNews: (news: ChildNews, kill: () => void) => void = () => undefined,
  before: readonly string[] = [],
): Promise<readonly ChildNews[]> {
  const [program, ...args] = [...before, process.execPath, childPath, JSON.stringify(task)];
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const news: ChildNews[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const one = JSON.parse(line) as ChildNews; // our own child
    news.push(one);
    onNews(one, () => child.kill('SIGKILL'));
  }
  await within(exited, 60_000, 'the end of a process that copies');
  return news;
}

test('a process that copies is killed -9, and the next one writes only what is missing', async () => {
  await inFolder(async (folder) => {
    const stateDir = join(folder, 'state');
    mkdirSync(stateDir);
    const [from, to] = [join(folder, 'from'), join(folder, 'to')];
    const dataBytes = 48 * MiB;
    await makeFile(from, async (file) => {
      await put(file, 0, 40 * MiB);
      await put(file, 100 * MiB, 8 * MiB);
    });
    const task = { from, to, stateDir, tuning, limitBytesPerSecond: 40 * MiB };
    let lives = 0;
    let doneBytes = 0;
    for (const killAtBytes of [10 * MiB, 25 * MiB]) {
      const news = await inChild(task, (one, kill) => {
        if ('savedBytes' in one && one.savedBytes >= killAtBytes) kill();
      });
      assert.ok(
        news.every((one) => !('root' in one) && !('error' in one)),
        'it was killed',
      );
      doneBytes = Math.max(
        doneBytes,
        ...news.map((one) => ('savedBytes' in one ? one.savedBytes : 0)),
      );
      lives++;
    }
    assert.equal(lives, 2);
    const last = (await inChild({ ...task, limitBytesPerSecond: null })).at(-1);
    assert.ok(last !== undefined && 'root' in last, JSON.stringify(last));
    await must('cmp', [from, to]);
    assert.equal(last.root, await rootOf(from, last.key));
    // What was saved when it died is not written again; the journal itself is written too.
    const mostBytes = dataBytes - doneBytes + tuning.checkpointBytes;
    assert.ok(
      last.writtenBytes <= mostBytes + MiB,
      `${last.writtenBytes} bytes were written, ${mostBytes} were missing`,
    );
    assert.ok(last.writtenBytes > dataBytes / 4, 'there was something left to do');
  });
});

test('a full storage is told as such, the half copy stays, and with more room it goes on', async () => {
  await inFolder(async (folder) => {
    const stateDir = join(folder, 'state');
    const small = join(folder, 'small');
    for (const path of [stateDir, small]) mkdirSync(path);
    const [from, to] = [join(folder, 'from'), join(small, 'to')];
    await makeFile(from, async (file) => await put(file, 0, 12 * MiB));
    // A mount of its own, which ends with the process that sees it.
    const script = [
      `mount -t tmpfs -o size=8m ferry-test '${small}'`,
      '"$@"',
      `mount -o remount,size=32m '${small}'`,
      '"$@"',
      `cmp '${from}' '${to}'`,
    ].join(' && ');
    const root = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
    const news = await inChild(
      { from, to, stateDir, tuning, limitBytesPerSecond: null },
      () => undefined,
      ['unshare', '--mount', ...root, 'sh', '-ec', script, 'sh'],
    );
    const failed = news.findIndex((one) => 'error' in one);
    const error = news[failed];
    assert.ok(error !== undefined && 'error' in error, JSON.stringify(news));
    assert.match(
      error.error,
      /^copy .* to .*: cannot write .*\/to: no room is left on its file system; make room there/,
    );
    const last = news.at(-1);
    assert.ok(last !== undefined && 'root' in last, JSON.stringify(last));
    assert.ok(last.writtenBytes < 8 * MiB, `${last.writtenBytes} written by the second`);
  });
});

for (const [name, side, code, text, intact] of [
  ['a full target', 'target', 'ENOSPC', /cannot write \/b: no room .*; make room there/, true],
  ['a used up quota', 'target', 'EDQUOT', /the quota is used up; make room/, true],
  ['a failing source', 'source', 'EIO', /cannot read \/a: the storage failed.*dmesg/, null],
  ['a failing target', 'target', 'EIO', /cannot write \/b: the storage failed.*another/, true],
  ['a source that may not be read', 'source', 'EACCES', /cannot read \/a: .*permissions/, true],
  ['a target that may not be written', 'target', 'EACCES', /cannot write \/b: .*permissions/, true],
  ['a read-only file system', 'target', 'EROFS', /is read-only; mount it/, true],
  ['a source that got shorter', 'source', null, /cannot read \/a: it ends at 5;/, null],
  ['anything else', 'target', 'ELOOP', /cannot write \/b: it ends at 5; check the path/, true],
] as const) {
  test(`${name}: the error says what to do, and whether the source is intact`, () => {
    const error = copyError(
      { from: '/a', to: '/b' },
      { side, doing: side === 'source' ? 'read' : 'write', code, message: 'it ends at 5' },
    );
    assert.match(error.message, text);
    assert.equal(error.sourceIntact, intact);
  });
}

test('a file that cannot be opened is told with its side', async () => {
  await inFolder(async (folder) => {
    const from = join(folder, 'from');
    const kept: Kept = { saved: null };
    await assert.rejects(
      copy(from, join(folder, 'to'), kept),
      /cannot read .*from: it is not there/,
    );
    await makeFile(from, async (file) => await put(file, 0, MiB));
    await assert.rejects(
      copy(from, join(folder, 'no', 'to'), kept),
      (error) => error instanceof SystemError && /cannot write .*or its folder/.test(error.message),
    );
  });
});
