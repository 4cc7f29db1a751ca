// Effects on files: images made, copied, removed.

import { sameFile } from '../../block/copy.js';
import type { Going } from '../../image/convert.js';
import type { ImageStore } from '../../image/store.js';
import type { StepOf } from '../../plan/step.js';
import { AssertionError } from '../../std/assert.js';
import { StateError } from '../../std/errors.js';
import type { Effect, EffectContext } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { hold } from './hold.js';

/** For kinds that stand behind the commit step, where nothing is undone (plan/step `checkPlan`). */
export const neverUndone = async (step: { readonly kind: string }): Promise<void> => {
  throw new AssertionError(`${step.kind} stands behind the commit step`);
};

export const createImage: Effect<StepOf<'create-image'>, DomainWorld> = {
  async do(step, { images }) {
    await images.create({ ...step, format: step.format ?? 'qcow2' });
  },
  async undo(step, { images }) {
    if (!step.existed) await images.remove(step.path);
    // A block device keeps its size, and what it held was given up by whoever named it.
    else if ((await images.stat(step.path))?.kind === 'file') await images.truncate(step.path);
  },
  async probe(step, { images }) {
    const file = await images.stat(step.path);
    if (file === null || (step.existed && file.kind === 'file' && file.sizeBytes === 0n))
      return 'absent';
    // The planner saw nothing there, so what is there is ours: whole, or cut short by a crash.
    const info = await images.info(step.path, step.format ?? 'qcow2').catch(() => null);
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
    await images.create({ ...step, path, format: step.format ?? 'qcow2' });
    if (isFile) await images.rename(path, step.path);
  },
  // What was there was worth nothing (law 2), and what is there now is empty.
  undo: (step, { images }) => images.remove(`${step.path}.new`),
  probe: async () => 'absent',
};

const partOf = (step: StepOf<'copy-image'>): string => `${step.to}.part`;

/**
 * The copy has its name once it is whole, and not before `whole` was saved; so what has that name is ours if it is the
 * file that was saved. A storage that gives files new numbers when it is mounted is asked for the content instead.
 */
export const copyImage: Effect<StepOf<'copy-image'>, DomainWorld> = {
  background: true,
  lane: ({ lane }) => lane ?? null,
  async do(step, { images }, context) {
    const part = partOf(step);
    // An earlier life of the daemon took its hold along.
    if (step.hold !== undefined) await hold(step.hold, images, context);
    const saved = await context.saved();
    if ((await images.stat(step.to)) !== null) {
      const isDone = (await images.stat(part)) === null && (await isOurs(step, images, context));
      if (isDone) return;
      throw appeared(step);
    }
    const going = { signal: context.signal, onProgress: context.progress };
    const limit = (): number | null => limitOf(step, context);
    const { save } = context;
    const verify = step.verify ?? 'full';
    const { from, backing } = step;
    const whole =
      step.convert === undefined
        ? await images.copy({
            ...going,
            ...{ from, to: part, backing, saved, save, verify },
            pace: context.budget(limit),
            seed: context.operation,
          })
        : await images.convert({
            ...going,
            ...step.convert,
            limitBytesPerSecond: limit,
            ...{ to: part, save, verify },
          });
    await context.save({ note: 'whole', whole });
    // Never over a file that somebody put there meanwhile (law 14).
    if ((await images.stat(step.to)) !== null) throw appeared(step);
    await images.rename(part, step.to);
  },
  async undo(step, { images }, context) {
    await images.remove(partOf(step));
    if (await isOurs(step, images, context)) await images.remove(step.to);
  },
  async probe(step, { images }, context) {
    if ((await images.stat(partOf(step))) !== null) return 'partial';
    const file = await images.identity(step.to);
    const saved = await context.saved();
    // What was durable does not go away by a crash: another storage is at its place, or none (a mount that failed).
    const wasThere = saved !== null && (saved.pieces.length > 0 || step.convert !== undefined);
    const isAway = file === null && wasThere;
    if (isAway && context.direction === 'forward') throw vanished(step);
    if (file === null) return 'absent';
    const whole = saved?.whole;
    return whole != null && sameFile(whole.file, file) ? 'done' : 'partial';
  },
};

