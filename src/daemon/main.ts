// The process of `ferryd`: wires a host to its doors, settles what a former daemon left, and says `ready`.

import { randomUUID } from 'node:crypto';
import { chmod, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { pino } from 'pino';
import { Known } from '../host/context.js';
import { emulatorFacts } from '../host/emulator.js';
import { EventLog } from '../host/event-log.js';
import { ferryHost } from '../host/ferry.js';
import { Host } from '../host/host.js';
import { libvirtHost } from '../host/libvirt.js';
import { autostart, recover } from '../host/recover.js';
import { serveHttp } from '../http/server.js';
import { hostImages } from '../image/qemu-img.js';
import type { Journal } from '../journal/journal.js';
import { openJournal } from '../journal/sqlite.js';
import { listen } from '../rpc/listen.js';
import { messageOf } from '../std/errors.js';
import type { DaemonOptions } from './options.js';
import { parseOptions } from './options.js';

/** Runs until SIGTERM or SIGINT. Exit code 1 when it cannot start, with the reason as its last line. */
export async function main(argv: readonly string[]): Promise<void> {
  const version = await ownVersion();
  const log = pino(
    { level: 'info', base: { pid: process.pid } },
    pino.destination({ dest: 2, sync: true }),
  );
  try {
    const options = parseOptions(argv, version);
    log.level = options.logLevel;
    await serve(options, version, log);
  } catch (error) {
    log.fatal({ error: messageOf(error) }, 'cannot start');
    process.exitCode = 1;
  }
}

async function ownVersion(): Promise<string> {
  const text = await readFile(new URL('../../../package.json', import.meta.url), 'utf8');
  const parsed: unknown = JSON.parse(text);
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed
    ? String(parsed.version)
    : 'unknown';
}

async function serve(options: DaemonOptions, version: string, log: Logger): Promise<void> {
  const { runDir, stateDir } = options;
  // Only its user may look in; the sockets' own modes say who may talk.
  await mkdir(runDir, { recursive: true, mode: 0o711 });
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  // Another user's QEMU passes through to its UEFI variables, and can list nothing on its way.
  if (options.qemuUser !== null) await chmod(stateDir, 0o711);
  log.info({ version, runDir, stateDir, emulator: options.emulator }, 'starts');
  const nowMs = Date.now;
  const journal = openJournal({ stateDir, nowMs });
  const emulator = await emulatorFacts(options.emulator, join(stateDir, 'cache'));
  const known = await Known.over(journal);
  const config = { ...options, log, nowMs, newUuid: randomUUID };
  const host = new Host(
    { config, known, images: hostImages('qemu-img', options.qemuUser) },
    emulator,
    await hostUuid(journal),
  );
  await host.operations.load();
  const events = await EventLog.over(known, nowMs);
  await recover(host);

  const libvirt = libvirtHost(host);
  const onBug = (error: unknown, where: string): void =>
    log.error({ where, error: error instanceof Error ? error.stack : String(error) }, 'bug');
  const rpc = await listen({ directory: runDir, host: libvirt, onBug });
  const http = await serveHttp(ferryHost(host, events, version), {
    socketPath: join(runDir, 'ferry.sock'),
    mode: 0o600,
    onInternalError: onBug,
  });
  void autostart(host).catch((error: unknown) =>
    log.error({ error: messageOf(error) }, 'autostart failed'),
  );
  log.info({ version, runDir, stateDir, libvirt: rpc.path, qemu: emulator.version }, 'ready');

  await ended();
  log.info('ends; guests go on');
  await Promise.all([http.close(), rpc.close()]);
  await host.close();
  await journal[Symbol.asyncDispose]();
  // An operation under way goes on from its journal when the next daemon starts.
  process.exit(0);
}

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
