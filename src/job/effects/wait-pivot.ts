// A move that is in step waits here until it switches. Nothing is changed meanwhile, and nothing hangs on it: the guest
// is on its source, the mirror follows.

import { setTimeout as delay } from 'node:timers/promises';

import type { LagSeen } from '../../plan/pivot-when.js';
import { isTimeToPivot, smallSince } from '../../plan/pivot-when.js';
import type { StepOf } from '../../plan/step.js';
import { queryJobs } from '../../qmp/jobs.js';
import type { Monitor } from '../../qmp/monitor.js';
import { QemuError, StateError } from '../../std/errors.js';
import type { Effect, EffectContext } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { needMonitor } from '../world.js';

const LOOK_EVERY_MS = 500;
const HEAR_EVERY_MS = 50;
/** A rotation ends the jobs, and one that is undone starts them again; by then it has come to its end. */
const AWAY_PATIENCE_MS = 60_000;

export const waitPivot: Effect<StepOf<'wait-pivot'>, DomainWorld> = {
  background: true,
  repeatable: true,
  async do({ when, jobIds, fuses = [] }, world, context) {
    let since: number | null = null;
    let lastThereMs = performance.now();
    for (;;) {
      for (const fuse of fuses) await world.fuses.check(fuse);
      const seen = await lookAt(await needMonitor(world, 'wait for the pivot'), jobIds, context);
      if (seen !== 'away') lastThereMs = performance.now();
      else if (
        performance.now() - lastThereMs >= AWAY_PATIENCE_MS ||
        (await areReplaced(world, jobIds))
      )
        throw lost(jobIds);
      if (typeof seen === 'object') {
        since = smallSince(when, since, seen);
        if (context.isPivotSaid() || isTimeToPivot(when, since, seen)) return;
      } else since = null;
      await aWhile(context);
    }
  },
  undo: async () => undefined,
  // That its time came once says nothing of now.
  probe: async () => 'absent',
};

/** A rotation that came to its end made other jobs known, and the rest of the plan anew: there is a wait for those in it. */
async function areReplaced(world: DomainWorld, ids: readonly string[]): Promise<boolean> {
  const known = (await world.record())?.live?.mirrors.map(({ jobId }) => jobId) ?? ids;
  return ids.some((id) => !known.includes(id));
}

/** `behind`: not, or not any more, in step. `away`: a job is not there, or has ended. */
async function lookAt(
  monitor: Monitor,
  ids: readonly string[],
  context: EffectContext,
): Promise<LagSeen | 'behind' | 'away'> {
  const jobs = await queryJobs(monitor).catch((error: unknown) => {
    if (error instanceof QemuError && error.qmpClass === 'NoAnswer') return null;
    throw error;
  });
  // It is busy: the next look finds out.
  if (jobs === null) return 'behind';
  const blocks = ids.flatMap((id) => jobs.get(id)?.block ?? []);
  const isOver = ids.some((id) =>
    ['aborting', 'concluded'].includes(jobs.get(id)?.info.status ?? ''),
  );
  if (blocks.length < ids.length || isOver) {
    context.progress({ doneBytes: 0n, totalBytes: 0n });
    return 'away';
  }
  const doneBytes = blocks.reduce((sum, { offset }) => sum + offset, 0n);
  const totalBytes = blocks.reduce((sum, { len }) => sum + len, 0n);
  // What an error of its target paused is no more in step, although it was READY once (law 11).
  const isInStep = blocks.every((block) => block.ready && block['io-status'] === 'ok');
  context.progress({ doneBytes, totalBytes, ...(isInStep ? { isInStep } : {}) });
  if (!isInStep) return 'behind';
  return { lagBytes: totalBytes - doneBytes, nowMs: Date.now(), steadyMs: performance.now() };
}

/** Until the next look, or until somebody says something. */
async function aWhile({ signal, isPivotSaid }: EffectContext): Promise<void> {
  const wasSaid = isPivotSaid();
  const end = performance.now() + LOOK_EVERY_MS;
  while (performance.now() < end && isPivotSaid() === wasSaid) {
    if (signal.aborted) throw new StateError('OPERATION_ABORTED', 'wait for the pivot: canceled');
    await delay(HEAR_EVERY_MS);
  }
}

const lost = (ids: readonly string[]): QemuError =>
  new QemuError(`wait for the pivot: ${ids.join(', ')} ended without having been told to`, {
    qmpClass: 'JobGone',
  });
