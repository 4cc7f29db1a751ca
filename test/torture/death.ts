// What has to hold once the guest's QEMU was killed in the middle of an operation, and how its domain comes back. The one
// place to change when more survives QEMU's death than does now.

import { messageOf } from '../../src/std/errors.js';
import { checkStorage, type Over, type Problem } from './checks.js';
import type { Rig } from './rig.js';
import { startAnyhow } from './scenarios.js';
import { viewOf } from './view.js';

const BOOT_MS = 120_000;

/** Checks the images at rest, starts the domain again, and sees that the guest goes on where it was. */
export async function checkDead(rig: Rig, over: Over): Promise<readonly Problem[]> {
  const { life, client } = rig;
  const summary = await rig.until('death is noticed', async () => {
    const found = await client.showDomain(life.name);
    if (found.id !== null) return null;
    // A move waits for the next start; everything else comes to its end.
    const open = await Promise.all(found.operations.map((id) => client.operation(id)));
    return open.every(({ status }) => status === 'waiting') ? found : null;
  });
  const open = (await rig.newOperations())
    .concat(over.operations)
    .flatMap(({ kind, status, reason }): Problem[] =>
      status === 'attention' ? [{ kind: 'hang', text: `${kind}: ${reason ?? ''}` }] : [],
    );
  // What a move that waits has made is known by its operation, and seen to when it has ended.
  const storage = summary.operations.length > 0 ? [] : await checkStorage(rig, await viewOf(rig));
  const verdict = await rig.verify();
  const lost: Problem[] = verdict.ok ? [] : [{ kind: 'lost', text: JSON.stringify(verdict) }];
  const found = [...open, ...storage, ...lost];
  if (summary.state !== 'shutoff')
    found.push({ kind: 'wrong', text: `state of the dead domain: ${summary.state}` });
  return [...found, ...(await comesBack(rig))];
}

async function comesBack(rig: Rig): Promise<readonly Problem[]> {
  const { serial } = rig.life.guest;
  const begin = serial.mark();
  try {
    await startAnyhow(rig);
    await serial.waitLine('READY start=', BOOT_MS, begin);
    await serial.waitProgress(16, BOOT_MS);
    await rig.until('what waited has come to its end', async () =>
      (await rig.client.showDomain(rig.life.name)).operations.length === 0 ? true : null,
    );
  } catch (error) {
    return [{ kind: 'hang', text: `it does not come back: ${messageOf(error)}` }];
  }
  return serial.setbacks.map(({ acked, start }) => ({
    kind: 'lost',
    text: `the guest came up with ${start} of ${acked}`,
  }));
}
