// docs/pains.md promises tests: each that it names is there, and what it does not claim in part or as missing has one.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const root = new URL('../../', import.meta.url);
const rows = readFileSync(new URL('docs/pains.md', root), 'utf8')
  .split('\n')
  .filter((line) => /^\| \d+ \|/.test(line))
  .map((line) => line.split('|').map((cell) => cell.trim()));

test('the table has the twenty-five pains, in order', () => {
  assert.deepEqual(
    rows.map(([, number]) => Number(number)),
    Array.from({ length: 25 }, (_, i) => i + 1),
  );
});

for (const [, number, pain, here = '', shown = ''] of rows) {
  test(`pain ${number} (${pain}) has its proof`, () => {
    const files = [...shown.matchAll(/`([^`]+)`/g)].map(([, file = '']) => file);
    if (!here.startsWith('not yet')) assert.ok(files.length > 0, 'no test is named');
    for (const file of files) assert.ok(existsSync(new URL(file, root)), `${file} is not there`);
  });
}
