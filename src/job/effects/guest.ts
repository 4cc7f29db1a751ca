// Effects on the guest and its QEMU process.

import type { StepOf } from '../../plan/step.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { ifAlive } from '../world.js';
import { neverUndone } from './images.js';
import { pauseOf, resumeIfRunning } from './pivot.js';

export const resumeGuest: Effect<StepOf<'resume-guest'>, DomainWorld> = {
  repeatable: true,
  do: (step, world, context) =>
    ifAlive(world, async (monitor) => {
      if (step.when === 'always') await monitor.execute('cont', {});
      else await resumeIfRunning(monitor, world);
      const ms = pauseOf(monitor);
      if (ms !== null) context.notePause('pivot', ms);
    }),
  undo: async () => undefined,
  async probe(_step, world) {
    const monitor = await world.monitor();
    if (monitor === null) return 'done';
    return (await monitor.execute('query-status', {})).running ? 'done' : 'absent';
  },
};

export const pauseGuest: Effect<StepOf<'pause-guest'>, DomainWorld> = {
  repeatable: true,
  // The death of its QEMU is found by the next look; an operation that stays open would keep the domain from starting.
  do: (_step, world) => ifAlive(world, async (monitor) => void (await monitor.execute('stop', {}))),
  undo: neverUndone,
  async probe(_step, world) {
    const monitor = await world.monitor();
    return monitor !== null && (await monitor.execute('query-status', {})).running
      ? 'absent'
      : 'done';
  },
};

export const signalGuest: Effect<StepOf<'signal-guest'>, DomainWorld> = {
  repeatable: true,
  do: (step, world) =>
    ifAlive(world, async (monitor) => {
      await monitor.execute(step.signal === 'reset' ? 'system_reset' : 'system_powerdown', {});
    }),
  undo: neverUndone,
  // A second press of a button is harmless, and nothing remembers the first.
  probe: async () => 'absent',
};

export const startQemu: Effect<StepOf<'start-qemu'>, DomainWorld> = {
  do: (step, world) => world.startQemu(step.start),
  undo: (step, world) => world.killQemu(step.start.pidFile),
  async probe(step, world) {
    return (await world.identify(step.start.pidFile)) === null ? 'absent' : 'partial';
  },
  async changes(step, world) {
    const identity = await world.identify(step.start.pidFile);
    const started = step.changes?.find((change) => change.change === 'start');
    if (identity === null || started === undefined) return [];
    return [
      {
        change: 'identify',
        ...identity,
        definition: await world.asStarted(started.live.definition),
      },
    ];
  },
};

export const killQemu: Effect<StepOf<'kill-qemu'>, DomainWorld> = {
  repeatable: true,
  do: (step, world) => world.killQemu(step.pidFile),
  undo: neverUndone,
  async probe(step, world) {
    return (await world.identify(step.pidFile)) === null ? 'done' : 'absent';
  },
};

export const createNvram: Effect<StepOf<'create-nvram'>, DomainWorld> = {
  repeatable: true,
  do: (step, world) => world.createNvram(step.path, step.template, step.reset ? 'reset' : 'keep'),
  // The guest's own from now on, also when this start fails: libvirt keeps it too.
  undo: async () => undefined,
  async probe(step, world) {
    if (step.reset) return 'absent';
    return (await world.images.stat(step.path)) === null ? 'absent' : 'done';
  },
};

/** Nothing outside; its changes commit with the entry `done`. */
export const record: Effect<StepOf<'record'>, DomainWorld> = {
  repeatable: true,
  do: async () => undefined,
  undo: async () => undefined,
  probe: async () => 'absent',
};