/**
 * A shared image is held by who opened it before (QEMU, or `hold`), so what is found equal stays so; that nobody touched it
 * between two lives of a QEMU is seen from the file.
 */
export const checkImage: Effect<StepOf<'check-image'>, DomainWorld> = {
  background: true,
  async do(step, { images }, context) {
    if (step.hold !== undefined) await hold(step.hold, images, context);
    const [source, image] = [step.source[0]?.path ?? '', step.image[0]?.path ?? ''];
    const doing = `compare ${image} with ${source}`;
    await checkUntouched(step, images, doing);
    const { differsAt } = await images.compare({
      source: step.source,
      target: step.image,
      ...goingOf(step, context),
    });
    if (differsAt !== null)
      throw new StateError(
        'OPERATION_INVALID',
        `${doing}: they differ, first at byte ${differsAt} of the disk, so it cannot stand for it; remove it, choose another folder, or copy without --share-base`,
      );
    await checkUntouched(step, images, doing);
  },
  undo: async () => undefined,
  probe: async () => 'absent',
};

async function checkUntouched(
  { image: [top], file }: StepOf<'check-image'>,
  images: ImageStore,
  doing: string,
): Promise<void> {
  const found = await images.identity(top?.path ?? '');
  if (found !== null && found.sizeBytes === file.sizeBytes && found.mtimeNs === file.mtimeNs)
    return;
  throw new StateError(
    'OPERATION_INVALID',
    `${doing}: it ${found === null ? 'is gone' : 'was written to'} since the move was planned; end whatever writes to it, then move again`,
  );
}

type Long = StepOf<'copy-image'> | StepOf<'check-image'>;

const goingOf = (step: Long, context: EffectContext): Going => ({
  signal: context.signal,
  limitBytesPerSecond: () => limitOf(step, context),
  onProgress: context.progress,
});

/** 0: it stands still. */
function limitOf(step: Long, context: EffectContext): number | null {
  const said = context.pace();
  if (said?.isPaused === true) return 0;
  const limit = said === null ? (step.bytesPerSecond ?? null) : said.limitBytesPerSecond;
  return limit === null ? null : Number(limit);
}

/** Whether the finished copy is what has its name. Reads all of it where nothing cheaper tells. */
async function isOurs(
  step: StepOf<'copy-image'>,
  images: ImageStore,
  context: EffectContext,
): Promise<boolean> {
  const saved = await context.saved();
  const file = await images.identity(step.to);
  if (file === null || saved === null || saved.whole === null) return false;
  const { pieceBytes, key } = saved;
  const { root, file: written } = saved.whole;
  if (sameFile(written, file)) return true;
  if (root === null || key === undefined || written.sizeBytes !== file.sizeBytes) return false;
  return (await images.rootOf(step.to, { pieceBytes, key }, context.signal)) === root;
}

const vanished = (step: StepOf<'copy-image'>): StateError =>
  new StateError(
    'OPERATION_INVALID',
    `copy ${step.from}: the copy that was begun, ${partOf(step)}, is gone; is its storage mounted?`,
  );

const appeared = (step: StepOf<'copy-image'>): StateError =>
  new StateError(
    'OPERATION_INVALID',
    `copy ${step.from}: ${step.to} appeared meanwhile and is not overwritten; remove it or choose another folder`,
  );

export const removeFile: Effect<StepOf<'remove-file'>, DomainWorld> = {
  repeatable: true,
  do: (step, { images }) => images.remove(step.path),
  undo: neverUndone,
  async probe(step, { images }) {
    return (await images.stat(step.path)) === null ? 'done' : 'absent';
  },
};
