// Effects on fuses (law 8).

import type { StepOf } from '../../plan/step.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { neverUndone } from './images.js';

/** Behind the switch: QEMU has closed what was behind it, and with that flushed it. */
export const endFuse: Effect<StepOf<'end-fuse'>, DomainWorld> = {
  repeatable: true,
  do: async ({ fuse }, { fuses }) => await fuses.end(fuse),
  undo: neverUndone,
  probe: async () => 'absent',
};

export const startFuse: Effect<StepOf<'start-fuse'>, DomainWorld> = {
  repeatable: true,
  do: async ({ fuse }, { fuses }) => await fuses.start(fuse),
  undo: async ({ fuse }, { fuses }) => await fuses.end(fuse),
  // Who begins again begins with a new one.
  probe: async () => 'absent',
};
