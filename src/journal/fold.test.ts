import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';

import type { Answer, Entry } from './entry.js';
import { fold } from './fold.js';

const stepCount = 4;
const step = fc.nat({ max: stepCount - 1 });
const mark: fc.Arbitrary<Entry> = fc.record({
  type: fc.constantFrom('doing' as const, 'done' as const, 'undone' as const),
  step,
});
const turn: fc.Arbitrary<Entry> = fc.record({
  type: fc.constant('rollback' as const),
  reason: fc.string(),
});
const pause: fc.Arbitrary<Entry> = fc.record({
  type: fc.constant('attention' as const),
  reason: fc.string(),
});
const answer: fc.Arbitrary<Answer> = fc.record({
  of: step,
  was: fc.constantFrom('done' as const, 'absent' as const),
});
const word: fc.Arbitrary<Entry> = fc.record({
  type: fc.constant('resolved' as const),
  direction: fc.constantFrom('forward' as const, 'back' as const),
  answer: fc.oneof(fc.constant(null), answer),
  by: fc.string(),
});
const end: fc.Arbitrary<Entry> = fc.record({
  type: fc.constant('end' as const),
  outcome: fc.constantFrom('committed' as const, 'rolled-back' as const),
});
const open = fc.array(fc.oneof(mark, turn, pause, word));

test('fold: the last entry of a step is its mark', () => {
  fc.assert(
    fc.property(open, (entries) => {
      const { marks } = fold(entries, stepCount);
      for (const [i, found] of marks.entries()) {
        const last = entries.findLast((entry) => 'step' in entry && entry.step === i);
        assert.equal(found, last?.type ?? 'none');
      }
    }),
  );
});

const turnsRound = (entry: Entry): boolean =>
  entry.type === 'rollback' || (entry.type === 'resolved' && entry.direction === 'back');

test('fold: only a rollback, or a person, turns round, for good, and the first reason stays', () => {
  fc.assert(
    fc.property(open, (entries) => {
      const first = entries.find(turnsRound);
      const { direction, reason } = fold(entries, stepCount);
      assert.equal(direction, first === undefined ? 'forward' : 'back');
      const why = first?.type === 'resolved' ? `rolled back by ${first.by}` : null;
      assert.equal(reason, first?.type === 'rollback' ? first.reason : why);
    }),
  );
});

test('fold: an operation waits for a person until anything else is written', () => {
  fc.assert(
    fc.property(open, (entries) => {
      const last = entries.at(-1);
      const waits = last?.type === 'attention' ? last.reason : null;
      assert.equal(fold(entries, stepCount).attention, waits);
    }),
  );
});

test('fold: a word of a person lasts until its step gets a mark or the operation stops again', () => {
  fc.assert(
    fc.property(open, (entries) => {
      const at = entries.findLastIndex(({ type }) => type === 'resolved');
      const last = entries[at];
      const given = last?.type === 'resolved' ? last.answer : null;
      const used = entries
        .slice(at + 1)
        .some((e) => e.type === 'attention' || ('step' in e && e.step === given?.of));
      assert.deepEqual(fold(entries, stepCount).answer, used ? null : given);
    }),
  );
});

test('fold: writing an entry twice changes nothing', () => {
  fc.assert(
    fc.property(open, (entries) => {
      const twice = entries.flatMap((entry) => [entry, entry]);
      assert.deepEqual(fold(twice, stepCount), fold(entries, stepCount));
    }),
  );
});

test('fold: the end is the end', () => {
  fc.assert(
    fc.property(open, end, fc.oneof(mark, turn, pause, end), (entries, last, more) => {
      const ended = fold([...entries, last], stepCount);
      assert.equal(ended.ended, 'outcome' in last ? last.outcome : null);
      assert.equal(ended.attention, null);
      assert.throws(() => fold([...entries, last, more], stepCount), /after the end/);
    }),
  );
});

test('fold: a step that the plan does not have is a bug', () => {
  assert.throws(() => fold([{ type: 'done', step: stepCount }], stepCount), /does not have/);
});
