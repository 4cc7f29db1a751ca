// What a person may say of an operation that waits for one, case by case.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Entry } from '../journal/entry.js';
import { fold } from '../journal/fold.js';
import type { Plan } from '../plan/step.js';
import type { Resolution } from './resolve.js';
import { resolutionEntry } from './resolve.js';

const record = { kind: 'record' } as const;
const plan: Plan = {
  operation: 'move',
  domain: 'u',
  domainName: 'vm1',
  steps: [record, record, record],
  commitAt: 2,
};

const done = (step: number): Entry => ({ type: 'done', step });
const doing = (step: number): Entry => ({ type: 'doing', step });
const stopped: Entry = { type: 'attention', reason: 'boom' };
const turned: Entry = { type: 'rollback', reason: 'cancelled' };

/** [name, journal, way, word, refusal or null, commit step] */
type Row = readonly [
  string,
  readonly Entry[],
  Resolution['direction'],
  Resolution['was'],
  RegExp | null,
  number?,
];

const rows: readonly Row[] = [
  ['go on', [done(0), stopped], 'forward', null, null],
  ['undo it', [done(0), stopped], 'back', null, null],
  ['the doubtful step is done, go on', [doing(0), stopped], 'forward', 'done', null],
  ['the doubtful step is not done, go on', [doing(0), stopped], 'forward', 'absent', null],
  ['the doubtful step is done, undo it', [doing(0), stopped], 'back', 'done', null],
  ['the commit step is not done, undo it', [done(0), doing(1), stopped], 'back', 'absent', null],
  ['go on undoing', [done(0), turned, stopped], 'back', null, null],
  ['finish it', [done(0), done(1), stopped], 'forward', null, null],
  ['it has ended', [{ type: 'end', outcome: 'committed' }], 'forward', null, /has ended/],
  ['it runs', [done(0)], 'forward', null, /does not wait for a person/],
  ['it went on', [stopped, doing(0)], 'forward', null, /does not wait for a person/],
  ['forward on the way back', [turned, stopped], 'forward', null, /on its way back \(cancelled\)/],
  [
    'back behind the commit step',
    [done(0), done(1), stopped],
    'back',
    null,
    /its commit step 2 \(record\) is done, and what was written since then would be lost/,
  ],
  [
    'back over a commit step said to be done',
    [done(0), doing(1), stopped],
    'back',
    'done',
    /step 2 is its commit step: if that is done, the operation is finished/,
  ],
  ['back where nothing can be undone', [stopped], 'back', null, /none of its steps/, 0],
  ['a word on nothing', [done(0), stopped], 'forward', 'done', /nothing to answer/],
];

for (const [name, journal, direction, was, wrong, commitAt = plan.commitAt] of rows) {
  test(`resolve: ${name}${wrong === null ? '' : ', refused'}`, () => {
    const progress = fold(journal, plan.steps.length);
    const answer = { direction, was, by: 'ann' };
    const made = resolutionEntry(7, { ...plan, commitAt }, progress, answer);
    if (wrong !== null) {
      assert.ok('refusal' in made);
      assert.match(made.refusal.message, /^resolve operation 7 \(move of vm1\): /);
      assert.match(made.refusal.message, wrong);
      return;
    }
    const of = progress.marks.indexOf('doing');
    assert.deepEqual(made, {
      type: 'resolved',
      direction,
      answer: was === null ? null : { of, was },
      by: 'ann',
    });
  });
}
