// What becomes of the source after a move: deleted as far as law 14 allows and no further, kept for its time over the death
// of `ferryd`, and always said how much older it is.

import assert from 'node:assert/strict';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { connect } from '../../src/library/ferry.js';
import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { withLab, type Lab } from '../lib/lab.js';
import { endsWell, killQemu, nothingLost, running, sources, writeMore } from '../lib/mirrored.js';
import { operation } from '../lib/moves.js';

const filesOf = async (folder: string): Promise<readonly string[]> =>
  (await readdir(folder)).toSorted();

const move = (to: string, ...options: readonly string[]): readonly string[] => [
  'move',
  'vm1',
  'vda',
  '--to',
  to,
  ...options,
];

async function refused(lab: Lab, args: readonly string[], exit: number, why: RegExp) {
  const { code, stderr } = await lab.ferry(...args);
  assert.match(stderr, why);
  assert.equal(code, exit, stderr);
}

async function untilGone(folder: string, what: string): Promise<void> {
  const look = async (): Promise<true | null> =>
    (await filesOf(folder)).length === 0 ? true : null;
  await until(look, 60_000, what);
}

/** The number of the last move. */
async function lastMove(lab: Lab): Promise<number> {
  const all = JSON.parse(await lab.mustFerry('ops', '--all', '--json')) as {
    readonly id: number;
    readonly kind: string;
  }[]; // our own CLI
  return present(all.find(({ kind }) => kind === 'move')?.id, 'a move was made');
}

