// What has to hold once the guest's QEMU was killed in the middle of an operation, and how its domain comes back. The one
// place to change when more survives QEMU's death than does now.

import { existsSync } from 'node:fs';

import { messageOf } from '../../src/std/errors.js';
import { checkStorage, pidOf, type Over, type Problem } from './checks.js';
import { checkLiving } from './living.js';
import type { Rig } from './rig.js';
import { startAnyhow } from './scenarios.js';
import { isParked, openOperations, untilSettled } from './settle.js';
import { viewOf, type View } from './view.js';

const BOOT_MS = 120_000;

/**
 * Checks the images at rest, starts the domain again, and sees that the guest goes on where it was. A start whose QEMU died
 * with its ferryd is done anew by the next one; then that guest is looked at.
 */
export async function checkDead(
  rig: Rig,
  { operations }: Over,
  killed: readonly number[],
): Promise<readonly Problem[]> {
  const view = await rig.until('death is noticed', async () => {
    const open = await openOperations(rig);
    const found = await viewOf(rig);
    const isOff = found.summary.id === null && open.every(isParked);
    return isOff || (open.length === 0 && (await isAnew(rig, killed))) ? found : null;
  });
  const stuck = (await rig.newOperations())
    .concat(operations)
    .flatMap(({ kind, status, reason }): Problem[] =>
      status === 'attention' ? [{ kind: 'hang', text: `${kind}: ${reason ?? ''}` }] : [],
    );
  if (view.summary.id !== null) return [...stuck, ...(await checkLiving(rig, view))];
  return [...stuck, ...(await checkImages(rig, view)), ...(await comesBack(rig))];
}

/** Whether a QEMU of this guest runs that nobody killed. */
async function isAnew(rig: Rig, killed: readonly number[]): Promise<boolean> {
  const pid = await pidOf(rig).catch(() => null);
  return pid !== null && !killed.includes(pid) && existsSync(`/proc/${pid}`);
}

async function checkImages(rig: Rig, view: View): Promise<readonly Problem[]> {
  const verdict = await rig.verify();
  const { state } = view.summary;
  return [
    // What a move that waits has made is needed still; when it has ended everything is looked at.
    ...((await openOperations(rig)).length > 0 ? [] : await checkStorage(rig, view)),
    ...(verdict.ok ? [] : [{ kind: 'lost', text: JSON.stringify(verdict) } as const]),
    ...(state === 'shutoff'
      ? []
      : [{ kind: 'wrong', text: `state of the dead domain: ${state}` } as const]),
  ];
}

async function comesBack(rig: Rig): Promise<readonly Problem[]> {
  const { serial } = rig.life.guest;
  const begin = serial.mark();
  try {
    await startAnyhow(rig);
    await serial.waitLine('READY start=', BOOT_MS, begin);
    return await checkLiving(rig, await untilSettled(rig));
  } catch (error) {
    return [{ kind: 'hang', text: `it does not come back: ${messageOf(error)}` }];
  }
}
