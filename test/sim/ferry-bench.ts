// The daemon's inside without the daemon: real effects and a journal over one fake QEMU with a guest that writes. Every
// call that leaves it (journal, monitor, image store) goes by way of the striker; a life of the daemon ends with `restart`.

import type { BlockdevOptions } from '../../src/block/node.js';
import { chainOptions } from '../../src/block/node.js';
import type { Layer } from '../../src/block/layer.js';
import { formatNode, localPath } from '../../src/block/layer.js';
import type { Definition } from '../../src/domain/definition.js';
import type { Disk } from '../../src/domain/disk.js';
import type { ReplyOf } from '../../src/qapi/types.js';
import type { DomainRecord, LiveRecord } from '../../src/domain/record.js';
import { effects } from '../../src/job/effects/index.js';
import type { RunnerDeps } from '../../src/job/runner.js';
import { perform } from '../../src/job/runner.js';
import type { DomainWorld } from '../../src/job/world.js';
import type { Journal } from '../../src/journal/journal.js';
import { MemoryJournal } from '../../src/journal/memory.js';
import { resolveChains } from '../../src/host/chains.js';
import type { Host } from '../../src/host/host.js';
import { rotationOf, takeUp } from '../../src/host/owed.js';
import { planStart, planStop } from '../../src/plan/lifecycle.js';
import { layersOf } from '../../src/plan/refuse.js';
import type { Plan, QemuStart, Refusal } from '../../src/plan/step.js';
import type { Agent } from '../../src/qmp/agent.js';
import type { Monitor } from '../../src/qmp/monitor.js';
import { present } from '../../src/std/assert.js';
import { QemuError } from '../../src/std/errors.js';
import { Lock } from '../../src/std/queue.js';
import { FakeGuest } from '../fake/guest.js';
import { FakeQemu } from '../fake/qemu.js';
import { FakeStorage } from '../fake/storage.js';
import type { Moment } from './faults.js';
import { Crash, Striker } from './faults.js';
import { productStore } from './product-store.js';
import type { CopyWhole } from '../../src/block/copy.js';
import type { CopyImage } from '../../src/image/store.js';

export const uuid = 'c0ffee00-0000-4000-8000-000000000002';
export const pidFile = '/run/vm1.pid';
export const guestBlocks = 96;
export const sizeBytes = 1n << 20n;
const plain = { cache: null, io: null, discard: null, detectZeroes: null } as const;

const layer = (path: string, format: 'raw' | 'qcow2', index: number): Layer => ({
  source: { type: 'file', path },
  format,
  index,
});

/** A chain of two, a chain of one, a raw image. */
const chains: Readonly<Record<string, readonly Layer[]>> = {
  vda: [layer('/src/vda.qcow2', 'qcow2', 1), layer('/src/base.raw', 'raw', 2)],
  vdb: [layer('/src/vdb.qcow2', 'qcow2', 3)],
  vdc: [layer('/src/vdc.raw', 'raw', 4)],
  ...Object.fromEntries(
    ['vdd', 'vde', 'vdf', 'vdg', 'vdh'].map((target, i) => [
      target,
      [layer(`/src/${target}.qcow2`, 'qcow2', 5 + i)],
    ]),
  ),
};

/** What becomes of a QMP command instead of what it asks for; null: it goes its way. */
export type Meddle = (
  command: string,
  args: Readonly<Record<string, unknown>>,
) => (() => Promise<unknown>) | null;

/** QEMU goes at this call. */
export interface Death {
  readonly call: number;
  readonly moment: Moment;
}

interface Life {
  dead: boolean;
}

