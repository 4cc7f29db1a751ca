// The way back of a move is kept open here. The guest is on the new side and the mirror to the old one follows, so nothing
// hangs on it; what comes behind it ends the mirrors.

import { setTimeout as delay } from 'node:timers/promises';

import type { Change } from '../../domain/record.js';
import type { StepOf } from '../../plan/step.js';
import { queryJobs } from '../../qmp/jobs.js';
import type { Monitor } from '../../qmp/monitor.js';
import { BusyError, QemuError, StateError } from '../../std/errors.js';
import type { Effect, EffectContext } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { needMonitor } from '../world.js';

const LOOK_EVERY_MS = 500;
const HEAR_EVERY_MS = 50;
/** Law 9. What lies dirty in the page cache is written out first. */
const ANSWER_TIMEOUT_MS = 10_000;

type WaitWindow = StepOf<'wait-window'>;

export const waitWindow: Effect<WaitWindow, DomainWorld> = {
  background: true,
  repeatable: true,
  async do(step, world, context) {
    for (;;) {
      const monitor = await needMonitor(world, 'keep the way back open');
      await checkNotOwed(step, world);
      const isOver = (await reasonOf(step, monitor, context)) !== null;
      // Whoever ends the job of a target that hangs stops the guest with it.
      if (isOver && (await doAnswer(step, world))) return;
      await aWhile(step, context);
    }
  },
  undo: async () => undefined,
  // That it was over once says nothing of now.
  probe: async () => 'absent',
  async changes(step, world, context) {
    const monitor = await world.monitor();
    const why = monitor === null ? null : await reasonOf(step, monitor, context);
    return [closed(step, why ?? 'its time is over')];
  },
};

/** What ended with its QEMU is not lost: the next one may have it already, or it is put off until its storage is back. */
async function checkNotOwed({ jobIds }: WaitWindow, world: DomainWorld): Promise<void> {
  const owed = (await world.record())?.owed ?? [];
  if (owed.some(({ record }) => jobIds.includes(record.jobId)))
    throw new QemuError('keep the way back open: its mirror ended with its QEMU', {
      qmpClass: 'Gone',
    });
}

const closed = ({ move }: WaitWindow, why: string): Change => ({
  change: 'close-window',
  operation: move,
  why,
});

/** Why it is over; null: it is not. */
async function reasonOf(
  { untilMs, jobIds }: WaitWindow,
  monitor: Monitor,
  context: EffectContext,
): Promise<string | null> {
  if (context.isPivotSaid()) return 'somebody closed it';
  if (Date.now() >= untilMs) return 'its time is over';
  const jobs = await queryJobs(monitor).catch((error: unknown) => {
    if (error instanceof QemuError && error.qmpClass === 'NoAnswer') return null;
    throw error;
  });
  if (jobs === null) return null;
  const found = jobIds.map((id) => jobs.get(id));
  const lost = found.find(
    (job) => job === undefined || ['aborting', 'concluded'].includes(job.info.status),
  );
  if (lost !== undefined || found.includes(undefined))
    return `its mirror was lost: ${lost?.info.error ?? 'the job ended'}`;
  const blocks = found.flatMap((job) => job?.block ?? []);
  const isInStep = blocks.every((block) => block.ready && block['io-status'] === 'ok');
  context.progress({
    doneBytes: blocks.reduce((sum, { offset }) => sum + offset, 0n),
    totalBytes: blocks.reduce((sum, { len }) => sum + len, 0n),
    ...(isInStep ? { isInStep } : {}),
  });
  return null;
}

async function doAnswer({ paths }: WaitWindow, { images }: DomainWorld): Promise<boolean> {
  try {
    for (const path of paths) await images.answer(path, ANSWER_TIMEOUT_MS);
    return true;
  } catch (error) {
    // One that says that it fails does answer, and QEMU hears the same.
    return !(error instanceof BusyError);
  }
}

/** Until the next look, or until somebody says something. */
async function aWhile(
  { untilMs }: WaitWindow,
  { signal, isPivotSaid }: EffectContext,
): Promise<void> {
  const wasSaid = isPivotSaid();
  const end =
    performance.now() + Math.max(HEAR_EVERY_MS, Math.min(LOOK_EVERY_MS, untilMs - Date.now()));
  while (performance.now() < end && isPivotSaid() === wasSaid) {
    if (signal.aborted)
      throw new StateError('OPERATION_ABORTED', 'keep the way back open: canceled');
    await delay(HEAR_EVERY_MS);
  }
}
