// What the guest does not use is discarded by its agent at the end of a move (`--trim`), so that the new storage need not
// keep it. The move is over by then: an agent that cannot is told of in an event, and nothing waits for it.

import type { Change } from '../../domain/record.js';
import type { StepOf } from '../../plan/step.js';
import { QemuError } from '../../std/errors.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { neverUndone } from './images.js';

type Trimmed = { readonly bytes: bigint } | { readonly reason: string };

/** What came of it, until the step's changes are asked for. */
const results = new WeakMap<DomainWorld, Trimmed>();

export const trimGuest: Effect<StepOf<'trim-guest'>, DomainWorld> = {
  repeatable: true,
  background: true,
  async do(_step, world) {
    results.set(world, await trimmed(world));
  },
  undo: neverUndone,
  probe: async () => 'absent',
  async changes(_step, world): Promise<readonly Change[]> {
    const result = results.get(world);
    results.delete(world);
    if (result === undefined) return [];
    const event = 'bytes' in result ? 'GUEST_TRIMMED' : 'GUEST_TRIM_FAILED';
    const details = JSON.stringify(
      'bytes' in result ? { bytes: Number(result.bytes) } : { reason: result.reason },
    );
    return [{ change: 'event', event: { type: 'monitor', event, details } }];
  },
};

async function trimmed(world: DomainWorld): Promise<Trimmed> {
  const agent = await world.agent();
  if (agent === null || (await world.monitor()) === null)
    return { reason: 'the guest has gone meanwhile' };
  try {
    return { bytes: await agent.trim() };
  } catch (error) {
    if (error instanceof QemuError) return { reason: error.message };
    throw error;
  }
}
