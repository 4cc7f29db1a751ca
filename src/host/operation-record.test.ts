// What stays of an operation, and how far a move is, from a journal in memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Layer } from '../block/layer.js';
import { MemoryJournal } from '../journal/memory.js';
import type { MoveWay } from '../domain/undo-window.js';
import type { Plan, Step } from '../plan/step.js';
import { moveProgress } from './move-progress.js';
import { copiesOf } from './operations.js';
import { operationRecord } from './operation-record.js';

const uuid = '11111111-2222-4333-8444-555555555555';
const source = { inode: 1n, sizeBytes: 1000n, mtimeNs: 5n };

const copy = (name: string): Step => ({
  kind: 'copy-image',
  from: `/src/${name}`,
  to: `/dst/${name}`,
  format: 'qcow2',
  backing: null,
});

const layer = (path: string): Layer => ({
  source: { type: 'file', path },
  format: 'qcow2',
  index: 1,
});

// Only what is looked at.
const way = (target: string): MoveWay =>
  ({ target, from: [layer(`/src/${target}`)] }) as unknown as MoveWay;
const snapshot = {
  kind: 'snapshot',
  disks: [{ target: 'vda' }, { target: 'vdb' }],
} as unknown as Step;

const plan: Plan = {
  operation: 'move',
  domain: uuid,
  domainName: 'vm1',
  steps: [snapshot, copy('vda'), copy('vdb'), { kind: 'wait-ready', job: 'copy', jobIds: [] }],
  commitAt: 4,
  move: { ways: [way('vda'), way('vdb')], rotateBytes: null },
};

async function half() {
  let nowMs = 0;
  const journal = new MemoryJournal({ nowMs: () => (nowMs += 1000) });
  const crashed = { type: 'monitor', event: 'MIRROR_PAUSED', details: null } as const;
  await journal.record(uuid, [{ change: 'event', event: crashed }]);
  const id = await journal.begin(plan);
  await journal.append(id, { type: 'done', step: 0 });
  await journal.append(id, { type: 'doing', step: 1 });
  await journal.saveCopy(id, 1, {
    note: 'begun',
    source,
    pieceBytes: 100,
    key: 'k',
    totalBytes: 900,
  });
  await journal.saveCopy(id, 1, { note: 'resumed', keptBytes: 300, brokenBytes: 100 });
  const whole = { how: 'data', root: 'c0ffee', file: source } as const;
  await journal.saveCopy(id, 1, { note: 'whole', whole });
  await journal.append(id, { type: 'done', step: 1 });
  await journal.record(uuid, [{ change: 'event', event: { ...crashed, event: 'MIRROR_RESUMED' } }]);
  await journal.append(id, { type: 'doing', step: 2 });
  await journal.saveCopy(id, 2, {
    note: 'begun',
    source,
    pieceBytes: 100,
    key: 'k',
    totalBytes: 300,
  });
  return { journal, id };
}

test('a record has the times of its steps, what was copied with its hash, and the events of its time', async () => {
  const { journal, id } = await half();
  const open = await operationRecord(journal, (await journal.operation(id)) ?? assert.fail());
  assert.equal(open.seconds, null);
  await journal.append(id, { type: 'end', outcome: 'committed' });
  const record = (await journal.operation(id)) ?? assert.fail();
  const view = await operationRecord(journal, record);
  assert.equal(view.seconds, ((record.endedAtMs ?? 0) - record.startedAtMs) / 1000);
  assert.deepEqual(
    view.steps.map(({ kind, begunAt, doneAt }) => [kind, begunAt !== null, doneAt !== null]),
    [
      ['snapshot', false, true],
      ['copy-image', true, true],
      ['copy-image', true, false],
      ['wait-ready', false, false],
    ],
  );
  const { begunAt, doneAt } = view.steps[1] ?? assert.fail();
  assert.ok((begunAt ?? '') < (doneAt ?? ''));
  assert.equal(view.copiedBytes, 900n);
  const [first, second] = copiesOf(record);
  assert.deepEqual(
    {
      ...first,
      resumes: first?.resumes.map(({ keptBytes, brokenBytes }) => [keptBytes, brokenBytes]),
    },
    {
      from: '/src/vda',
      to: '/dst/vda',
      totalBytes: 900n,
      copiedBytes: 900n,
      how: 'data',
      root: 'c0ffee',
      verified: null,
      resumes: [[300n, 100n]],
    },
  );
  assert.deepEqual([second?.how, second?.root, second?.copiedBytes], [null, null, 0n]);
  // Not the one from before it began.
  assert.deepEqual(
    view.events.map(({ event }) => event['event']),
    ['MIRROR_RESUMED'],
  );
});

test('a move of two disks is as far as their bytes are, and each disk as far as its own', async () => {
  const { journal, id } = await half();
  const record = (await journal.operation(id)) ?? assert.fail();
  const at = {
    operation: id,
    step: 2,
    kind: 'copy-image',
    state: 'doing',
    report: { doneBytes: 150n, totalBytes: 300n },
  } as const;
  const pace = { limitBytesPerSecond: null, isPaused: false, auto: null };
  const sizes = new Map<string, bigint>();
  const state = { record, at, problem: null, pace, sizes, sight: null, pivot: 'auto' };
  const progress = moveProgress(state);
  assert.deepEqual([progress.doneBytes, progress.totalBytes], [1050n, 1200n]);
  // 90 % of 1950 of 2400, all being read back too: the last tenth is catching up and switching.
  assert.equal(progress.percent, 73);
  assert.deepEqual(
    progress.disks.map(({ target, phase, percent, doneBytes, totalBytes }) => [
      target,
      phase,
      percent,
      doneBytes,
      totalBytes,
    ]),
    [
      ['vda', 'copied', 90, 900n, 900n],
      ['vdb', 'copying', 22, 150n, 300n],
    ],
  );
  // Nobody looked: nothing is made up.
  assert.deepEqual([progress.guestBytesPerSecond, progress.readySeconds], [null, null]);
  assert.equal(progress.convergence.state, 'unknown');

  const all = { ...at, report: { doneBytes: 300n, totalBytes: 300n } };
  assert.equal(moveProgress({ ...state, at: all }).percent, 78);
  const report = { doneBytes: 150n, totalBytes: 300n, phase: 'verifying' } as const;
  const verifying = moveProgress({ ...state, at: { ...at, report } });
  assert.deepEqual(
    [verifying.phase, verifying.percent, verifying.doneBytes, verifying.totalBytes],
    ['verifying', 84, 150n, 300n],
  );
  const comparing = moveProgress({ ...state, at: { ...at, kind: 'check-image', report } });
  assert.deepEqual([comparing.phase, comparing.doneBytes], ['comparing', 150n]);
  const paused = moveProgress({ ...state, pace: { ...pace, isPaused: true } });
  assert.equal(paused.phase, 'paused');
});
