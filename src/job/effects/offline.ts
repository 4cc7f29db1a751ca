// Effects of a move whose domain is shut off: there is no QEMU whose locks and jobs would see to anything.

import type { StepOf } from '../../plan/step.js';
import { StateError } from '../../std/errors.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { hold, letGo } from './hold.js';

export const holdImages: Effect<StepOf<'hold-images'>, DomainWorld> = {
  do: async ({ images: held }, { images }, context) => await hold(held, images, context),
  undo: async (_, { images }, context) => await letGo(images, context),
  // Taking it twice is harmless, and so is giving up what is not held.
  probe: async () => 'partial',
};

export const arrive: Effect<StepOf<'arrive'>, DomainWorld> = {
  async do(step, { images }, context) {
    await hold(step.images, images, context);
    for (const path of step.copies) {
      if ((await images.stat(path)) !== null) continue;
      throw new StateError(
        'OPERATION_INVALID',
        `the copy ${path} was whole and is gone; is its storage mounted?`,
      );
    }
  },
  undo: async () => undefined,
  // It looks; what it does is in its changes, and those are known if its `done` is.
  probe: async () => 'absent',
};

export const letGoImages: Effect<StepOf<'let-go-images'>, DomainWorld> = {
  repeatable: true,
  do: async (_, { images }, context) => await letGo(images, context),
  undo: async () => undefined,
  probe: async () => 'absent',
};
