// `ferry limit`, `ferry pause` and `ferry resume`: the copies of a move that is under way.

import type { OperationRecord } from '../journal/journal.js';
import type { Step } from '../plan/step.js';
import { RequestError, StateError } from '../std/errors.js';
import type { PaceChange } from './ferry-host.js';
import type { Host } from './host.js';
import type { SaidPace } from './paces.js';
import { canMeasure } from './watching/histograms.js';

/** @throws StateError where nothing is left to copy: what comes then has no pace. */
export async function paceOperation(host: Host, id: number, change: PaceChange): Promise<void> {
  await host.operations.refresh(id);
  const record = host.operations.get(id);
  const what = `pace of operation ${id}`;
  if (record.endedAtMs !== null)
    throw new StateError('OPERATION_INVALID', `${what}: it has ended (${record.outcome})`, {
      next: [`ferry ops show ${id}`],
    });
  if (copiesLeft(record) === 0)
    throw new StateError(
      'OPERATION_INVALID',
      `${what}: it has nothing left to copy, so there is nothing to slow down or stop`,
      { next: [`ferry ops show ${id}`] },
    );
  if (change.auto !== undefined) await checkAuto(host, record, what);
  await host.paces.set(id, changed(paceOf(host, record), change));
}

const changed = (now: SaidPace, { limitBytesPerSecond, isPaused, auto }: PaceChange): SaidPace => ({
  limitBytesPerSecond:
    limitBytesPerSecond === undefined ? now.limitBytesPerSecond : limitBytesPerSecond,
  isPaused: isPaused ?? now.isPaused,
  // A limit that somebody says ends the one that moves by itself.
  auto: auto ?? (limitBytesPerSecond === undefined ? now.auto : null),
});

/** @throws RequestError where the guest's writes cannot be measured. */
async function checkAuto(
  host: Host,
  { domain, plan }: OperationRecord,
  what: string,
): Promise<void> {
  if (plan.full !== undefined)
    throw new RequestError(
      'OPERATION_UNSUPPORTED',
      `${what}: it moves by full mirrors, whose limit does not move by itself; say one instead`,
    );
  const monitor = await host.guestOf(domain).monitor();
  // A move whose QEMU is gone goes on in the next one, which is asked then.
  if (monitor === null || canMeasure(monitor)) return;
  throw new RequestError(
    'OPERATION_UNSUPPORTED',
    `${what}: this QEMU has no block-latency-histogram-set, so what the guest's writes take cannot be seen; say a limit instead`,
  );
}

/** What holds for the copies of an operation: what somebody said, or what was planned. */
export function paceOf(host: Host, record: OperationRecord): SaidPace {
  const step = record.plan.steps.find(
    (one) => one.kind === 'copy-image' || (one.kind === 'start-mirror' && one.sync === 'full'),
  );
  const planned =
    step?.kind === 'copy-image' || step?.kind === 'start-mirror'
      ? (step.bytesPerSecond ?? null)
      : null;
  return host.paces.of(record.id) ?? { limitBytesPerSecond: planned, isPaused: false, auto: null };
}

const copiesLeft = ({ plan, steps, direction }: OperationRecord): number =>
  direction === 'back'
    ? 0
    : plan.steps.filter((step, i) => isCopy(step) && steps[i]?.mark !== 'done').length;

/** Of a move by full mirrors what is waited for is the copy. */
const isCopy = (step: Step): boolean =>
  step.kind === 'copy-image' || (step.kind === 'wait-ready' && step.isPaced === true);
