// Block devices: how large they are, and whether somebody has them. sysfs and open(2) tell; nothing is written.

import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import { SystemError, messageOf } from '../std/errors.js';
import type { DeviceInfo } from './store.js';

const SECTOR_BYTES = 512n;

/** @throws {SystemError} it is none, or cannot be opened. */
export async function deviceInfo(path: string): Promise<DeviceInfo> {
  try {
    const { rdev } = await fs.stat(path);
    // The kernel's own numbering of devices (makedev(3)), as /sys/dev/block names them.
    const number = `${(rdev >> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >> 12) & 0xfff00)}`;
    const sectors = (await fs.readFile(`/sys/dev/block/${number}/size`, 'utf8')).trim();
    const heldBy = await heldByOf(path, number);
    return { sizeBytes: BigInt(sectors) * SECTOR_BYTES, number, heldBy };
  } catch (error) {
    throw new SystemError(`look at block device ${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** open(2): O_EXCL without O_CREAT on a block device fails with EBUSY if the system uses it, by a mount for one. */
async function heldByOf(path: string, number: string): Promise<string | null> {
  try {
    const file = await fs.open(path, constants.O_RDONLY | constants.O_EXCL);
    await file.close();
    return null;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EBUSY')) throw error;
  }
  const holders = await fs.readdir(`/sys/dev/block/${number}/holders`).catch(() => []);
  if (holders.length > 0) return `it is part of ${holders.join(', ')}`;
  const mounts = await fs.readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  const mounted = mounts.split('\n').find((line) => line.split(' ')[2] === number);
  return mounted === undefined
    ? 'the system has it in use'
    : `it is mounted on ${mounted.split(' ')[4] ?? '?'}`;
}
