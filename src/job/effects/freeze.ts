// The guest's file systems, frozen by its agent for the moment in which its disks switch (`--quiesce`). What was frozen is
// thawed, whatever fails: a guest that is left frozen hangs.

import { setTimeout as delay } from 'node:timers/promises';

import type { StepOf } from '../../plan/step.js';
import type { Agent } from '../../qmp/agent.js';
import type { Monitor } from '../../qmp/monitor.js';
import { QemuError, StateError } from '../../std/errors.js';
import type { Effect, EffectContext } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { ifAlive, isToRun } from '../world.js';
import { neverUndone } from './images.js';

/** One that is busy freezing answers when it is through. */
const THAW_PATIENCE_MS = 40_000;
const AGAIN_MS = 200;

/** When we froze a guest, by its monitor. */
const frozen = new WeakMap<Monitor, number>();

/** Also when it is frozen already: by a pivot before this one, that a crash cut off. */
export async function freeze(world: DomainWorld, monitor: Monitor): Promise<void> {
  const agent = await needAgent(world);
  if (!(await agent.isFrozen())) await agent.freeze();
  frozen.set(monitor, performance.now());
}

/** Where its guest stands still there is nobody to ask, and whatever cannot be asked may be frozen. */
export async function mayBeFrozen(world: DomainWorld): Promise<boolean> {
  const agent = await world.agent();
  return agent !== null && (await agent.isFrozen().catch(ofAgent(true)));
}

/** @throws the agent's last word when it does not thaw. A QEMU that is gone has nothing frozen. */
export async function thaw(world: DomainWorld, { notePause }: EffectContext): Promise<void> {
  await ifAlive(world, async (monitor) => {
    const agent = await needAgent(world);
    const end = performance.now() + THAW_PATIENCE_MS;
    while (!(await isThawed(agent, performance.now() >= end))) {
      if ((await world.monitor()) === null) return;
      await delay(AGAIN_MS);
    }
    const since = frozen.get(monitor);
    frozen.delete(monitor);
    if (since !== undefined) notePause('file systems frozen', performance.now() - since);
  });
}

async function isThawed(agent: Agent, isLast: boolean): Promise<boolean> {
  try {
    if (!(await agent.isFrozen())) return true;
    await agent.thaw();
    return true;
  } catch (error) {
    if (isLast || !(error instanceof QemuError)) throw error;
    return false;
  }
}

export const thawGuest: Effect<StepOf<'thaw-guest'>, DomainWorld> = {
  repeatable: true,
  do: (_step, world, context) => thaw(world, context),
  undo: neverUndone,
  probe: async () => 'absent',
};

/** Of a guest that its user suspended the agent cannot answer; one that stands because of us is frozen already. */
export async function freezeUnlessStopped(
  world: DomainWorld,
  monitor: Monitor,
  status: string,
): Promise<void> {
  if (status === 'running') return await freeze(world, monitor);
  if (await isToRun(world)) return;
  throw new StateError(
    'OPERATION_INVALID',
    'pivot: the guest is suspended, so its agent cannot freeze its file systems; resume it, or move without --quiesce',
  );
}

async function needAgent(world: DomainWorld): Promise<Agent> {
  const agent = await world.agent();
  if (agent !== null) return agent;
  throw new StateError(
    'OPERATION_INVALID',
    'freeze: the domain has no channel to a guest agent any more',
  );
}

/** What an agent that fails is taken for; other errors are thrown on. */
const ofAgent =
  <T>(value: T) =>
  (error: unknown): T => {
    if (error instanceof QemuError) return value;
    throw error;
  };
