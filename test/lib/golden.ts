// Golden files: what a text was when somebody last looked at it and agreed. UPDATE_GOLDEN=1 writes them anew, to be
// read as a diff; where CI is set that is refused, because nobody would read it there.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { root } from './process.js';

/** Compares `text` with the file at `path`, which is relative to the checkout. */
export function golden(path: string, text: string): void {
  const file = join(root, path);
  if (process.env['UPDATE_GOLDEN'] === '1') {
    assert.ok(
      !process.env['CI'],
      `${path}: UPDATE_GOLDEN is for a person who reads the diff; unset it where CI is set`,
    );
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return;
  }
  assert.equal(
    text,
    recorded(file),
    `${path} differs; if that is right, run again with UPDATE_GOLDEN=1 and read the diff`,
  );
}

function recorded(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null; // the one code that means "not recorded yet"
    throw error;
  }
}
