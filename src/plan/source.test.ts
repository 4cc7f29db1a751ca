// What may be asked for the source of a move, and which images a move leaves.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Layer } from '../block/layer.js';
import { keptForEver } from '../domain/source-fate.js';
import type { MoveWay } from '../domain/undo-window.js';
import { checkFate, isUnverified, leftBy, withFate } from './source.js';
import type { Plan } from './step.js';

for (const [name, keepSeconds, shared, verify, want] of [
  ['kept for ever', null, false, 'none', null],
  ['deleted at its end', 0, true, 'sample', null],
  ['kept for a day', 86_400, false, 'full', null],
  ['layers below one that is kept', null, true, 'full', /--delete-shared .* it is kept; say/],
  ['of copies that are not verified', 0, false, 'none', /with --verify none nothing proves/],
  ['the same later', 60, true, 'none', /with --verify none nothing proves/],
] as const) {
  test(`a source ${name}: ${want === null ? 'may be asked for' : 'is refused'}`, () => {
    const refused = checkFate('vm1', { keepSeconds, shared }, verify);
    if (want === null) assert.equal(refused, null);
    else assert.match(refused?.message ?? '', want);
  });
}

const layer = (path: string, index: number): Layer => ({
  source: { type: 'file', path },
  format: 'qcow2',
  index,
});

const plan: Plan = {
  operation: 'move',
  domain: 'u',
  domainName: 'vm1',
  steps: [],
  commitAt: 0,
};

test('a move leaves its own layers, newest first, the former top layer, and what is below', () => {
  const epochs = [1, 2].map((n) => ({
    source: layer(`/a/vda.move.${n}`, n),
    twin: layer(`/b/vda.move.${n}`, n + 2),
  }));
  const from = [layer('/a/vda', 7), layer('/a/base', 8)];
  const way = { target: 'vda', from, epochs } as unknown as MoveWay; // only what is looked at
  assert.deepEqual(leftBy({ ...plan, move: { ways: [way], rotateBytes: null } }), [
    { target: 'vda', own: ['/a/vda.move.2', '/a/vda.move.1', '/a/vda'], below: ['/a/base'] },
  ]);
  assert.deepEqual(leftBy({ ...plan, offline: { ways: [{ target: 'vda', from, to: [] }] } }), [
    { target: 'vda', own: ['/a/vda'], below: ['/a/base'] },
  ]);
  assert.deepEqual(leftBy(plan), []);
});

test('a plan has its fate unless that is to be kept for ever; a refusal stays one', () => {
  const refusal = { refusal: new Error('no') };
  assert.equal(withFate(plan, keptForEver), plan);
  assert.equal(withFate(refusal, { keepSeconds: 0, shared: false }), refusal);
  const fate = { keepSeconds: 60, shared: true };
  assert.deepEqual(withFate(plan, fate), { ...plan, source: fate });
});

test('one copy that is not read back makes a move unverified', () => {
  const copy = { kind: 'copy-image', from: '/a', to: '/b', format: 'raw', backing: null } as const;
  assert.equal(isUnverified({ ...plan, steps: [copy, { ...copy, verify: 'sample' }] }), false);
  assert.equal(isUnverified({ ...plan, steps: [copy, { ...copy, verify: 'none' }] }), true);
});
