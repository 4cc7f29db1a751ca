// One operation through as many lives of the daemon as it takes, and what has to hold after each of them.

import assert from 'node:assert/strict';

import type { DomainRecord } from '../../src/domain/record.js';
import type { Effects } from '../../src/job/effect.js';
import type { Outcome, RunnerDeps } from '../../src/job/runner.js';
import { resume } from '../../src/job/runner.js';
import type { Entry } from '../../src/journal/entry.js';
import type { Journal, OperationRecord } from '../../src/journal/journal.js';
import type { Plan } from '../../src/plan/step.js';
import { present } from '../../src/std/assert.js';
import { NeedsOperatorError } from '../../src/std/errors.js';
import type { Striker } from './faults.js';
import { struck } from './faults.js';

export interface Stage<W extends object> {
  readonly plan: Plan;
  readonly world: W;
  readonly effects: Effects<W>;
  readonly striker: Striker;
  /** The journal of the first life. */
  readonly journal: Journal;
  /** What a process death leaves of a journal: opened again, under the same world. */
  readonly reopen: (journal: Journal) => Promise<Journal>;
  /** Asked between two lives and at the end: what has to be true even then. */
  readonly holds?: (journal: Journal) => Promise<void>;
  readonly deps?: Partial<RunnerDeps<W>>;
}

export interface Story {
  /** What the last life said. */
  readonly outcome: Outcome['outcome'];
  /** Errors that the lives ended with, crashes included. */
  readonly errors: readonly Error[];
  /** The error of a rollback as its caller saw it; null when it committed. */
  readonly error: Error | null;
  readonly operation: OperationRecord;
  readonly journal: Journal;
}

const longestStory = 8;

/** Runs until the operation has ended: a crash restarts the daemon, a person says go on to what waits. */
export async function live<W extends object>(stage: Stage<W>): Promise<Story> {
  const { plan, striker, effects } = stage;
  const world = struck(stage.world, striker);
  const errors: Error[] = [];
  let journal = stage.journal;
  for (let life = 0; life < longestStory; life++) {
    const deps = { effects, world, ...stage.deps, journal: struck(journal, striker) };
    try {
      const [open] = await journal.openOperations();
      const [last] = await journal.operations();
      const id = open?.id ?? last?.id ?? (await deps.journal.begin(plan));
      const outcome = await resume(id, plan, deps);
      assert.equal(striker.dead, false, 'a runner that was killed said how it ended');
      await stage.holds?.(journal);
      const operation = present(await journal.operation(id), 'it was begun');
      orderly(
        operation.entries.map(({ entry }) => entry),
        plan,
      );
      return {
        outcome: outcome.outcome,
        errors,
        error: 'error' in outcome ? outcome.error : null,
        operation,
        journal,
      };
    } catch (error) {
      if (!(error instanceof Error) || error.name === 'AssertionError') throw error;
      const known =
        striker.dead || error instanceof NeedsOperatorError || striker.thrown.includes(error);
      if (!known) throw error;
      errors.push(error);
    }
    if (striker.dead) {
      journal = await stage.reopen(journal);
      striker.restart();
    }
    await stage.holds?.(journal);
  }
  throw new Error(`no end after ${longestStory} lives; the last said: ${errors.at(-1)?.message}`);
}

/** What every journal of an operation that ended looks like. */
function orderly(entries: readonly Entry[], plan: Plan): void {
  const at = (wanted: (entry: Entry) => boolean): number => entries.findIndex(wanted);
  const rollback = at(({ type }) => type === 'rollback');
  const undone = at(({ type }) => type === 'undone');
  const committed = at((entry) => entry.type === 'done' && entry.step === plan.commitAt - 1);
  assert.ok(
    undone === -1 || (rollback !== -1 && rollback < undone),
    'an undo before the entry rollback',
  );
  assert.ok(rollback === -1 || committed === -1, 'a rollback of a commit');
  assert.equal(
    entries.filter(({ type }) => type === 'rollback').length,
    rollback === -1 ? 0 : 1,
    'two rollbacks',
  );
  assert.equal(
    at(({ type }) => type === 'end'),
    entries.length - 1,
    'entries after the end',
  );
  for (const [i] of plan.steps.entries()) {
    const doing = entries.filter((entry) => entry.type === 'doing' && entry.step === i).length;
    assert.ok(doing <= 1, `step ${i} was begun ${doing} times`);
  }
}

/** The path that the record's definition names for a disk: which side a start would use. */
export function namedImage(record: DomainRecord | null, target: string): string | null {
  const source = record?.persistent?.disks.find((disk) => disk.target === target)?.source;
  return source !== null && source !== undefined && 'path' in source ? source.path : null;
}
