// Effects on files: images made, copied, removed.

import type { StepOf } from '../../plan/step.js';
import { AssertionError } from '../../std/assert.js';
import { StateError } from '../../std/errors.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';

/** For kinds that stand behind the commit step, where nothing is undone (plan/step `checkPlan`). */
export const neverUndone = async (step: { readonly kind: string }): Promise<void> => {
  throw new AssertionError(`${step.kind} stands behind the commit step`);
};

export const createImage: Effect<StepOf<'create-image'>, DomainWorld> = {
  async do(step, { images }) {
    await images.create({ ...step, format: 'qcow2' });
  },
  async undo(step, { images }) {
    if (step.existed) await images.truncate(step.path);
    else await images.remove(step.path);
  },
  async probe(step, { images }) {
    const file = await images.stat(step.path);
    if (file === null || (step.existed && file.kind === 'file' && file.sizeBytes === 0n))
      return 'absent';
    // The planner saw nothing there, so what is there is ours: whole, or cut short by a crash.
    const info = await images.info(step.path, 'qcow2').catch(() => null);
    const whole =
      info?.virtualSizeBytes === step.sizeBytes &&
      (info.backing?.filename ?? null) === (step.backing?.path ?? null);
    return whole ? 'done' : 'partial';
  },
};

export const recreateImage: Effect<StepOf<'recreate-image'>, DomainWorld> = {
  repeatable: true,
  async do(step, { images }) {
    const isFile = (await images.stat(step.path))?.kind === 'file';
    // Beside it and renamed, so that there never is half an image that a later look would take for somebody's change.
    const path = isFile ? `${step.path}.new` : step.path;
    if (isFile) await images.remove(path);
    await images.create({ ...step, path, format: 'qcow2' });
    if (isFile) await images.rename(path, step.path);
  },
  // What was there was worth nothing (law 2), and what is there now is empty.
  undo: (step, { images }) => images.remove(`${step.path}.new`),
  probe: async () => 'absent',
};

const partOf = (step: StepOf<'copy-image'>): string => `${step.to}.part`;

export const copyImage: Effect<StepOf<'copy-image'>, DomainWorld> = {
  background: true,
  async do(step, { images }, context) {
    const part = partOf(step);
    await images.copy({
      from: step.from,
      to: part,
      signal: context.signal,
      onProgress: (doneBytes, totalBytes) => context.progress({ doneBytes, totalBytes }),
    });
    if (step.backing !== null) await images.setBacking(part, step.backing);
    // Never over a file that somebody put there meanwhile (law 14).
    if ((await images.stat(step.to)) !== null) {
      throw new StateError(
        'OPERATION_INVALID',
        `copy ${step.from}: ${step.to} appeared meanwhile and is not overwritten; remove it or choose another folder`,
      );
    }
    await images.rename(part, step.to);
  },
  async undo(step, { images }) {
    await images.remove(partOf(step));
    // Only after the copy was whole did the file get its name; what stands there before that is somebody else's.
    if (
      step.backing === null ||
      (await images.info(step.to, step.format).catch(() => null))?.backing?.filename ===
        step.backing.path
    ) {
      await images.remove(step.to);
    }
  },
  async probe(step, { images }) {
    if ((await images.stat(partOf(step))) !== null) return 'partial';
    return (await images.stat(step.to)) === null ? 'absent' : 'done';
  },
};

export const removeFile: Effect<StepOf<'remove-file'>, DomainWorld> = {
  repeatable: true,
  do: (step, { images }) => images.remove(step.path),
  undo: neverUndone,
  async probe(step, { images }) {
    return (await images.stat(step.path)) === null ? 'done' : 'absent';
  },
};
