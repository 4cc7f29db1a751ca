// A guest whose QEMU lives: it writes, what it runs on is what is known, and nothing is left over.

import { messageOf } from '../../src/std/errors.js';
import { checkGuest, checkStorage, type Problem } from './checks.js';
import type { Rig } from './rig.js';
import { stateOf, type View } from './view.js';

const WRITES_MS = 60_000;

export async function checkLiving(rig: Rig, view: View): Promise<readonly Problem[]> {
  if (['off', 'owed'].includes(stateOf(view))) return await checkStorage(rig, view);
  const [writes, guest, storage] = await Promise.all([
    checkWrites(rig),
    checkGuest(rig, view),
    checkStorage(rig, view),
  ]);
  const setbacks = rig.life.guest.serial.setbacks.map(({ acked, start }): Problem => ({
    kind: 'lost',
    text: `the guest came up with ${start} of ${acked}`,
  }));
  return [...writes, ...guest, ...storage, ...setbacks];
}

async function checkWrites({ isSuspended, life }: Rig): Promise<readonly Problem[]> {
  if (isSuspended) return [];
  return await life.guest.serial.waitProgress(8, WRITES_MS).then(
    () => [],
    (error: unknown) => [{ kind: 'hang', text: messageOf(error) }],
  );
}
