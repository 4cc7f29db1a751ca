// Moves that take as long as a test wants, and what `ferry` says of an operation.

import { dirname, join } from 'node:path';

import type { OperationView } from '../../src/host/ferry-host.js';
import { fromJson } from '../../src/http/wire.js';
import { present } from '../../src/std/assert.js';
import type { FerrydOptions } from './ferryd.js';
import type { Lab, LabGuest } from './lab.js';
import { resuming } from './mirrored.js';
import { must } from './process.js';

/** A running guest whose disk has `ballastMiB` of data behind what it writes; `--bandwidth` makes of that a time. */
export async function heavyGuest(
  lab: Lab,
  ballastMiB: number,
  daemon: FerrydOptions = {},
): Promise<LabGuest> {
  const guest = await lab.guest({ name: 'vm1', disks: 1, sizeMiB: 512, writer: resuming });
  const image = present(guest.files[0], 'it has one disk');
  const write = `write -P 165 64M ${ballastMiB}M`;
  await must(join(dirname(lab.qemu.img), 'qemu-io'), ['-f', 'qcow2', '-c', write, image]);
  await lab.ferryd(daemon);
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(300);
  return guest;
}

/** The number of a move of `vda` to storage B that goes on by itself. */
export async function beginMove(lab: Lab, ...options: readonly string[]): Promise<number> {
  const args = ['move', 'vm1', 'vda', '--to', lab.b, '--detach', '--json', ...options];
  const { id } = JSON.parse(await lab.mustFerry(...args)) as { id: number }; // our own CLI
  return id;
}

export async function operation(lab: Lab, id: number): Promise<OperationView> {
  return fromJson(await lab.mustFerry('ops', 'show', String(id), '--json')) as OperationView; // our own CLI
}
