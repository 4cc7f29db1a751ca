// One domain at work: its lock, the monitor of its QEMU, and the world that its plans act on. Knows no verbs.
// What QEMU tells is only a reason to look: `onNews` and `onGone` say that, the host looks.

import { access, chmod, chown, copyFile, mkdir, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { CharSource } from '../domain/devices.js';
import type { Definition } from '../domain/definition.js';
import { syncFile, syncFolder } from '../image/sync.js';
import type { DomainWorld, Identity } from '../job/world.js';
import type { QemuStart } from '../plan/step.js';
import type { AnyEvent, Monitor, Schema } from '../qmp/monitor.js';
import type { Agent } from '../qmp/agent.js';
import { agentAt } from '../qmp/agent.js';
import { connect } from '../qmp/monitor.js';
import { until } from '../std/deadline.js';
import { BusyError, QemuError, messageOf } from '../std/errors.js';
import { Lock } from '../std/queue.js';
import type { HostContext } from './context.js';
import { filesOf } from './context.js';
import { endFusesOf, hostFuses } from './fuses.js';
import type { RunAs } from './process.js';
import * as processes from './process.js';

/** libvirt waits as long for its state change lock. */
const LOCK_PATIENCE_MS = 30_000;
const START_TIMEOUT_MS = 30_000;
const GREETING_TIMEOUT_MS = 5000;
/** A socket that closed belongs to a process that goes; this long it may take. */
const DEATH_TIMEOUT_MS = 10_000;

/** Where qemu-ga listens in the guest, as libvirt names it (qemuDomainDefGetAgent…). */
const agentPort = 'org.qemu.guest_agent.0';

export interface GuestListener {
  /** Something happened in QEMU. */
  onNews(guest: Guest, event: AnyEvent): void;
  /** The connection to its QEMU ended. */
  onGone(guest: Guest): void;
}

export class Guest {
  readonly uuid: string;
  /** What holds the lock, for the error of who waits in vain. */
  doing = '';
  private readonly context: HostContext;
  private readonly listener: GuestListener;
  private readonly schemas: Map<string, Promise<Schema>>;
  private readonly mutex = new Lock();
  private connection: Monitor | null = null;
  private connecting: Promise<Monitor | null> | null = null;

  constructor(
    uuid: string,
    context: HostContext,
    listener: GuestListener,
    schemas: Map<string, Promise<Schema>>,
  ) {
    this.uuid = uuid;
    this.context = context;
    this.listener = listener;
    this.schemas = schemas;
  }

  /** The domain's lock; one verb at a time changes a domain. */
  readonly lock = {
    run: <T>(body: () => Promise<T>): Promise<T> =>
      this.mutex.run(body, {
        ms: LOCK_PATIENCE_MS,
        error: () =>
          new BusyError(
            `cannot acquire state change lock (held by monitor=${this.doing}); try again when it is through`,
          ),
      }),
  };

  /** Whether somebody has the lock, or waits for it. */
  get isBusy(): boolean {
    return this.mutex.busy;
  }

  /** Closes the connection; the guest goes on. */
  async detach(): Promise<void> {
    const monitor = this.connection;
    this.connection = null;
    await monitor?.[Symbol.asyncDispose]();
  }

  /** What this domain's plans act on. */
  world(): DomainWorld {
    return {
      images: this.context.images,
      fuses: hostFuses(this.context.config.qemuUser),
      record: async () => this.context.known.find(this.uuid),
      monitor: () => this.monitor(),
      agent: async () => this.agent(),
      startQemu: (start) => this.start(start),
      asStarted: (definition) => this.asStarted(definition),
      identify: async (pidFile) => this.identify(pidFile),
      killQemu: (pidFile) => this.kill(pidFile),
      createNvram: (path, template, how) =>
        createNvram(path, template, how, this.context.config.qemuUser),
    };
  }

  /** The agent in the guest; null: the domain does not run, or has no channel to one. */
  agent(): Agent | null {
    const channels = this.context.known.find(this.uuid)?.live?.definition.channels ?? [];
    const source = channels.find(({ name }) => name === agentPort)?.source;
    return source?.type === 'unix' && source.path !== null ? agentAt(source.path) : null;
  }

  private identify(pidFile: string): Identity | null {
    return processes.identify(pidFile, this.files().qmpSocket);
  }

  private files() {
    return filesOf(
      this.context.config,
      this.uuid,
      this.context.known.find(this.uuid)?.name ?? this.uuid,
    );
  }

  /** Null: the process is gone, or never was. Connects when it is there and we are not. */
  async monitor(): Promise<Monitor | null> {
    if (this.connection !== null) return this.connection;
    this.connecting ??= this.reconnect().finally(() => (this.connecting = null));
    return await this.connecting;
  }

  private async reconnect(): Promise<Monitor | null> {
    const { pidFile, qmpSocket } = this.files();
    const identity = this.identify(pidFile);
    if (identity === null) return null;
    try {
      const emulator = this.context.known.find(this.uuid)?.live?.definition.emulator ?? null;
      return await this.attach(qmpSocket, emulator);
    } catch (error) {
      if (!(error instanceof QemuError) || error.qmpClass !== 'Gone') throw error;
      // Nobody listens: it is on its way out.
      await until(
        () => (processes.isAlive(identity) ? null : true),
        DEATH_TIMEOUT_MS,
        `QEMU ${identity.pid} closed its monitor and ends`,
        2,
      );
      return null;
    }
  }

  private async attach(path: string, emulator: string | null): Promise<Monitor> {
    const cache = { directory: join(this.context.config.stateDir, 'cache'), memory: this.schemas };
    const monitor = await connect({
      path,
      greetingTimeoutMs: GREETING_TIMEOUT_MS,
      ...(emulator === null ? {} : { schemaCache: { ...cache, binary: emulator } }),
    });
    this.connection = monitor;
    monitor.onEvent((event) => this.listener.onNews(this, event));
    void monitor.closed.then(() => {
      if (this.connection !== monitor) return;
      this.connection = null;
      this.listener.onGone(this);
    });
    return monitor;
  }

  private async start(start: QemuStart): Promise<void> {
    if (this.identify(start.pidFile) === null) await this.launch(start);
    if (this.connection === null) await this.attach(start.qmpSocket, start.emulator);
  }

  private async launch(start: QemuStart): Promise<void> {
    const { qemuUser } = this.context.config;
    await ownFolder(dirname(start.qmpSocket), qemuUser);
    const { exited } = await processes.launch(start, qemuUser);
    let end: string | null = null;
    void exited.then((how) => (end = how));
    const failure = (): QemuError | null =>
      end === null
        ? null
        : new QemuError(
            `process exited while connecting to monitor: ${processes.lastWords(start.logFile)} (${end}; log: ${start.logFile})`,
            { code: 'INTERNAL_ERROR' },
          );
    await until(
      async () => {
        const failed = failure();
        if (failed !== null) throw failed;
        if (this.identify(start.pidFile) === null) return null;
        return await this.attach(start.qmpSocket, start.emulator).catch((error: unknown) => {
          if (error instanceof BusyError || isSilent(error)) return null;
          throw error;
        });
      },
      START_TIMEOUT_MS,
      `start ${start.emulator}`,
      5,
    );
  }

  private async kill(pidFile: string): Promise<void> {
    const identity = this.identify(pidFile);
    // The connection ends with it; that is no news then.
    await this.detach();
    if (identity !== null) await processes.end(identity);
    await endFusesOf(pidFile);
  }

  private async asStarted(definition: Definition): Promise<Definition> {
    const monitor = await this.monitor();
    if (monitor === null) return definition;
    const chardevs = await monitor.execute('query-chardev', {});
    const ptys = new Map(
      chardevs.flatMap(({ label, filename }) =>
        filename.startsWith('pty:') ? [[label, filename.slice(4)] as const] : [],
      ),
    );
    return withTerminals(definition, ptys);
  }
}

/** Terminals that QEMU chose, by the character device that belongs to an alias. */
function withTerminals(definition: Definition, ptys: ReadonlyMap<string, string>): Definition {
  const filled = <D extends { readonly source: CharSource; readonly alias: string | null }>(
    device: D,
  ): D =>
    device.source.type === 'pty'
      ? { ...device, source: { type: 'pty', path: ptys.get(`char${device.alias}`) ?? null } }
      : device;
  const serials = definition.serials.map(filled);
  // A console that is the other face of a serial port shows that port's terminal (virDomainConsoleDef).
  const consoles = definition.consoles.map((console) =>
    console.targetType === 'serial'
      ? {
          ...console,
          source: serials.find((serial) => serial.port === console.port)?.source ?? console.source,
        }
      : filled(console),
  );
  return { ...definition, serials, consoles, channels: definition.channels.map(filled) };
}

/** Not listening yet, or met in the middle of its start: the next try finds it. */
const isSilent = (error: unknown): boolean =>
  error instanceof QemuError && (error.qmpClass === 'Gone' || error.qmpClass === 'NoAnswer');

/** The folder of QEMU's sockets and its pid file, which it makes itself. */
async function ownFolder(path: string, qemuUser: RunAs | null): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o711 });
  if (qemuUser !== null) await chown(path, qemuUser.uid, qemuUser.gid);
}

/** Whole under its name or not at all: half a store of variables would be kept for good. */
async function createNvram(
  path: string,
  template: string,
  how: 'keep' | 'reset',
  qemuUser: RunAs | null,
): Promise<void> {
  const part = `${path}.part`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o711 });
    if (how === 'reset' || !(await isThere(path))) {
      await copyFile(template, part);
      await chmod(part, 0o600);
      await syncFile(part);
      await rename(part, path);
      await syncFolder(path);
    }
    // Made by an earlier start, maybe for another user (libvirt's dynamic ownership).
    if (qemuUser !== null) await chown(path, qemuUser.uid, qemuUser.gid);
  } catch (error) {
    throw new QemuError(
      `create ${path} from ${template}: ${messageOf(error)}; check the <nvram template=>`,
      { cause: error },
    );
  }
}

const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
