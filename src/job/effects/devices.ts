// Effects on block devices that a move writes.

import type { StepOf } from '../../plan/step.js';
import { StateError } from '../../std/errors.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';

/** Looks once more, just before the mirror: between a plan and its first step somebody may have mounted it. */
export const takeDevice: Effect<StepOf<'take-device'>, DomainWorld> = {
  repeatable: true,
  async do({ path, sizeBytes }, { images }) {
    const found = await images.device(path);
    const problem =
      found.heldBy ?? (found.sizeBytes < sizeBytes ? `it has only ${found.sizeBytes} bytes` : null);
    if (problem === null) return await images.own(path);
    throw new StateError(
      'OPERATION_INVALID',
      `take ${path}: ${problem}; free it or name another device`,
    );
  },
  undo: async () => undefined,
  probe: async () => 'absent',
};
