// What stays of an operation, for a program: when each step was done, how much was copied, what was told of its domain
// meanwhile. Read from the journal when somebody asks.

import type { Journal, OperationRecord, StampedEntry } from '../journal/journal.js';
import { explainStep } from '../plan/explain.js';
import { streamed } from './event-log.js';
import type { OperationRecordView, StepTimes } from './ferry-host.js';
import { copiedOf } from './operations.js';

/** More than a journal keeps. */
const ALL_EVENTS = 1_000_000;

export async function operationRecord(
  journal: Pick<Journal, 'events'>,
  record: OperationRecord,
): Promise<OperationRecordView> {
  const { startedAtMs, endedAtMs, domain, domainName } = record;
  const events = (await journal.events({ limit: ALL_EVENTS })).filter(
    (event) =>
      event.domain === domain &&
      event.atMs >= startedAtMs &&
      (endedAtMs === null || event.atMs <= endedAtMs),
  );
  return {
    seconds: endedAtMs === null ? null : (endedAtMs - startedAtMs) / 1000,
    steps: timesOf(record),
    copiedBytes: record.copies.reduce((sum, copy) => sum + copiedOf(copy), 0n),
    events: events.map(({ seq, atMs, event }) => streamed(seq, atMs, domain, domainName, event)),
  };
}

interface Times {
  readonly begunAt: string | null;
  readonly doneAt: string | null;
  readonly undoneAt: string | null;
}

const never: Times = { begunAt: null, doneAt: null, undoneAt: null };

function timesOf({ plan, entries }: OperationRecord): readonly StepTimes[] {
  const times = stamped(entries);
  return plan.steps.map((step, i) => ({
    kind: step.kind,
    text: explainStep(step),
    ...(times.get(i) ?? never),
  }));
}

/** The last time of each: a step is done again after its attempt failed. */
function stamped(entries: readonly StampedEntry[]): ReadonlyMap<number, Times> {
  const times = new Map<number, Times>();
  for (const { atMs, entry } of entries) {
    const at = new Date(atMs).toISOString();
    // From there on the numbers are those of other steps.
    if (entry.type === 'replan')
      for (const step of times.keys()) if (step >= entry.from) times.delete(step);
    if (entry.type !== 'doing' && entry.type !== 'done' && entry.type !== 'undone') continue;
    const name = ({ doing: 'begunAt', done: 'doneAt', undone: 'undoneAt' } as const)[entry.type];
    times.set(entry.step, { ...(times.get(entry.step) ?? never), [name]: at });
  }
  return times;
}
