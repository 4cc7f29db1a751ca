// Law 14 on real files: what is proven, what is missing, and that what is missing keeps.

import assert from 'node:assert/strict';
import { link, mkdir, open, rm, symlink, writeFile } from 'node:fs/promises';
import type { TestContext } from 'node:test';
import { test } from 'node:test';

import type { Change } from '../../domain/record.js';
import type { MoveWay } from '../../domain/undo-window.js';
import type { Step, StepOf } from '../../plan/step.js';
import { choose } from './gc.js';
import { History } from './testing/history.js';
import type { GcFate } from './types.js';

const record: Step = { kind: 'record' };
const pivot: Step = { kind: 'pivot', disks: [] };
const sealed: Step = { kind: 'seal-job', jobId: 'copy-vda-3' };

/** The target `mirror` of a mirror that a snapshot made, and that was dropped. */
async function dropped(history: History, existed = false): Promise<void> {
  await history.image('mirror');
  await history.ended('snapshot-create (mirrored)', [history.create('mirror', existed), record]);
  await history.ended('snapshot-delete (remove-mirror)', [record], { 0: [history.role('mirror')] });
}

/** A move to `copy` that was undone, so that `live.qcow2` is what it was made of. */
async function movedBack(history: History): Promise<void> {
  await history.image('copy');
  const layer = (name: string, index: number) =>
    ({ source: { type: 'file', path: history.at(name) }, format: 'qcow2', index }) as const;
  // Only what is looked at.
  const way = { from: [layer('copy', 1)], to: [layer('live.qcow2', 2)], epochs: [] };
  const move = { ways: [way as unknown as MoveWay], rotateBytes: null };
  const undo = { move: 1, going: 'back', untilMs: 0 } as const;
  const changes = { 0: [history.role('other', 'stale'), history.role('copy', 'stale')] };
  await history.ended('undo', [pivot], changes, { move, undo });
}

/** A move from `old` to `live.qcow2`, by way of the overlay `old.move`. */
async function moved(
  history: History,
  more: readonly Change[] = [],
  how: (step: StepOf<'copy-image'>) => StepOf<'copy-image'> = (step) => step,
  besides: readonly Step[] = [],
): Promise<void> {
  await history.image('old');
  await history.image('old.move', 'old');
  const copy = how(history.copy('old', 'live.qcow2'));
  const steps = [history.create('old.move'), ...besides, copy, pivot];
  const roles = [history.role('old.move', 'stale'), history.role('old', 'stale'), ...more];
  await history.ended('move', steps, { [steps.length - 1]: roles });
}

/** A conversion into one image, of whatever chain. */
const one = { format: 'qcow2', clusterSizeBytes: null, below: [] } as const;

/** [what is so, how it came to be, the file, its fate, what is said against it] */
type Row = readonly [
  string,
  (history: History, t: TestContext) => Promise<void>,
  string,
  GcFate | null,
  RegExp | null,
];

const anHourAgo = (): number => Date.now() - 3_600_000;

