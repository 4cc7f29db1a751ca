// The way back of a move as plans: which layers are mirrored over which, what is refused, and what stays in the record.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { asItIs } from '../domain/move-form.js';
import type { Layer } from '../block/layer.js';
import { localPath } from '../block/layer.js';
import type { DomainRecord, OwedMirror } from '../domain/record.js';
import { applyChange } from '../domain/record.js';
import { diskXml, domain } from '../domain/testing/samples.js';
import type { MoveWay, UndoWindow } from '../domain/undo-window.js';
import { present } from '../std/assert.js';
import { messageOf } from '../std/errors.js';
import { explainStep } from './explain.js';
import type { OpenMove } from './move-again.js';
import { moveAgain, rolesOfMove } from './move-again.js';
import { isRefusal, jobObstacle } from './refuse.js';
import type { Plan, Refusal } from './step.js';
import { checkPlan } from './step.js';
import { planCloseWindow, planUndo, planWindow, undone, windowObstacle } from './undo-window.js';

const layer = (path: string, index: number): Layer => ({
  source: { type: 'file', path },
  format: 'qcow2',
  index,
});

/** Rotated once: `/a/vda.m` is sealed and equal to `/b/vda.m`. */
const way: MoveWay = {
  target: 'vda',
  driver: { cache: null, io: null, discard: null, detectZeroes: null },
  from: [layer('/a/vda', 1), layer('/a/base', 2)],
  to: [layer('/b/vda', 5), layer('/b/base', 6)],
  epochs: [
    { source: layer('/a/vda.m', 3), twin: layer('/b/vda.m', 4) },
    { source: layer('/a/vda.m.1', 7), twin: layer('/b/vda.m.1', 8) },
  ],
  sizeBytes: 1n << 20n,
  clusterSizeBytes: 65_536,
};
const window: UndoWindow = {
  operation: 3,
  untilMs: Date.UTC(2026, 0, 2, 3, 4, 5),
  ways: [way],
  trim: false,
  closing: null,
};
const images = [...way.epochs.map(({ twin }) => twin).toReversed(), ...way.to];
const persistent = domain(diskXml('vda', { path: '/b/vda.m.1' }));
const disk = present(persistent.disks[0], 'it has one');
const off: DomainRecord = {
  uuid: persistent.uuid,
  name: 'vm1',
  persistent,
  live: null,
  autostart: false,
  snapshots: [],
  currentSnapshot: null,
  lastState: { state: 'shutoff', reason: 'shutdown' },
  chains: [{ target: 'vda', images: images.map((image) => ({ ...image, index: null })) }],
  owed: [],
  windows: [window],
};
const running: DomainRecord = {
  ...off,
  live: {
    id: 1,
    pid: 1,
    startTicks: 1,
    definition: { ...persistent, disks: [{ ...disk, index: 8, backing: images.slice(1) }] },
    state: { state: 'running', reason: 'booted' },
    nextIndex: 9,
    mirrors: [],
    rebooting: false,
  },
};

function planned(plan: Plan | Refusal): Plan {
  assert.ok(!isRefusal(plan), isRefusal(plan) ? messageOf(plan.refusal) : '');
  checkPlan(plan);
  return plan;
}

const opened = (plan: Plan): readonly string[] =>
  plan.steps.flatMap((step) =>
    step.kind === 'open-node'
      ? [`${explainStep(step)} over ${step.options.backing ?? 'nothing'}`]
      : [],
  );

const window8 = (): Plan => planned(planWindow({ record: running, window, nextIndex: 9 }));

test('only the newest layer is mirrored; what both sides have sealed is opened below its target', () => {
  const plan = window8();
  assert.deepEqual(opened(plan), [
    'open /a/base as ferry-12-format over nothing',
    'open /a/vda as ferry-11-format over ferry-12-format',
    'open /a/vda.m as ferry-9-format over ferry-5-format',
    'open /a/vda.undo-3 as ferry-10-format over ferry-9-format',
  ]);
  const texts = plan.steps.map(explainStep);
  assert.ok(texts.includes('make /a/vda.undo-3 over /a/vda.m'), texts.join('\n'));
  assert.ok(texts.includes('mirror ferry-8-format to ferry-10-format (job copy-vda-10)'));
  assert.ok(
    texts.includes('keep the way back of operation 3 open until 2026-01-02T03:04:05Z'),
    texts.join('\n'),
  );
  assert.equal(plan.steps[plan.commitAt - 1]?.kind, 'wait-window');
});

const openMove = (plan: Plan, kind: string): OpenMove => ({
  operation: 4,
  plan,
  done: new Set(
    plan.steps
      .slice(
        0,
        plan.steps.findIndex((step) => step.kind === kind),
      )
      .keys(),
  ),
});

test('a QEMU that comes after a dead one gets the same nodes, and a target that is made anew', () => {
  const plan = window8();
  const again = moveAgain(openMove(plan, 'wait-window'), 7);
  assert.deepEqual(
    again.disks[0]?.images.map(({ index }) => index),
    [8, 4, 5, 6],
  );
  assert.equal(again.nextIndex, 13);
  assert.deepEqual(again.disks[0]?.mirror?.attach.before.map(explainStep), [
    'make /a/vda.undo-3 anew over /a/vda.m',
  ]);
  // The mirror was begun and nobody knows how far it came: its target is not trusted either (law 2).
  const begun = moveAgain(openMove(plan, 'start-mirror'), 7);
  assert.equal(begun.disks[0]?.mirror, null);
  assert.deepEqual(begun.open.slice(-2).map(explainStep), [
    'make /a/vda.undo-3 anew over /a/vda.m',
    'open /a/vda.undo-3 as ferry-10-format',
  ]);
});

