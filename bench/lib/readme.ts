// The part of README.md that the bench writes.

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { root } from '../../test/lib/process.js';

const [begin, end] = ['<!-- bench/move.ts writes this -->', '<!-- until here -->'] as const;

/** Puts `text`, in Markdown, between the marks. */
export async function putIntoReadme(text: string): Promise<void> {
  const path = join(root, 'README.md');
  const before = await readFile(path, 'utf8');
  const [from, to] = [before.indexOf(begin), before.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${path}: '${begin}' and '${end}' are not in it`);
  const head = before.slice(0, from + begin.length);
  await writeFile(path, `${head}\n\n${text.trim()}\n\n${before.slice(to)}`);
}