export class FerryBench {
  readonly storage = new FakeStorage();
  readonly guest: FakeGuest;
  qemu: FakeQemu;
  readonly images = productStore(this.storage, (files) => this.struck(files, 'copy'));
  journal: Journal = new MemoryJournal({ nowMs: () => 0 });
  meddle: Meddle = () => null;
  /** Of the guest in the QEMU of now. */
  fileSystems = { isFrozen: false };
  striker = new Striker();
  death: Death | null = null;
  /** Or after the first call of this method. */
  deathAfter: string | null = null;
  /** What happens while the next image is copied, once. */
  duringCopy: (() => Promise<void>) | null = null;
  /** What the host does when it hears that QEMU is gone; waits for the domain's lock. */
  stopping: Promise<unknown> | null = null;
  private abort = new AbortController();
  private life: Life = { dead: false };
  private lock = new Lock();
  private connection: { readonly raw: Monitor; readonly struck: Monitor } | null = null;

  private constructor(targets: readonly string[]) {
    this.guest = new FakeGuest(targets, { blocks: guestBlocks });
    for (const { source, format } of targets.flatMap((target) => chains[target] ?? []))
      if (source.type === 'file')
        void this.storage.create({
          path: source.path,
          format,
          sizeBytes,
          backing:
            source.path === '/src/vda.qcow2' ? { path: '/src/base.raw', format: 'raw' } : null,
        });
    this.qemu = new FakeQemu({
      storage: this.storage,
      guest: this.guest,
      blockdevs: targets.flatMap((target) => chainOptions(chains[target] ?? [], plain, false)),
      disks: Object.fromEntries(
        targets.map((target) => [target, formatNode(present(chains[target]?.[0], target))]),
      ),
    });
    for (let n = 0; n < 40; n++) this.qemu.machine.guestStep();
  }

  static async open(targets: readonly string[]): Promise<FerryBench> {
    const bench = new FerryBench(targets);
    const definition = definitionOf(targets, false);
    const live: LiveRecord = {
      id: 1,
      pid: 1,
      startTicks: 1,
      rebooting: false,
      definition: definitionOf(targets, true),
      state: { state: 'running', reason: 'booted' },
      nextIndex: 20,
      mirrors: [],
    };
    await bench.journal.record(uuid, [
      { change: 'define', definition, chains: [] },
      { change: 'start', live },
    ]);
    return bench;
  }

  async record(): Promise<DomainRecord> {
    return present(await this.journal.domain(uuid), 'the domain is persistent');
  }

  /** What a user does who suspends the guest. */
  async suspend(): Promise<void> {
    await (await this.monitor()).execute('stop', {});
    await this.journal.record(uuid, [
      { change: 'state', state: { state: 'paused', reason: 'user' } },
    ]);
  }

  /** For what is looked at before a fault: calls nobody strikes. */
  async monitor(): Promise<Monitor> {
    await this.connected();
    return present(this.connection, 'QEMU runs').raw;
  }

  deps(): RunnerDeps<DomainWorld> {
    return {
      journal: this.struck(this.journal, 'journal'),
      effects,
      world: this.world(),
      lock: { run: async (body) => await this.lock.run(body) },
      signal: this.abort.signal,
      obstacle: async () => rotationOf(await this.journal.openOperations(), uuid),
      isGone: async () =>
        !this.qemu.alive || (await this.record()).owed.some(({ record }) => record.move),
    };
  }

  /** What the verbs of a start ask of a host, unstruck: they only look. */
  host(): Host {
    const { journal, images } = this;
    return { known: { journal }, context: { images }, nowSeconds: 8 } as unknown as Host;
  }

  /** What the user does about a domain that is off; the guest boots from what is there. */
  async planStart(): Promise<Plan> {
    const record = await this.record();
    const definition = present(record.persistent, 'it is persistent');
    const resolved = await resolveChains(this.images, definition, record.chains);
    const { disks, nextIndex, attach, open, told } = await takeUp(
      this.host(),
      record,
      resolved,
      'now',
    );
    const state = { state: 'paused', reason: 'starting up' } as const;
    return planStart('start', {
      live: {
        id: 2,
        pid: 2,
        startTicks: 2,
        definition: { ...resolved, disks },
        state,
        nextIndex,
        rebooting: false,
        mirrors: [],
      },
      qemu: commandLine(disks),
      nvram: null,
      paused: false,
      attach,
      open,
      told,
      lastState: record.lastState,
      nowSeconds: 8,
    });
  }

