// A unix socket to listen on: replaced when nobody answers on it, with its mode from its first moment.

import { once } from 'node:events';
import { lstat, unlink } from 'node:fs/promises';
import type { Server } from 'node:http';
import { connect } from 'node:net';

import { BusyError, SystemError, messageOf } from '../std/errors.js';

/** Binds `server` to `path`. Refuses when another process listens there, or when the file is no socket. */
export async function listenUnix(server: Server, path: string, mode: number): Promise<void> {
  await removeStale(path);
  const listening = once(server, 'listening');
  // bind(2) happens inside of `listen`: with the mask set there is no moment at which others may connect.
  const mask = process.umask(0o777 & ~mode);
  try {
    server.listen(path);
  } finally {
    process.umask(mask);
  }
  try {
    await listening;
  } catch (error) {
    throw new SystemError(
      `listen on ${path}: ${messageOf(error)}; is the directory there, and may we write to it?`,
      { cause: error },
    );
  }
}

async function removeStale(path: string): Promise<void> {
  const file = await lstat(path).catch(() => null);
  if (file === null) return;
  if (!file.isSocket()) {
    throw new SystemError(`listen on ${path}: a file that is no socket is there; move it away`);
  }
  if (await answers(path)) {
    throw new BusyError(
      `listen on ${path}: another ferryd serves this run directory; stop it or use another --run-dir`,
    );
  }
  await unlink(path);
}

async function answers(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    // Refused: left over by a process that is gone. This is a probe, not a failure.
    return false;
  } finally {
    socket.destroy();
  }
}
