// What a test asks of a domain whose disks moved to what is not only files.

import assert from 'node:assert/strict';

import type { Lab, LabGuest } from './lab.js';
import { verifyChains, type VerifyImage } from './verify.js';

/** What the sources of the disks are, as the XML names them. */
export const sourcesOf = async (lab: Lab): Promise<readonly string[]> =>
  (await lab.mustVirsh('domblklist', 'vm1'))
    .split('\n')
    .flatMap((line) => /^ vd\w\s+(\S+)/.exec(line)?.[1] ?? []);

/** Writes on, ends the guest, and asks the verifier about `images`. */
export async function nothingLostIn(
  lab: Lab,
  guest: LabGuest,
  images: readonly VerifyImage[],
): Promise<void> {
  await guest.serial.waitAcked(guest.serial.acked() + 200);
  await lab.mustVirsh('destroy', 'vm1');
  const verdict = await verifyChains(images, {
    acked: guest.serial.acked(),
    state: 'crashed',
    writer: { resume: 1 },
  });
  assert.ok(verdict.ok, JSON.stringify(verdict));
}
