// Golden files are compared, and are not written where nobody would read the diff.

import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { test } from 'node:test';

import { golden } from './golden.js';
import { root } from './process.js';

const path = `.cache/golden-${process.pid}/text.txt`;

test('a golden file is written when asked for, compared after, and never written under CI', (t) => {
  const before = { CI: process.env['CI'], UPDATE_GOLDEN: process.env['UPDATE_GOLDEN'] };
  t.after(() => {
    rmSync(`${root}.cache/golden-${process.pid}`, { recursive: true, force: true });
    for (const [name, value] of Object.entries(before)) set(name, value ?? null);
  });

  set('CI', null);
  set('UPDATE_GOLDEN', null);
  assert.throws(() => golden(path, 'one\n'), /differs/);

  set('UPDATE_GOLDEN', '1');
  golden(path, 'one\n');
  set('CI', '1');
  assert.throws(() => golden(path, 'two\n'), /UPDATE_GOLDEN is for a person/);
  assert.equal(readFileSync(`${root}${path}`, 'utf8'), 'one\n');

  set('UPDATE_GOLDEN', null);
  golden(path, 'one\n');
  assert.throws(() => golden(path, 'two\n'), /differs/);
});

function set(name: string, value: string | null): void {
  if (value === null) delete process.env[name];
  else process.env[name] = value;
}
