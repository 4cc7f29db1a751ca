// Every scenario at every point with every death. What was done is kept by the build that it was done with, so that a run
// that was ended goes on; the table of docs/reliability.md is made of what is kept.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { root } from '../lib/process.js';
import type { Deed } from './blow.js';
import type { CaseResult } from './case.js';
import { Hunt, keyOf } from './hunt.js';
import { forget, keep, keptOf, type Kept } from './kept.js';
import { runLane } from './lane.js';
import { say } from './say.js';
import { scenarios, type Scenario } from './scenarios.js';
import { writeTable } from './table.js';

export interface Exhaustive {
  readonly only: readonly string[];
  readonly disks: readonly number[];
  readonly deaths: readonly Deed[];
  readonly lanes: number;
  readonly hours: number | null;
  readonly fresh: boolean;
}

/** One after the other on a rig: scenarios with the same number of disks and the same death. */
interface Work {
  readonly disks: number;
  readonly deed: Deed;
  readonly hunts: readonly Hunt[];
}

/** False: something was lost, left over, or did not come to its end. */
export async function exhaustive(options: Exhaustive): Promise<boolean> {
  if (options.fresh) forget();
  const build = buildOf();
  const kept = keptOf(build);
  say(`build ${build}: ${kept.length} cases kept`);
  const deadlineMs = options.hours === null ? null : performance.now() + options.hours * 3_600_000;
  const queue = worksOf(options, kept);
  const worker = async (): Promise<void> => {
    for (let work = queue.shift(); work !== undefined; work = queue.shift())
      await doWork(work, build, deadlineMs);
  };
  await Promise.all(Array.from({ length: options.lanes }, worker));
  return writeTable(keptOf(build), build);
}

function worksOf({ only, disks, deaths }: Exhaustive, kept: readonly Kept[]): Work[] {
  const wanted = scenarios.filter(({ name }) => only.length === 0 || only.includes(name));
  // A move has as many steps as the chain is deep, so it is not mixed with what makes chains deeper.
  const groups = [
    wanted.filter(({ name }) => name !== 'move'),
    wanted.filter(({ name }) => name === 'move'),
  ].filter(({ length }) => length > 0);
  const kinds = disks.flatMap((count) => groups.map((group) => ({ count, group })));
  return deaths.flatMap((deed) =>
    kinds.map(({ count, group }) => ({
      disks: count,
      deed,
      hunts: group.map(
        (scenario) =>
          new Hunt(scenario, deed, {
            questions: deed === 'daemon' || deed === 'qemu',
            done: doneOf(kept, scenario, count, deed),
          }),
      ),
    })),
  );
}

function doneOf(
  kept: readonly Kept[],
  { name }: Scenario,
  disks: number,
  deed: Deed,
): ReadonlySet<string> {
  const keys = kept.flatMap((line) => {
    if (!('case' in line)) return [];
    const { scenario, disks: count, deed: by, blow } = line.case;
    return scenario === name && count === disks && by === deed && blow !== null
      ? [keyOf(blow)]
      : [];
  });
  return new Set(keys);
}

async function doWork({ disks, deed, hunts }: Work, build: string, deadlineMs: number | null) {
  const found = await runLane(hunts, {
    name: `exhaustive-${deed}-${disks}`,
    disks,
    deadlineMs,
    onCase: ({ points, ...result }, ms) => {
      if (result.blow === null || result.struck)
        keep({ build, case: { ...result, deed, points: points.length } });
      tell(result, deed, ms, hunts);
    },
  });
  for (const problem of found) keep({ build, atEnd: { disks, deed, problem } });
}

function tell(
  { scenario, disks, blow, struck, outcome, problems }: Omit<CaseResult, 'points'>,
  deed: Deed,
  ms: number,
  hunts: readonly Hunt[],
): void {
  const left = hunts.reduce((sum, hunt) => sum + hunt.left, 0);
  const at = blow === null ? 'unharmed' : `${blow.moment} ${blow.point}`;
  say(
    `${deed} ${disks} ${scenario}: ${at}${struck || blow === null ? '' : ' (not reached)'}: ${outcome}, ${Math.round(ms)} ms, ${left} left`,
  );
  for (const { kind, text } of problems) say(`  !! ${kind}: ${text}`);
}

/** Of the product and of the torture: a result belongs to what was run. */
function buildOf(): string {
  const hash = createHash('sha256');
  for (const part of ['dist/src', 'dist/test/torture']) {
    const names = readdirSync(join(root, part), { recursive: true, encoding: 'utf8' }).toSorted();
    for (const name of names.filter((one) => one.endsWith('.js') && !one.endsWith('.test.js')))
      hash.update(name).update(readFileSync(join(root, part, name)));
  }
  return hash.digest('hex').slice(0, 12);
}
