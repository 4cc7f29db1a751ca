// Fuses (law 8) at work: started so that they outlive us, asked whether they are what they were, and killed. A fuse that
// was connected twice is none: between the two its server may have lost what it had not written yet (qemu-block §0.8).

import { spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { nbdServer, tlsCredsOptions } from '../block/node.js';
import type { Fuse } from '../block/fuse.js';
import { throughFuse } from '../block/fuse.js';
import { showSource } from '../block/layer.js';
import type { Fuses, Identity } from '../job/world.js';
import { until } from '../std/deadline.js';
import { BusyError, QemuError } from '../std/errors.js';
import type { RunAs } from './process.js';
import { identify, isAlive, kill, launch } from './process.js';

/** For the connection, TLS and all. */
const START_TIMEOUT_MS = 5000;
const KILL_TIMEOUT_MS = 5000;

export const hostFuses = (runAs: RunAs | null): Fuses => ({
  start: async (fuse) => await start(fuse, runAs),
  end: endFuse,
  check: checkFuse,
  answer: answerFuse,
});

const program = 'qemu-storage-daemon';
const prober = 'qemu-io';
const creds = 'tls';

function argvOf({ socket, name, pidFile, server }: Fuse): readonly string[] {
  const node = {
    driver: 'nbd',
    'node-name': 'server',
    server: nbdServer(server.host),
    export: server.name,
    // A restarted server is a lost mirror.
    'reconnect-delay': 0,
    discard: 'unmap',
    ...(server.tlsCreds === undefined ? {} : { 'tls-creds': creds }),
  };
  const listen = { addr: { type: 'unix', path: socket } };
  const out = { type: 'nbd', id: 'fuse', 'node-name': 'server', name, writable: true };
  return [
    ...(server.tlsCreds === undefined
      ? []
      : ['--object', JSON.stringify(tlsCredsOptions(creds, server.tlsCreds))]),
    '--blockdev',
    JSON.stringify(node),
    '--nbd-server',
    JSON.stringify(listen),
    '--export',
    JSON.stringify(out),
    // Written when all the others are done: from then on it is connected, and listens.
    '--pidfile',
    pidFile,
  ];
}

/** A former one of the same names is ended first: nobody is connected to it yet. */
async function start(fuse: Fuse, runAs: RunAs | null): Promise<void> {
  await endFuse(fuse);
  const { pidFile, socket, logFile, server } = fuse;
  const begin = await sizeOf(logFile);
  const { exited, pid } = await launch(
    { emulator: program, argv: argvOf(fuse), env: {}, pidFile, qmpSocket: socket, logFile },
    runAs,
  );
  const to = showSource(server);
  let end: string | null = null;
  void exited.then((how) => (end = how));
  try {
    const found = await until(
      async () => {
        if (end !== null)
          throw new QemuError(
            `connect to ${to}: ${await complaintOf(logFile, begin)}; see ${logFile}`,
          );
        return identify(pidFile, socket);
      },
      START_TIMEOUT_MS,
      `connect to ${to}: its server answers`,
      10,
    );
    await fs.writeFile(fuse.stateFile, JSON.stringify(await socketsOf(found)));
  } catch (error) {
    // It has no pid file yet by which an undo would find it.
    if (end === null) process.kill(pid, 'SIGKILL');
    throw error;
  }
}

const sizeOf = async (path: string): Promise<number> =>
  await fs.stat(path).then(
    ({ size }) => size,
    () => 0,
  );

/** What it said before it went: of `qemu-storage-daemon: --blockdev {…}: what is wrong` the end. */
async function complaintOf(logFile: string, begin: number): Promise<string> {
  const said = (await fs.readFile(logFile)).subarray(begin).toString().trim();
  return (said.split('\n').at(-1) ?? '').replace(/^qemu-storage-daemon: (?:.*\}: )?/, '');
}

