// When nothing is under way any more: operations have ended, mirrors are in step.

import type { OperationView } from '../../src/host/ferry-host.js';
import type { Rig } from './rig.js';
import { namedDisks, viewOf, type View } from './view.js';

const SETTLE_MS = 60_000;

/** Operations of the guest's domain that have not ended. */
export async function openOperations({ client, life }: Rig): Promise<readonly OperationView[]> {
  const { operations } = await client.showDomain(life.name);
  return await Promise.all(operations.map((id) => client.operation(id)));
}

/** It goes on when its domain has a QEMU again; until then nothing happens. */
export const isParked = ({ status }: { readonly status: string }): boolean => status === 'waiting';

/** @throws when that takes too long, or when an operation waits for a person. */
export async function untilSettled(rig: Rig): Promise<View> {
  return await rig.until(
    `${rig.life.name} settles`,
    async () => {
      const open = await openOperations(rig);
      const stuck = open.find(({ status }) => status === 'attention');
      if (stuck !== undefined) throw new Error(`${stuck.kind} waits for a person: ${stuck.reason}`);
      const view = await viewOf(rig);
      if (view.summary.id === null) return open.every(isParked) ? view : null;
      const isReady = namedDisks(view.liveXml).every(
        ({ mirror, ready }) => mirror.length === 0 || ready,
      );
      return open.length === 0 && isReady ? view : null;
    },
    SETTLE_MS,
  );
}
