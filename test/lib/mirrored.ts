// A writing guest with its disks mirrored, as the tests of what happens to mirrors want it.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { until } from '../../src/std/deadline.js';
import type { DomainOptions } from './guest.js';
import type { Lab, LabGuest } from './lab.js';
import { killNow } from './process.js';
import { verifyChains } from './verify.js';

export const resuming = { resume: 1 } as const;
const targets = ['vda', 'vdb', 'vdc'];

/** Runs and has written; `xml` changes its definition first. */
export async function running(
  lab: Lab,
  disks: number,
  kind: 'persistent' | 'transient' = 'persistent',
  options: Partial<Pick<DomainOptions, 'uuid' | 'extra' | 'devices'>> & {
    readonly xml?: (xml: string) => string;
  } = {},
): Promise<LabGuest> {
  const { xml, ...rest } = options;
  const made = await lab.guest({ name: 'vm1', disks, writer: resuming, ...rest });
  const guest = xml === undefined ? made : { ...made, xml: xml(made.xml) };
  await writeFile(guest.xmlFile, guest.xml);
  if (kind === 'transient') await lab.mustVirsh('create', guest.xmlFile);
  else {
    await lab.mustVirsh('define', guest.xmlFile);
    await lab.mustVirsh('start', 'vm1');
  }
  await guest.serial.waitAcked(300);
  return guest;
}

/** Snapshot XML with a mirror per disk: new layers `TARGET.NAME` on A and on B. */
export async function snapshotFile(lab: Lab, disks: number, name = 's1'): Promise<string> {
  const list = targets
    .slice(0, disks)
    .map(
      (target) =>
        `<disk name='${target}' snapshot='external'><source file='${join(lab.a, `${target}.${name}`)}'/>` +
        `<mirror file='${join(lab.b, `${target}.${name}`)}'/></disk>`,
    );
  const file = join(lab.directory, `${name}.xml`);
  await writeFile(
    file,
    `<domainsnapshot><name>${name}</name><disks>${list.join('')}</disks></domainsnapshot>`,
  );
  return file;
}

/** Mirrors all disks of a running guest and waits until they are in step. */
export async function mirror(lab: Lab, disks: number, ...flags: readonly string[]): Promise<void> {
  await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab, disks), ...flags);
  await untilReady(lab, disks);
}

export async function untilReady(lab: Lab, disks: number): Promise<void> {
  const look = async (): Promise<true | null> =>
    (await lab.mustVirsh('dumpxml', 'vm1')).match(/ready='yes'/g)?.length === disks ? true : null;
  await until(look, 60_000, 'mirrors READY');
}

export const sources = async (lab: Lab): Promise<readonly string[]> =>
  (await lab.mustVirsh('domblklist', 'vm1')).match(/\/\S+/g) ?? [];

export async function writeMore(guest: LabGuest, writes = 300): Promise<void> {
  await guest.serial.waitAcked(guest.serial.acked() + writes);
}

export async function qemuPid(lab: Lab): Promise<number> {
  const uuid = (await lab.mustVirsh('domuuid', 'vm1')).trim();
  return Number(await readFile(join(lab.runDir, 'qemu', `${uuid}.pid`), 'utf8'));
}

export async function untilOff(lab: Lab, timeoutMs = 30_000): Promise<void> {
  const look = async (): Promise<true | null> =>
    (await lab.virsh('domstate', 'vm1')).stdout.includes('running') ? null : true;
  await until(look, timeoutMs, 'the domain is off');
}

/** kill -9 of QEMU, noticed. */
export async function killQemu(lab: Lab): Promise<void> {
  killNow(await qemuPid(lab));
  await untilOff(lab);
}

/** What the images hold now is right: everything acknowledged, in order. */
export async function nothingLost(
  guest: LabGuest,
  images: readonly string[],
  state: 'crashed' | 'settled' = 'crashed',
): Promise<void> {
  const acked = guest.serial.acked();
  const verdict = await verifyChains(images, { acked, state, writer: resuming });
  assert.ok(verdict.ok, `${images.join(' ')}: ${JSON.stringify(verdict)}`);
}

/** Ends the guest; the images that its domain named have everything, and it never came up with less. */
export async function endsWell(lab: Lab, guest: LabGuest): Promise<void> {
  await writeMore(guest);
  const live = await sources(lab);
  await lab.mustVirsh('destroy', 'vm1');
  await nothingLost(guest, live);
  assert.deepEqual(guest.serial.setbacks, []);
}