  async perform(planned: () => Promise<Plan | Refusal>): Promise<void> {
    await perform(planned, this.deps());
  }

  /** kill -9 of QEMU, and what the host makes of it. */
  kill(): void {
    if (!this.qemu.alive) return;
    const dead = this.qemu;
    dead.kill('half');
    setImmediate(() => {
      // Its domain may have been started again by now.
      if (this.qemu === dead) void this.stop().catch(() => undefined);
    });
  }

  /** The host loses its power. A storage that lies has lost half of each unfinished copy, synced or not. */
  powerCut(storage: 'honest' | 'lies'): void {
    this.kill();
    this.storage.powerFailed(this.striker.calls % 2 === 0 ? 'none' : 'half');
    for (const [path, image] of this.storage.files)
      if (storage === 'lies' && path.endsWith('.part')) this.storage.loseHalf(image);
  }

  /** What the host does about a QEMU that is gone. */
  async stop(): Promise<void> {
    const open = await this.journal.openOperations();
    const isRunning = (await this.record()).live !== null;
    if (isRunning && open.every(({ plan }) => plan.waitsFrom === undefined)) {
      this.abort.abort();
      this.abort = new AbortController();
    }
    this.stopping ??= perform(async () => {
      const record = await this.record();
      const live = record.live;
      if (live === null) return { refusal: new Error('gone already') };
      return planStop(record, live, 'crashed', { pidFile, nowSeconds: 8, sealMs: null });
    }, this.deps()).catch((error: unknown) => {
      if (!(error instanceof Error && error.message === 'gone already')) throw error;
    });
    await this.stopping;
  }

  /** The daemon died, and another one starts. */
  async restart(): Promise<void> {
    this.life.dead = true;
    await this.connection?.raw[Symbol.asyncDispose]();
    this.connection = null;
    // Whatever the dead one still had in hand comes to nothing before the next one looks.
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.life = { dead: false };
    this.lock = new Lock();
    this.abort = new AbortController();
    this.stopping = null;
    if (this.journal instanceof MemoryJournal) this.journal = this.journal.crash();
    this.striker.restart();
    // They end with the daemon.
    this.storage.processDied('holder', 'all');
  }

  private world(): DomainWorld {
    return {
      images: this.struck(
        { ...this.images, copy: async (request) => await this.copy(request) },
        'image',
      ),
      // No scenario has a server.
      fuses: { start: noFuse, end: noFuse, check: noFuse, answer: noFuse },
      record: async () => await this.journal.domain(uuid),
      monitor: async () => await this.connected(),
      agent: async () => this.struck(this.agent, 'agent'),
      asStarted: async (definition) => definition,
      startQemu: async (start) => {
        await this.around(this.life, 'start QEMU', async () => this.startQemu(start));
      },
      identify: async () => (this.qemu.alive ? { pid: 1, startTicks: 1 } : null),
      killQemu: async () => this.qemu.kill(),
      createNvram: async () => undefined,
    };
  }

  /** In the guest: it answers when the guest runs, and refuses to freeze twice. */
  readonly agent: Agent = {
    isFrozen: async () => this.asked().isFrozen,
    freeze: async () => {
      const guest = this.asked();
      if (guest.isFrozen)
        throw new QemuError('it is disabled: frozen', { qmpClass: 'AgentRefused' });
      guest.isFrozen = true;
    },
    thaw: async () => void (this.asked().isFrozen = false),
    trim: async () => {
      this.asked();
      return 4096n;
    },
  };

  private asked(): { isFrozen: boolean } {
    if (!this.qemu.alive || this.qemu.machine.runState !== 'running')
      throw new QemuError('it does not answer', { qmpClass: 'NoAnswer' });
    return this.fileSystems;
  }

  private async copy(request: CopyImage): Promise<CopyWhole> {
    const meanwhile = this.duringCopy;
    this.duringCopy = null;
    await meanwhile?.();
    return await this.images.copy(request);
  }

