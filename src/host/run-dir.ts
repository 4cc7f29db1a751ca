// Where the daemon has its sockets and its journal when nobody says otherwise: it and its clients must agree.

import { homedir } from 'node:os';
import { join } from 'node:path';
import { RequestError } from '../std/errors.js';

/** `/run/blockferry` for root, else below XDG_RUNTIME_DIR: nowhere that others can write. */
export function defaultRunDir(): string {
  const { FERRY_RUN_DIR: named = '', XDG_RUNTIME_DIR: runtime = '' } = process.env;
  if (named !== '') return named;
  if (process.getuid?.() === 0) return '/run/blockferry';
  if (runtime !== '') return join(runtime, 'blockferry');
  throw new RequestError(
    'INVALID_ARG',
    'the run directory is not known: XDG_RUNTIME_DIR is not set; give --run-dir DIR or set FERRY_RUN_DIR',
  );
}

/** `/var/lib/blockferry` for root, else below XDG_STATE_HOME. */
export function defaultStateDir(): string {
  const { FERRY_STATE_DIR: named, XDG_STATE_HOME: home } = process.env;
  if (named !== undefined) return named;
  if (process.getuid?.() === 0) return '/var/lib/blockferry';
  return join(home ?? join(homedir(), '.local', 'state'), 'blockferry');
}
