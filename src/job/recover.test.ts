import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import type { Mark } from '../journal/entry.js';
import type { Probe } from './effect.js';
import { decide } from './recover.js';

// The table of the doc comment is the test: comment and code cannot drift apart.
const source = readFileSync(new URL('../../../src/job/recover.ts', import.meta.url), 'utf8');
const rows = [...source.matchAll(/^ \* {3}(none|doing|done|undone) +(\S+) +(\S+) +(\S+)$/gm)];

test('decide: the table has every row', () => assert.equal(rows.length, 7));

for (const [, mark, probe, forward, back] of rows) {
  for (const [direction, action] of [
    ['forward', forward],
    ['back', back],
  ] as const) {
    test(`decide: ${mark}, ${probe}, ${direction} → ${action}`, () => {
      const answer = probe === '-' ? null : (probe as Probe);
      assert.equal(decide(mark as Mark, answer, direction), action);
    });
  }
}

test('decide: a step that may have begun and was not asked about is not guessed', () => {
  assert.equal(decide('doing', null, 'forward'), 'ask');
  assert.equal(decide('doing', null, 'back'), 'ask');
});
