// Effects on fuses (law 8).

import type { StepOf } from '../../plan/step.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';

export const startFuse: Effect<StepOf<'start-fuse'>, DomainWorld> = {
  repeatable: true,
  do: async ({ fuse }, { fuses }) => await fuses.start(fuse),
  undo: async ({ fuse }, { fuses }) => await fuses.end(fuse),
  // Who begins again begins with a new one.
  probe: async () => 'absent',
};