test('a source is deleted but for the layer that somebody stands on, which stays and says why', async () => {
  await withLab('after-move', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 1);
    const image = present(guest.files[0], 'it has one disk');
    await lab.mustVirsh('snapshot-create-as', 'vm1', 's1', '--disk-only');
    await lab.mustVirsh('snapshot-delete', 'vm1', 's1', '--metadata');
    const theirs = join(lab.a, 'theirs');
    await lab.qemuImg('create', '-q', '-f', 'qcow2', '-b', image, '-F', 'qcow2', theirs);
    const unsafe = move(lab.b, '--delete-source', '--verify', 'none');
    await refused(lab, unsafe, 2, /with --verify none nothing proves that the copies are whole/);
    await refused(lab, move(lab.b, '--delete-shared'), 2, /say --delete-source or/);
    assert.deepEqual(await filesOf(lab.b), []);

    const told = await lab.mustFerry(...move(lab.b, '--delete-source', '--delete-shared'));
    assert.deepEqual(await filesOf(lab.a), ['theirs', 'vm1-vda.qcow2']);
    const id = await lastMove(lab);
    const deleted = new RegExp(
      `deleted: ${lab.a}/vm1-vda\\.s1\\.move-\\d+, ${lab.a}/vm1-vda\\.s1\n`,
    );
    assert.match(told, deleted);
    const why = new RegExp(`${image}.*older by \\w+ and .*kept, for ${theirs} names it`);
    assert.match(told, why);
    const { source } = await operation(lab, id);
    assert.deepEqual(
      source?.images.map(({ state }) => state),
      ['deleted', 'deleted', 'kept'],
    );
    assert.match(await lab.mustFerry('events'), /SOURCE_KEPT \{"operation":\d+,"kept":\[\{"path"/);
    assert.match(await lab.mustFerry('gc'), new RegExp(`${image} .*[^]*- ${theirs} names it`));
    await writeMore(guest, 50);

    await rm(theirs);
    await lab.mustFerry('keep-source', String(id), '1s');
    await untilGone(lab.a, 'what nobody stands on any more is deleted when its time is over');
    const keep = ['keep-source', String(id), 'forever'];
    await refused(lab, keep, 4, /nothing of its source is left/);
    assert.match(await lab.mustFerry('gc'), /Nothing that we left is there/);
    await refused(lab, ['undo', String(id)], 4, /nothing of its source is left.*ferry move vm1/s);

    await lab.mustVirsh('destroy', 'vm1');
    const off = await lab.mustFerry(...move(lab.a, '--delete-source', '--delete-shared'));
    assert.match(off, /deleted: /);
    assert.deepEqual(await filesOf(lab.b), []);
    assert.deepEqual(await filesOf(lab.a), ['vm1-vda.qcow2', 'vm1-vda.s1']);
    await nothingLost(guest, await sources(lab));
    await lab.mustVirsh('start', 'vm1');
    await endsWell(lab, guest);
  });
});

/** What `ferry chain` says of the first stale image: bytes, and whether that is all. */
async function age(lab: Lab): Promise<{ readonly bytes: bigint; readonly isAtLeast: boolean }> {
  const text = (await lab.mustFerry('chain', 'vm1', '--json')).replaceAll(/\s/g, '');
  const found = /"older":\{"seconds":\d+,"writtenBytes":"(\d+)","isAtLeast":(true|false)/.exec(
    text,
  );
  assert.ok(found, text);
  return { bytes: BigInt(found[1] ?? '0'), isAtLeast: found[2] === 'true' };
}

const again = async (lab: Lab): Promise<void> => void (await lab.ferryd());
const killDaemon = async (lab: Lab): Promise<void> =>
  await present(lab.daemons.at(-1), 'it was started').kill9();

test('a source is kept for its time: how much older it is outlives ferryd, and a time that came meanwhile has come', async () => {
  await withLab('after-move-kept', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 1);
    await lab.mustFerry(...move(lab.b, '--keep-source', '1h'));
    const id = await lastMove(lab);
    const first = await age(lab);
    await writeMore(guest, 50);
    const more = await age(lab);
    assert.ok(more.bytes > first.bytes, `${first.bytes} and then ${more.bytes}`);
    assert.equal(more.isAtLeast, false);
    const old = join(lab.a, 'vm1-vda.qcow2');
    const text = /older by \w+ and \d+(\.\d)? [KM]?i?B/;
    assert.match(await lab.mustFerry('ops', 'show', String(id)), text);
    assert.match(await lab.mustFerry('doctor', 'vm1'), text);
    assert.match(await lab.mustFerry('gc'), /older by .*\n +kept until \d+-/);
    const undo = new RegExp(
      `it has no undo window: .*that of vda is older by \\w+ and [^]*ferry gc --yes ${old}\\S* ${old}[^]*ferry move vm1 vda --to ${lab.a}\n`,
    );
    await refused(lab, ['undo', String(id)], 4, undo);

    await killDaemon(lab);
    assert.match(await lab.mustFerry('doctor', 'vm1').catch(String), /older by \w+ and at least/);
    await writeMore(guest, 50);
    await again(lab);
    const after = await age(lab);
    assert.ok(after.bytes > more.bytes, 'what was written without ferryd counts');
    assert.equal(after.isAtLeast, false);
    await killQemu(lab);
    await lab.mustVirsh('start', 'vm1');
    await writeMore(guest, 50);
    const last = await age(lab);
    assert.ok(last.bytes > after.bytes && last.isAtLeast, 'what QEMU wrote at last was not seen');

    const ferry = await connect({ runDir: lab.runDir });
    const due = Date.now() + 2000;
    await ferry.keepSource(id, 1);
    await killDaemon(lab);
    const isOver = async (): Promise<true | null> => (Date.now() > due ? true : null);
    await until(isOver, 10_000, 'its time is over');
    assert.equal((await filesOf(lab.a)).length, 2, 'nobody was there to delete it');
    await again(lab);
    await untilGone(lab.a, 'the next ferryd deletes it');
    // The file is gone a moment before that is written down.
    const isTold = async (): Promise<true | null> =>
      (await ferry.operation(id)).source?.images.every(({ state }) => state === 'deleted') === true
        ? true
        : null;
    await until(isTold, 30_000, 'the move says that its source is deleted');
    assert.match(await lab.mustFerry('ops', 'show', String(id)), new RegExp(`${old}: deleted`));
    await endsWell(lab, guest);
  });
});