  private startQemu({ argv }: QemuStart): void {
    if (this.qemu.alive) return;
    // What `commandLine` made.
    const disks = JSON.parse(present(argv[0], 'disks')) as CommandLine;
    for (const { target, paths } of disks) {
      const top = present(paths[0], 'a chain is never empty');
      this.guest.reboot(target, (block) => this.storage.read(top, block, paths));
    }
    this.qemu = new FakeQemu({
      storage: this.storage,
      guest: this.guest,
      blockdevs: disks.flatMap(({ blockdevs }) => blockdevs),
      disks: Object.fromEntries(disks.map(({ target, root }) => [target, root])),
      state: 'prelaunch',
    });
    this.connection = null;
    this.stopping = null;
    this.fileSystems = { isFrozen: false };
  }

  private async connected(): Promise<Monitor | null> {
    if (!this.qemu.alive) return null;
    if (this.connection === null) {
      const { life } = this;
      const raw = await this.qemu.connect();
      const execute: Monitor['execute'] = async (command, args, options) =>
        await this.around(life, `qmp ${command}`, async () => {
          const instead = this.meddle(command, { ...args });
          if (instead === null) return await raw.execute(command, args, options);
          return (await instead()) as ReplyOf<typeof command>; // who meddles knows what is answered
        });
      this.connection = { raw, struck: Object.assign(Object.create(raw) as Monitor, { execute }) };
    }
    return this.connection.struck;
  }

  private struck<T extends object>(target: T, name: string): T {
    const { life } = this;
    return new Proxy(target, {
      get: (object, key) => {
        const value: unknown = Reflect.get(object, key, object);
        if (typeof value !== 'function') return value;
        return async (...args: unknown[]) =>
          await this.around(
            life,
            `${name} ${String(key)}`,
            async () => (await Reflect.apply(value, object, args)) as unknown,
          );
      },
    });
  }

  private async around<T>(life: Life, method: string, body: () => Promise<T>): Promise<T> {
    if (life.dead) throw new Crash('the process is gone');
    const call = this.striker.calls;
    this.dieAt(call, 'before');
    return await this.striker.around(method, async () => {
      const value = await body();
      this.dieAt(call, 'after');
      if (method === this.deathAfter) this.kill();
      return value;
    });
  }

  private dieAt(call: number, moment: Moment): void {
    if (this.death?.call === call && this.death.moment === moment) this.kill();
  }
}

const noFuse = async (): Promise<never> => {
  throw new Error('the fake has no NBD servers');
};

type CommandLine = readonly {
  readonly target: string;
  readonly root: string;
  readonly paths: readonly string[];
  readonly blockdevs: readonly BlockdevOptions[];
}[];

function commandLine(disks: readonly Disk[]): QemuStart {
  const list: CommandLine = disks.map((disk) => {
    const layers = layersOf(disk);
    return {
      target: disk.target,
      root: formatNode(present(layers[0], 'a disk has an image')),
      paths: layers.map(({ source }) => present(localPath(source), 'a file')),
      blockdevs: chainOptions(layers, disk.driver, false),
    };
  });
  return {
    emulator: 'qemu',
    argv: [JSON.stringify(list)],
    env: {},
    pidFile,
    qmpSocket: '/run/vm1.qmp',
    logFile: '/log/vm1.log',
  };
}

/** Only what planners and records look at. */
function definitionOf(targets: readonly string[], running: boolean): Definition {
  const disks = targets.map((target): Disk => {
    const [top, ...below] = present(chains[target], target);
    const layerTop = present(top, 'a chain is never empty');
    return {
      device: 'disk',
      target,
      bus: 'virtio',
      source: layerTop.source,
      index: running ? layerTop.index : null,
      format: layerTop.format,
      driver: plain,
      backing: running ? below : null,
      openEnded: false,
      mirror: null,
      readonly: false,
      shareable: false,
      serial: null,
      bootOrder: null,
      snapshot: null,
      address: null,
      alias: null,
    };
  });
  return { uuid, name: 'vm1', disks, onPoweroff: 'destroy' } as unknown as Definition;
}
