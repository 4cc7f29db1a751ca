// Whether the user that QEMU runs as gets to a folder at all (`--qemu-user`). The daemon, which is root then, gets everywhere,
// so that a destination which QEMU cannot open would show only when all is copied.

import { execFile } from 'node:child_process';

import { RequestError } from '../std/errors.js';
import type { Host } from './host.js';
import { asUser, type RunAs } from './process.js';

const TIMEOUT_MS = 10_000;

/** @throws RequestError naming who cannot get there. A folder that is not there is for the planner to tell of. */
export async function checkReach(host: Host, doing: string, folder: string): Promise<void> {
  const { qemuUser } = host.context.config;
  if (qemuUser === null || (await host.context.images.stat(folder)) === null) return;
  if (await mayEnter(folder, qemuUser)) return;
  throw new RequestError(
    'INVALID_ARG',
    `${doing}: QEMU runs as user ${qemuUser.uid}, who may not enter ${folder} or a folder above it, so it could not open what is moved there; give it the right to (chmod o+x, setfacl -m u:${qemuUser.uid}:x), or choose another folder`,
    { next: [`namei -l ${folder}`] },
  );
}

/** access(2) of the folder as that user, with all its groups. */
function mayEnter(folder: string, user: RunAs): Promise<boolean> {
  const [program, ...args] = asUser(user, ['test', '-x', folder]);
  return new Promise((resolve) => {
    execFile(program, args, { timeout: TIMEOUT_MS }, (error) => resolve(error === null));
  });
}
