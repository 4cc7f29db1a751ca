// The process of `ferryd`: wires a host to its doors, settles what a former daemon left, and says `ready`.

import { randomUUID } from 'node:crypto';
import { chmod, chown, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { pino } from 'pino';
import { Known } from '../host/context.js';
import { emulatorFacts } from '../host/emulator.js';
import { EventLog } from '../host/event-log.js';
import { ferryHost } from '../host/ferry.js';
import { Host } from '../host/host.js';
import { libvirtHost } from '../host/libvirt.js';
import { XmlCopies } from '../host/xml-copies.js';
import { autostart, recover } from '../host/recover.js';
import { hostImages } from '../image/qemu-img.js';
import type { Journal } from '../journal/journal.js';
import { lockRunDir } from '../journal/lock.js';
import { openJournal } from '../journal/sqlite.js';
import { listen } from '../rpc/listen.js';
import { codes, FerryError, messageOf } from '../std/errors.js';
import type { DaemonOptions } from './options.js';
import type { Outlet } from './outlets.js';
import { commandOutlet, feed, webhookOutlet } from './outlets.js';
import type { ServiceManager } from './notify.js';
import { serviceManager } from './notify.js';
import { parseOptions, Shown } from './options.js';

/** Runs until SIGTERM or SIGINT. When it cannot start, its last line on stderr says why; exit codes: docs/daemon.md. */
export async function main(argv: readonly string[]): Promise<void> {
  const version = await ownVersion();
  const log = pino(
    { level: 'info', base: { pid: process.pid } },
    pino.destination({ dest: 2, sync: true }),
  );
  const manager = serviceManager(process.env, (problem) =>
    log.warn({ problem }, 'the service manager cannot be told'),
  );
  try {
    const options = parseOptions(argv, version);
    log.level = options.logLevel;
    await serve(options, version, log, manager);
  } catch (error) {
    if (error instanceof Shown) process.exit(0);
    const exit = codes[error instanceof FerryError ? error.code : 'INTERNAL_ERROR'].exit;
    const text = messageOf(error);
    if (process.stderr.isTTY) process.stderr.write(`ferryd: ${text}\n`);
    else log.fatal({ error: text, exit, ...(exit === BUG ? { bug: error } : {}) }, 'cannot start');
    manager.tell(`STATUS=cannot start: ${text}`);
    await manager.stopping();
    // Monitors may be open already, and would keep the process.
    process.exit(exit);
  }
}

async function ownVersion(): Promise<string> {
  const text = await readFile(new URL('../../../package.json', import.meta.url), 'utf8');
  const parsed: unknown = JSON.parse(text);
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed
    ? String(parsed.version)
    : 'unknown';
}

async function serve(
  options: DaemonOptions,
  version: string,
  log: Logger,
  manager: ServiceManager,
): Promise<void> {
  const { runDir, stateDir } = options;
  // Both are ours alone from here on, and the journal can be written: no guest has been touched yet.
  const runLock = lockRunDir(runDir);
  log.info({ version, runDir, stateDir, emulator: options.emulator }, 'starts');
  const nowMs = Date.now;
  const journal = openJournal({ stateDir, nowMs });
  // Another user's QEMU passes through to its UEFI variables, and can list nothing on its way.
  if (options.qemuUser !== null) await chmod(stateDir, 0o711);
  const emulator = await emulatorFacts(options.emulator, join(stateDir, 'cache'));
  const known = await Known.over(journal);
  const config = { ...options, log, nowMs, newUuid: randomUUID };
  const host = new Host(
    { config, known, images: hostImages('qemu-img', options.qemuUser, options.storageLimits) },
    emulator,
    await hostUuid(journal),
  );
  await host.operations.load();
  const events = await EventLog.over(known, nowMs);
  // Before anything is recovered: that has events too.
  for (const outlet of outletsOf(options)) events.follow(null, feed(outlet, log));
  const copies = new XmlCopies(config, known);
  await recover(host);

  const libvirt = libvirtHost(host);
  const onBug = (error: unknown, where: string): void =>
    log.error({ where, error: error instanceof Error ? error.stack : String(error) }, 'bug');
  const rpc = await listen({ directory: runDir, host: libvirt, onBug });
  const socketPath = join(runDir, 'ferry.sock');
  // Loaded only now: it is a large part of our start, and guests may have waited for `recover`.
  const { serveHttp } = await import('../http/server.js');
  const http = await serveHttp(ferryHost(host, events, version), {
    socketPath,
    mode: 0o600,
    onInternalError: onBug,
  });
  if (options.socketGid !== null) await letIn(options.socketGid, [rpc.path, socketPath]);
  host.retryOwed(options.mirrorRetryMs);
  host.watchMoves(WATCH_MOVES_MS);
  host.fuseWatch.start();
  host.watchers.start(LOOK_AT_MOVES_MS);
  host.sources.start(LOOK_AT_SOURCES_MS);
  host.ages.start(COUNT_WRITES_MS);
  host.windows.start(LOOK_AT_WINDOWS_MS);
  void autostart(host).catch((error: unknown) =>
    log.error({ error: messageOf(error) }, 'autostart failed'),
  );
  log.info({ version, runDir, stateDir, libvirt: rpc.path, qemu: emulator.version }, 'ready');
  manager.tell('READY=1', `STATUS=${wellStatus}`);
  host.interrupted.onTrouble((trouble) => manager.tell(`STATUS=${trouble ?? wellStatus}`));

  await ended();
  log.info('ends; guests go on');
  const told = manager.stopping();
  await Promise.all([http.close(), rpc.close()]);
  await host.close();
  await copies.close();
  await journal[Symbol.asyncDispose]();
  runLock.close();
  await told;
  // An operation under way goes on from its journal when the next daemon starts.
  process.exit(0);
}

const outletsOf = ({ onEvent, webhook }: DaemonOptions): readonly Outlet[] => [
  ...(onEvent === null ? [] : [commandOutlet(onEvent)]),
  ...(webhook === null ? [] : [webhookOutlet(webhook)]),
];

/** `libvirt-sock-ro` is not for one group: as root's it is everybody's to look through. */
async function letIn(gid: number, sockets: readonly string[]): Promise<void> {
  for (const path of sockets) {
    await chown(path, -1, gid);
    await chmod(path, 0o660);
  }
}

const BUG = codes.INTERNAL_ERROR.exit;
const wellStatus = 'answers';

/** How often the live layers of moves are looked at: what a guest writes in that time is not worth more. */
const WATCH_MOVES_MS = 2000;
/** How often what they do is measured, for whoever watches them. */
const LOOK_AT_MOVES_MS = 1000;
/** How late a source may be deleted whose time is over. */
const LOOK_AT_SOURCES_MS = 1000;
/** How often a way back that nobody sees to is found. */
const LOOK_AT_WINDOWS_MS = 2000;
/** How often it is asked what was written since a switch: what a QEMU that dies wrote after that is not counted. */
const COUNT_WRITES_MS = 60_000;

async function hostUuid(journal: Journal): Promise<string> {
  const found = await journal.setting('host-uuid');
  if (found !== null) return found;
  const made = randomUUID();
  await journal.putSetting('host-uuid', made);
  return made;
}

function ended(): Promise<void> {
  return new Promise((resolve) => {
    process.on('SIGTERM', () => resolve());
    process.on('SIGINT', () => resolve());
  });
}
