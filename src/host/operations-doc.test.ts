// docs/operations.md is true: every operation and every state of one has its place there, and nothing else claims to.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { operations } from '../plan/operation.js';
import { operationStatuses } from './ferry-host.js';

const url = new URL('../../../docs/operations.md', import.meta.url);
const text = readFileSync(url, 'utf8');

/** Names in code spans that begin a row or a heading, in the sections whose title matches. */
function namesIn(title: RegExp): readonly string[] {
  const sections = text
    .split(/^## /m)
    .filter((section) => title.test(section.split('\n')[0] ?? ''));
  const found = sections.flatMap((section) => [...section.matchAll(/^(?:\| |### )`([^`]+)`/gm)]);
  return [...new Set(found.map((match) => match[1] ?? ''))].toSorted();
}

test('every operation of the code has its row or heading, and there is no other', () => {
  assert.deepEqual(namesIn(/^The operations/), Object.keys(operations).toSorted());
});

test('every state of an operation has its row, and there is no other', () => {
  assert.deepEqual(namesIn(/^States/), [...operationStatuses].toSorted());
});

test('CANARY: a name that is not there is missed', () => {
  assert.ok(!namesIn(/^The operations/).includes('make tea'));
  assert.deepEqual(namesIn(/^No such section/), []);
});
