// Moves that take as long as a test wants, and what `ferry` says of an operation.

import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

import type { OperationProgress, OperationView } from '../../src/host/ferry-host.js';
import { fromJson } from '../../src/http/wire.js';
import { present } from '../../src/std/assert.js';
import type { FerrydOptions } from './ferryd.js';
import type { Lab, LabGuest } from './lab.js';
import { resuming } from './mirrored.js';
import { must, root } from './process.js';

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

/** What `ferry watch` says of a move, until that or its ferryd ends. */
export async function* watched(lab: Lab, id: number): AsyncGenerator<OperationProgress> {
  const watch = spawn(join(root, 'bin/ferry'), ['watch', String(id), '--progress=json'], {
    env: { ...process.env, FERRY_RUN_DIR: lab.runDir, FERRY_STATE_DIR: lab.stateDir },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    for await (const line of createInterface({ input: watch.stdout })) {
      const said = fromJson(line) as { readonly type: string } & OperationProgress; // our own CLI
      if (said.type === 'progress') yield said;
    }
  } finally {
    watch.kill();
  }
}