test('law 13: nobody opens the old side while the way back is open', () => {
  const roles = rolesOfMove(openMove(window8(), 'wait-window'), 7);
  const unfinished = roles.filter(({ role }) => role === 'unfinished').map(({ path }) => path);
  assert.deepEqual(unfinished.toSorted(), ['/a/base', '/a/vda', '/a/vda.m', '/a/vda.undo-3']);
  for (const { live } of roles) assert.equal(live, '/b/vda.m.1');
  assert.match(messageOf(jobObstacle(disk, running)), /close it first \('ferry undo 3 --close'\)/);
});

test('the way back swings the lowest layer, commits into the old top layer, and leaves nothing of its own', () => {
  const plan = undone(window8(), running, window);
  checkPlan(plan);
  const pivots = plan.steps.flatMap((step) => (step.kind === 'pivot' ? [step] : []));
  const [back, merge] = pivots.map(({ disks }) => disks[0]);
  assert.equal(back?.swing?.['node-name'], 'ferry-9-format');
  assert.equal(back.swing.backing, 'ferry-11-format');
  assert.equal(merge?.to, 'ferry-11-format');
  const removed = plan.steps.flatMap((step) => (step.kind === 'remove-file' ? [step.path] : []));
  assert.deepEqual(removed, ['/a/vda.undo-3', '/a/vda.m', '/a/vda.m.1']);
  const after = pivots
    .flatMap(({ changes = [] }) => changes)
    .reduce<DomainRecord | null>(applyChange, running);
  assert.equal(after?.windows, undefined);
  assert.deepEqual(
    after?.chains[0]?.images.map(({ source }) => localPath(source)),
    ['/a/vda', '/a/base'],
  );
});

test('a closed window commits into the copies, with QEMU or without, and is forgotten', () => {
  for (const record of [running, off]) {
    const plan = planned(planCloseWindow(record, { ...window, closing: 'its time is over' }));
    const removed = plan.steps.flatMap((step) => (step.kind === 'remove-file' ? [step.path] : []));
    assert.deepEqual(removed, ['/b/vda.m.1', '/b/vda.m']);
    const after = plan.steps
      .flatMap(({ changes = [] }) => changes)
      .reduce<DomainRecord | null>(applyChange, record);
    assert.equal(after?.windows, undefined);
    assert.equal(after?.chains[0]?.images.length, 2);
  }
});

test('a domain that is off gets the indexes of its next QEMU, above those that are taken', () => {
  const plan = planned(planWindow({ record: off, window, nextIndex: 20 }));
  const { images: next } = present(moveAgain(openMove(plan, 'create-image'), 7).disks[0], 'a disk');
  assert.deepEqual(
    next.map(({ index }) => index),
    [20, 21, 22, 23],
  );
});

test('a chain that somebody changed is not guessed about', () => {
  const changed = { ...off, chains: [{ target: 'vda', images: images.slice(1) }] };
  for (const plan of [
    planWindow({ record: changed, window, nextIndex: 1 }),
    planCloseWindow(changed, window),
  ]) {
    assert.ok(isRefusal(plan));
    assert.match(messageOf(plan.refusal), /is not what the move left: it was \/b\/vda\.m\.1 ← /);
  }
});

const owed = {
  record: { target: 'vda' },
  image: layer('/a/vda.undo-3', 0),
} as unknown as OwedMirror; // only what is looked at

for (const [name, record, want] of [
  ['of a domain that is off', off, /is shut off, and what its guest wrote last .* only; start it/],
  ['whose mirror is not in step', running, /on the old side is not READY: .*; try again/],
  [
    'whose mirror is put off',
    { ...running, owed: [owed] },
    /taken up again once \/a\/vda\.undo-3 is back/,
  ],
] as const) {
  test(`the way back ${name} is not gone`, () => {
    const plan = planUndo({ record, window, open: openMove(window8(), 'wait-window') });
    assert.ok(isRefusal(plan));
    assert.match(messageOf(plan.refusal), want);
  });
}

const flat = { flatten: true, format: 'raw' } as const;

for (const [name, record, keepSeconds, undoSeconds, form, want] of [
  ['none', off, 0, null, flat, null],
  ['one', running, null, 60, {}, null],
  ['one of a source that is kept for a time', running, 60, 60, {}, null],
  ['one of a domain that is off', off, null, 60, {}, /shut off, .*; move without --undo-window/],
  ['one of a transient domain', { ...running, persistent: null }, null, 60, {}, /is transient/],
  ['one of a source that goes', running, 0, 60, {}, /say --keep-source TIME/],
  ['one of images that become others', running, null, 60, flat, /which --flatten and --format/],
] as const) {
  test(`a move with an undo window: ${name}`, () => {
    const found = windowObstacle(
      record,
      { keepSeconds, shared: false },
      { ...asItIs, ...form, undoSeconds },
    );
    if (want === null) assert.equal(found, null);
    else assert.match(messageOf(found), want);
  });
}