const rows: readonly Row[] = [
  ['the target of a dropped mirror', async (h) => await dropped(h), 'mirror', 'removable', null],
  [
    'a target that its caller had made',
    async (h) => await dropped(h, true),
    'mirror',
    'kept',
    /nothing in the journal shows that we made it/,
  ],
  [
    'a target that changed since',
    async (h) => {
      h.nowMs = anHourAgo;
      await dropped(h);
    },
    'mirror',
    'kept',
    /it changed at .*Z, after operation 2 left it/,
  ],
  [
    'a target whose end is not remembered',
    async (h) => {
      await h.image('mirror');
      await h.ended('snapshot-create (mirrored)', [h.create('mirror')]);
      await h.journal.record('u', [h.role('mirror')]);
    },
    'mirror',
    'kept',
    /the operation that left it is not remembered any more/,
  ],
  [
    'a target that was sealed',
    async (h) => {
      await h.image('mirror');
      await h.ended('snapshot-create (mirrored)', [h.create('mirror')]);
      await h.ended('blockjob (abort)', [sealed, record], { 1: [h.role('mirror')] });
    },
    'mirror',
    'by-name',
    /an exact point in time that somebody may want/,
  ],
  [
    'a target that a definition names',
    async (h) => {
      await dropped(h);
      await h.define(['live.qcow2', 'mirror']);
    },
    'mirror',
    'kept',
    /domain 'vm1' or a snapshot of it names it/,
  ],
  [
    'a target that a definition names by a link',
    async (h) => {
      await dropped(h);
      await symlink(h.at('mirror'), h.at('alias'));
      await h.define(['live.qcow2', 'alias']);
    },
    'mirror',
    'kept',
    /domain 'vm1' or a snapshot of it names it/,
  ],
  [
    'a target of which a definition names one with a longer name',
    async (h) => {
      await dropped(h);
      await h.image('mirror.2');
      await h.define(['live.qcow2', 'mirror.2']);
    },
    'mirror',
    'removable',
    null,
  ],
  [
    'a target that an open operation names',
    async (h) => {
      await dropped(h);
      await h.begun('move', [h.copy('mirror', 'elsewhere')]);
    },
    'mirror',
    'kept',
    /operation 3 \(move\), which has not ended, names it/,
  ],
  [
    'a target that a process has open',
    async (h, t) => {
      await dropped(h);
      const file = await open(h.at('mirror'));
      t.after(async () => await file.close());
    },
    'mirror',
    'kept',
    new RegExp(`it is open in node.* \\(pid ${process.pid}\\)`),
  ],
  [
    'a target on which an image stands that is none of ours',
    async (h) => {
      await dropped(h);
      await h.image('theirs', 'mirror');
    },
    'mirror',
    'kept',
    /theirs names it/,
  ],
  [
    'a target whose live image is gone',
    async (h) => {
      await dropped(h);
      await rm(h.at('live.qcow2'));
    },
    'mirror',
    'kept',
    /live\.qcow2, which has what it holds, is not there/,
  ],
  [
    'a link in the place of a target',
    async (h) => {
      await dropped(h);
      await rm(h.at('mirror'));
      await symlink(h.at('live.qcow2'), h.at('mirror'));
    },
    'mirror',
    'kept',
    /neither a file nor a socket/,
  ],
  [
    'a target that is gone',
    async (h) => {
      await dropped(h);
      await rm(h.at('mirror'));
    },
    'mirror',
    null,
    null,
  ],
  [
    'the source of a move, below its overlay',
    async (h) => await moved(h),
    'old',
    'by-name',
    /kept until somebody names it; only together with .*old\.move, whose header names it/,
  ],
  [
    'the overlay of a move',
    async (h) => await moved(h),
    'old.move',
    'by-name',
    /kept until somebody names it$/,
  ],
  [
    'a source whose way back was closed later',
    async (h) => {
      await moved(h);
      const again: Change = { ...h.role('old', 'stale'), since: 'kept' };
      await h.ended('undo-window (close)', [pivot], { 0: [again] });
    },
    'old',
    'by-name',
    /kept until somebody names it; only together with .*old\.move/,
  ],
  [
    'the copy of a move that was undone',
    async (h) => await movedBack(h),
    'copy',
    'by-name',
    /kept until somebody names it$/,
  ],
  [
    'a source on whose overlay somebody stands',
    async (h) => {
      await moved(h);
      await h.image('theirs', 'old.move');
    },
    'old',
    'kept',
    /old\.move names it/,
  ],
  [
    'a former base that was not copied',
    async (h) => {
      await h.image('other');
      await moved(h, [h.role('other', 'stale')]);
    },
    'other',
    'kept',
    /nothing shows that what it holds is elsewhere as well/,
  ],
  [
    'a former base whose chain was flattened',
    async (h) => {
      await h.image('other');
      await moved(h, [h.role('other', 'stale')], (step) => ({
        ...step,
        convert: { ...one, chain: [h.file('old'), h.file('other')] },
      }));
    },
    'other',
    'by-name',
    /kept until somebody names it/,
  ],
  [
    'a former base that stays one, its top made anew',
    async (h) => {
      await h.image('other');
      await moved(h, [h.role('other', 'stale')], (step) => ({
        ...step,
        convert: { ...one, chain: [h.file('old'), h.file('other')], below: [h.file('live.qcow2')] },
      }));
    },
    'other',
    'kept',
    /nothing shows that what it holds is elsewhere as well/,
  ],
  [
    'a former base whose twin was compared and taken over',
    async (h) => {
      await h.image('other');
      await moved(h, [h.role('other', 'stale')], undefined, [
        {
          kind: 'check-image',
          source: [h.file('other')],
          image: [h.file('live.qcow2')],
          file: { inode: 1n, sizeBytes: 1n, mtimeNs: 1n },
        },
      ]);
    },
    'other',
    'by-name',
    /kept until somebody names it/,
  ],
  [
    'what a rollback left',
    async (h) => {
      await h.image('overlay');
      await h.undone('move', [h.create('overlay')]);
    },
    'overlay',
    'removable',
    null,
  ],
  [
    'what a rollback left and somebody used since',
    async (h) => {
      await h.undone('move', [h.create('live.qcow2')]);
    },
    'live.qcow2',
    'kept',
    /domain 'vm1'/,
  ],
  [
    'a copy that never got its name',
    async (h) => {
      await h.image('copy.part');
      await h.undone('move', [h.copy('live.qcow2', 'copy')]);
    },
    'copy.part',
    'removable',
    null,
  ],
  [
    'a copy that somebody began later',
    async (h) => {
      h.nowMs = anHourAgo;
      await h.undone('move', [h.copy('live.qcow2', 'copy')]);
      await h.image('copy.part');
    },
    'copy.part',
    'kept',
    /it changed at/,
  ],
];

