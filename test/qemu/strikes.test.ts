// ferryd is killed at every transaction of its journal and every QMP command of an operation, before and after it took
// effect, on real QEMU with a writing guest; the next one has to finish or undo it. The points are those that the
// operation comes to. All scenarios, and the other deaths, are `npm run torture` (docs/reliability.md).

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { present } from '../../src/std/assert.js';
import type { CaseResult } from '../torture/case.js';
import { Hunt } from '../torture/hunt.js';
import { runLane } from '../torture/lane.js';
import { scenarioNamed } from '../torture/scenarios.js';

/** Three guests under emulation on two cores: they shall not take half of them. */
const breathUs = 12_000;
/** On a busy machine not all of it fits; what was left out is printed, and a build server does not take that. */
const LIMIT_MS = 15 * 60_000;

const lanes = [
  ['a mirrored snapshot, REOPEN and REMOVE', ['snapshot-create (mirrored)', 'REOPEN', 'REMOVE']],
  ['a move', ['move']],
  ['a start that takes mirrors up', ['start (owed mirror)']],
] as const;

// Two guests side by side: one waits while the other one's daemon loads.
const deadlineMs = performance.now() + LIMIT_MS;
const outcomes = lanes.map(async ([name, scenarios]) => {
  const hunts = scenarios.map(
    (one) => new Hunt(scenarioNamed(one), 'daemon', { questions: false }),
  );
  return { hunts, atEnd: await runLane(hunts, { name, disks: 1, deadlineMs, breathUs }) };
});

for (const [i, [name]] of lanes.entries()) {
  test(`ferryd dies at every point of ${name}: the guest goes on, the next ferryd brings it to an end`, async (t) => {
    const { hunts, atEnd } = present(await outcomes[i], 'one for each lane');
    for (const hunt of hunts) report(t, hunt);
    assert.deepEqual(
      hunts.flatMap(({ results }) => results.flatMap(wrongOf)),
      [],
    );
    assert.deepEqual(atEnd, []);
    const struck = hunts.flatMap(({ results }) => results.filter(({ blow }) => blow !== null));
    assert.ok(struck.length > 0, 'nobody was struck');
    // The first transaction is written on a way of its own.
    for (const { scenario, points } of hunts)
      assert.ok(
        [...points].some((point) => point.startsWith('begin ')),
        `${scenario.name}: its beginning is no point`,
      );
    if (process.env['CI']) assert.equal(leftOf(hunts), 0, 'points were left out');
  });
}

const leftOf = (hunts: readonly Hunt[]): number => hunts.reduce((sum, { left }) => sum + left, 0);

function report(t: TestContext, { scenario, results, left }: Hunt): void {
  const counts = { committed: 0, 'rolled-back': 0, nothing: 0 };
  for (const { blow, outcome } of results) if (blow !== null) counts[outcome]++;
  t.diagnostic(
    `${scenario.name}: ${results.length - 1} strikes, ${left} left out; then ${JSON.stringify(counts)}`,
  );
}

const wrongOf = ({ scenario, blow, problems }: CaseResult): readonly string[] =>
  problems.map(({ kind, text }) => `${scenario}, ${blow?.moment} ${blow?.point}: ${kind}: ${text}`);
