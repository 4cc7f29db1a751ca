// What stands between a definition and its QEMU: places on buses, ports, UEFI variables, the command line.

import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { assignDevices } from '../domain/assign.js';
import { qemuCommandLine } from '../domain/commandline.js';
import { withSocket } from '../domain/commandline-devices.js';
import type { Definition } from '../domain/definition.js';
import type { Graphics } from '../domain/devices.js';
import type { QemuStart } from '../plan/step.js';
import { RequestError, StateError } from '../std/errors.js';
import { filesOf } from './context.js';
import type { Host } from './host.js';
import { identify } from './process.js';

export interface Launch {
  /** As it runs: every device in its place, every port known. */
  readonly definition: Definition;
  readonly qemu: QemuStart;
  readonly nvram: { readonly path: string; readonly template: string } | null;
}

export async function launchPlan(host: Host, defined: Definition): Promise<Launch> {
  const { config } = host.context;
  const files = filesOf(config, defined.uuid, defined.name);
  refuseStranger(files, defined.name);
  for (const { targetDev } of defined.interfaces) if (targetDev !== null) needTap(targetDev);
  const placed = await withPorts(host, assignDevices(defined));
  const channels = placed.channels.map((one) => withSocket(one, placed.uuid, files.channelDir));
  const definition = { ...placed, channels, os: withNvram(placed.os, files.nvram) };
  const context = {
    qmpSocket: files.qmpSocket,
    pidFile: files.pidFile,
    nvram: files.nvram,
    channelDir: files.channelDir,
    sandbox: config.sandbox,
  };
  const { argv, env } = qemuCommandLine(definition, context);
  const { nvram } = definition.os;
  const template = nvram?.template ?? null;
  return {
    definition,
    qemu: {
      emulator: definition.emulator,
      argv,
      env,
      pidFile: files.pidFile,
      qmpSocket: files.qmpSocket,
      logFile: files.logFile,
    },
    nvram:
      nvram === null || template === null ? null : { path: nvram.path ?? files.nvram, template },
  };
}

/** Where the UEFI variables lie is shown, as libvirt shows it, once they are made. */
const withNvram = (os: Definition['os'], path: string): Definition['os'] =>
  os.nvram === null ? os : { ...os, nvram: { ...os.nvram, path: os.nvram.path ?? path } };

/** After a journal was lost its guests run on: to start one again would be to take that QEMU for a new one. */
function refuseStranger(
  { pidFile, qmpSocket }: { readonly pidFile: string; readonly qmpSocket: string },
  name: string,
): void {
  const found = identify(pidFile, qmpSocket);
  if (found === null) return;
  throw new StateError(
    'OPERATION_INVALID',
    `start ${name}: a QEMU of it runs already (pid ${found.pid}) that this ferryd does not know; shut its guest down from inside, end it ('kill ${found.pid}'), then start`,
    { next: [`ferry doctor ${name}`, `kill ${found.pid}`] },
  );
}

/** QEMU of root would make one that is missing, with nothing behind it (qemuInterfaceEthernetConnect refuses too). */
function needTap(name: string): void {
  if (existsSync(`/sys/class/net/${name}`)) return;
  throw new RequestError(
    'CONFIG_UNSUPPORTED',
    `target managed='no' but specified dev doesn't exist: this host has no tap '${name}'; make it ('ip tuntap add dev ${name} mode tap') and bring it up`,
  );
}

const FIRST_VNC_PORT = 5900;
const LAST_VNC_PORT = 65535;

async function withPorts(host: Host, definition: Definition): Promise<Definition> {
  const taken = new Set(
    host.known
      .all()
      .flatMap(({ live }) => live?.definition.graphics.flatMap(({ port }) => port ?? []) ?? []),
  );
  const graphics: Graphics[] = [];
  for (const one of definition.graphics) {
    const port = one.autoport || one.port === null ? await freePort(taken, one.listen) : one.port;
    taken.add(port);
    graphics.push({ ...one, port });
  }
  return { ...definition, graphics };
}

async function freePort(taken: ReadonlySet<number>, listen: string | null): Promise<number> {
  for (let port = FIRST_VNC_PORT; port <= LAST_VNC_PORT; port++) {
    if (!taken.has(port) && (await isFree(port, listen ?? '127.0.0.1'))) return port;
  }
  throw new StateError(
    'OPERATION_INVALID',
    'Unable to find an unused port for VNC; end a domain or name a port',
  );
}

function isFree(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(false));
    server.listen({ port, host }, () => server.close(() => resolve(true)));
  });
}