/** `socket:[inode]` of each that it has open. */
async function socketsOf({ pid }: Identity): Promise<readonly string[]> {
  const folder = `/proc/${pid}/fd`;
  const links = await Promise.all(
    (await fs.readdir(folder)).map(
      async (fd) => await fs.readlink(join(folder, fd)).catch(() => ''),
    ),
  );
  return links.filter((link) => link.startsWith('socket:'));
}

/** Gone already is fine. SIGKILL: it holds nothing, and one whose server hangs would not hear anything less. */
export async function endFuse({ pidFile, socket, stateFile }: EndedFuse): Promise<void> {
  const found = identify(pidFile, socket);
  if (found !== null) {
    kill(found);
    await until(
      () => (isAlive(found) ? null : true),
      KILL_TIMEOUT_MS,
      `end of fuse ${found.pid}`,
      5,
    );
  }
  for (const path of [pidFile, socket, stateFile]) await fs.rm(path, { force: true });
}

type EndedFuse = Pick<Fuse, 'pidFile' | 'socket' | 'stateFile'>;

/** @throws {QemuError} class FuseBlown: it is gone, or was connected to its server more than once. */
export async function checkFuse(fuse: Fuse): Promise<void> {
  const blown = (what: string): QemuError =>
    new QemuError(
      `${showSource(fuse.server)}: ${what}, so what it holds is not known any more and the mirror is lost`,
      { qmpClass: 'FuseBlown' },
    );
  const found = identify(fuse.pidFile, fuse.socket);
  if (found === null) throw blown('its server was lost');
  const [was, is] = await Promise.all([
    fs.readFile(fuse.stateFile, 'utf8').catch(() => '["none"]'),
    socketsOf(found).catch((): readonly string[] => []),
  ]);
  const began = JSON.parse(was) as readonly string[]; // written by `start`
  if (began.every((socket) => is.includes(socket))) return;
  throw blown('its server was away and came back');
}

/**
 * A flush through it, in a process of its own (law 9).
 *
 * @throws {BusyError} no answer within `timeoutMs`. @throws {QemuError} it or its server is lost.
 */
export async function answerFuse(fuse: Fuse, timeoutMs: number): Promise<void> {
  await checkFuse(fuse);
  const { name, server } = fuse;
  const image = {
    driver: 'raw',
    file: { driver: 'nbd', server: nbdServer(throughFuse(fuse).host), export: name },
  };
  const child = spawn(prober, ['-c', 'flush', `json:${JSON.stringify(image)}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let complaint = '';
  child.stderr.on('data', (text: Buffer) => (complaint += text.toString()));
  const code = await new Promise<number | 'late' | null>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      resolve('late');
    }, timeoutMs);
    child.on('error', reject);
    child.on('close', (ended) => {
      clearTimeout(timer);
      resolve(ended);
    });
  });
  if (code === 'late')
    throw new BusyError(`${showSource(server)}: its server did not answer within ${timeoutMs} ms`);
  if (code === 0) return await checkFuse(fuse);
  // Whoever got this error is not whoever wrote: nobody else might ever hear that something was lost.
  await endFuse(fuse);
  throw new QemuError(
    `${showSource(server)}: its server was lost (${complaint.trim() || 'the connection broke'})`,
    { qmpClass: 'FuseBlown' },
  );
}

/** Of a domain whose QEMU is no more: they stand in front of nothing. */
export async function endFusesOf(pidFileOfQemu: string): Promise<void> {
  const folder = dirname(pidFileOfQemu);
  const prefix = `${basename(pidFileOfQemu, '.pid')}.fuse-`;
  const names = await fs.readdir(folder).catch((): string[] => []);
  for (const name of names.filter((one) => one.startsWith(prefix) && one.endsWith('.pid'))) {
    const base = join(folder, name.slice(0, -'.pid'.length));
    await endFuse({ pidFile: `${base}.pid`, socket: `${base}.sock`, stateFile: `${base}.json` });
  }
}