for (const [what, make, name, fate, against] of rows) {
  test(`${what}: ${fate ?? 'not listed'}`, async (t) => {
    const history = await History.open(t);
    await make(history, t);
    const item = await history.item(name);
    assert.equal(item?.fate ?? null, fate, JSON.stringify(item?.against));
    if (against === null) assert.deepEqual(item?.against ?? [], []);
    else assert.match(item?.against.join('; ') ?? '', against);
    // What can go shows all three proofs.
    if (fate === 'removable' || fate === 'by-name') assert.equal(item?.proof.length, 3);
  });
}

test('files of domains that are gone are listed, those of others are not', async (t) => {
  const history = await History.open(t);
  const gone = '22222222-2222-4333-8444-555555555555';
  for (const folder of ['run/qemu', 'state/log', 'state/nvram']) await mkdir(history.at(folder));
  for (const name of [
    `run/qemu/${gone}.pid`,
    'run/qemu/11111111-2222-4333-8444-555555555555.pid',
    'run/qemu/notes',
    'state/log/old.log',
    'state/log/vm1.log',
    'state/nvram/old_VARS.fd',
    'state/nvram/vm1_VARS.fd',
  ])
    await writeFile(history.at(name), 'x');
  const found = await history.items();
  assert.deepEqual(
    found.map(({ path, kind, fate }) => [path.slice(history.dir.length + 1), kind, fate]),
    [
      [`run/qemu/${gone}.pid`, 'run-file', 'removable'],
      ['state/log/old.log', 'log', 'removable'],
      ['state/nvram/old_VARS.fd', 'nvram', 'by-name'],
    ],
  );
});

test('a file is known by what it is, not by its name: a hard link to what is used is kept', async (t) => {
  const history = await History.open(t);
  await dropped(history);
  await rm(history.at('mirror'));
  await link(history.at('live.qcow2'), history.at('mirror'));
  assert.equal((await history.item('mirror'))?.fate, 'kept');
});

test('without names only what needs none goes; a base only with what stands on it, and after it', async (t) => {
  const history = await History.open(t);
  await dropped(history);
  await moved(history);
  const items = await history.items();
  const names = (paths: readonly string[] | null): readonly string[] =>
    choose(items, paths).map(({ path }) => path.slice(history.dir.length + 1));
  assert.deepEqual(names(null), ['mirror']);
  const [old, overlay] = [history.at('old'), history.at('old.move')];
  assert.throws(() => names([old]), /old is kept: .*old\.move names it as the image below/);
  assert.deepEqual(names([old, overlay]), ['old.move', 'old']);
  assert.deepEqual(names([overlay]), ['old.move']);
  assert.throws(() => names([history.at('live.qcow2')]), /is nothing that we left/);
  await history.image('theirs', 'mirror');
  const later = await history.items();
  assert.throws(
    () => choose(later, [history.at('mirror')]),
    /mirror is kept: .*theirs names it; nothing was removed/,
  );
});
