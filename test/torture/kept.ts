// What an exhaustive run keeps, a line a case, so that a run that was ended goes on.

import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { root } from '../lib/process.js';
import type { Deed } from './blow.js';
import type { CaseResult } from './case.js';
import type { Problem } from './checks.js';

export interface KeptCase extends Omit<CaseResult, 'points'> {
  readonly deed: Deed;
  /** How many points the run came to. */
  readonly points: number;
}

/** Found at the end of a guest's life, so it belongs to no single case. */
export interface KeptProblem {
  readonly disks: number;
  readonly deed: Deed;
  readonly problem: Problem;
}

/** What was run: the product and the torture. */
export type Kept = { readonly build: string } & (
  | { readonly case: KeptCase }
  | { readonly atEnd: KeptProblem }
);

const folder = join(root, '.cache/torture');
const file = join(folder, 'exhaustive.jsonl');

export function keep(line: Kept): void {
  mkdirSync(folder, { recursive: true });
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

export function forget(): void {
  rmSync(file, { force: true });
}

export function keptOf(build: string): readonly Kept[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Kept) // our own lines
    .filter((line) => line.build === build);
}
