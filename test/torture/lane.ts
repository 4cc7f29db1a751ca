// Works through hunts on one rig, in an order in which one struck operation leaves the guest where the next one begins.

import { messageOf } from '../../src/std/errors.js';
import { withLab } from '../lib/lab.js';
import type { Verdict } from '../lib/verify.js';
import { strike, type CaseResult } from './case.js';
import type { Problem } from './checks.js';
import type { Hunt } from './hunt.js';
import { Rig } from './rig.js';
import { stateOf, viewOf } from './view.js';

export interface LaneOptions {
  readonly name: string;
  readonly disks: number;
  /** Null: until all hunts are over. On the clock of `performance.now()`. */
  readonly deadlineMs: number | null;
  /** What the guest pauses between writes; left out: as the rig has it. */
  readonly breathUs?: number;
  readonly onCase?: (result: CaseResult, ms: number) => void;
}

/** How many cases may go wrong before a lane gives up. */
const MAX_FAILURES = 10;

/**
 * Until all hunts are over. After a case that went wrong the next one has a lab of its own.
 *
 * Resolves with what was found at the end of guests' lives, and so belongs to no single case.
 */
export async function runLane(
  hunts: readonly Hunt[],
  options: LaneOptions,
): Promise<readonly Problem[]> {
  const found: Problem[] = [];
  for (let failures = 0; failures < MAX_FAILURES; failures++) {
    if (hunts.every((hunt) => hunt.isOver) || isLate(options)) break;
    await withLab(options.name, async (lab) => {
      await using rig = await Rig.open(lab, options.disks, options.breathUs);
      found.push(...(await untilFailure(rig, hunts, options)));
    });
  }
  return found;
}

const isLate = ({ deadlineMs }: LaneOptions): boolean =>
  deadlineMs !== null && performance.now() >= deadlineMs;

async function untilFailure(
  rig: Rig,
  hunts: readonly Hunt[],
  options: LaneOptions,
): Promise<readonly Problem[]> {
  const found: Problem[] = [];
  for (;;) {
    found.push(...lostAtEnd(await rig.ensureLife()));
    const open = hunts.filter((hunt) => !hunt.isOver);
    if (open.length === 0 || isLate(options)) break;
    const at = stateOf(await viewOf(rig));
    const fits = open.filter(({ scenario }) => scenario.from === at);
    const hunt = mostDue(fits.length > 0 ? fits : open);
    const start = performance.now();
    const result = await attempt(rig, hunt);
    hunt.take(result);
    options.onCase?.(result, performance.now() - start);
    if (result.problems.length > 0) return found;
  }
  return [...found, ...lostAtEnd(await rig.endLife())];
}

const mostDue = (hunts: readonly Hunt[]): Hunt =>
  hunts.reduce((most, hunt) => (hunt.left > most.left ? hunt : most));

const lostAtEnd = (verdict: Verdict | null): readonly Problem[] =>
  verdict === null || verdict.ok
    ? []
    : [{ kind: 'lost', text: `at the end of a guest's life: ${JSON.stringify(verdict)}` }];

async function attempt(rig: Rig, hunt: Hunt): Promise<CaseResult> {
  const blow = hunt.next();
  try {
    return await strike(rig, hunt.scenario, blow);
  } catch (error) {
    const { scenario } = hunt;
    return {
      scenario: scenario.name,
      disks: rig.disks,
      blow,
      struck: true,
      outcome: 'nothing',
      problems: [{ kind: 'hang', text: `the harness gave up: ${messageOf(error)}` }],
      points: [],
    };
  }
}
