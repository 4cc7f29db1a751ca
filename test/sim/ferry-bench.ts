// The daemon's inside without the daemon: real effects and a journal over one fake QEMU with a guest that writes. Every
// call that leaves it (journal, monitor, image store) goes by way of the striker; a life of the daemon ends with `restart`.

import { chainOptions } from '../../src/block/node.js';
import type { Layer } from '../../src/block/layer.js';
import { formatNode } from '../../src/block/layer.js';
import type { Definition } from '../../src/domain/definition.js';
import type { Disk } from '../../src/domain/disk.js';
import type { DomainRecord, LiveRecord } from '../../src/domain/record.js';
import { effects } from '../../src/job/effects/index.js';
import type { CopyImage, ImageStore } from '../../src/image/store.js';
import type { RunnerDeps } from '../../src/job/runner.js';
import { perform } from '../../src/job/runner.js';
import type { DomainWorld } from '../../src/job/world.js';
import type { Journal } from '../../src/journal/journal.js';
import { MemoryJournal } from '../../src/journal/memory.js';
import { planStop } from '../../src/plan/lifecycle.js';
import type { Plan, Refusal } from '../../src/plan/step.js';
import type { Monitor } from '../../src/qmp/monitor.js';
import { present } from '../../src/std/assert.js';
import { Lock } from '../../src/std/queue.js';
import { FakeGuest } from '../fake/guest.js';
import type { Health } from '../fake/job.js';
import { FakeQemu } from '../fake/qemu.js';
import { FakeStorage } from '../fake/storage.js';
import type { Moment } from './faults.js';
import { Ailing } from './ailing.js';
import { Crash, Striker } from './faults.js';
import { productStore } from './product-store.js';

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
};

/** Something that happens in the world, whoever calls, at this call. */
export interface Trigger {
  readonly call: number;
  readonly moment: Moment;
  readonly act: () => void;
}

export interface BenchOptions {
  readonly domain?: 'persistent' | 'transient';
  /** What its user made of it. */
  readonly guest?: 'running' | 'suspended';
}

/** Turns of the event loop without a call, after which nothing more is expected to happen by itself. */
const longestQuiet = 300;

interface Life {
  dead: boolean;
}

export class FerryBench {
  readonly storage = new FakeStorage();
  readonly guest: FakeGuest;
  readonly qemu: FakeQemu;
  readonly images = productStore(this.storage);
  journal: Journal = new MemoryJournal({ nowMs: () => 0 });
  striker = new Striker();
  trigger: Trigger | null = null;
  /** Whether some storage was ill, if only for a while. */
  wasIll = false;
  private readonly ailing = new Ailing();
  /** What the host does when it hears that QEMU is gone; waits for the domain's lock. */
  stopping: Promise<unknown> | null = null;
  private healing: () => void = () => undefined;
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

  static async open(
    targets: readonly string[],
    { domain = 'persistent', guest = 'running' }: BenchOptions = {},
  ): Promise<FerryBench> {
    const bench = new FerryBench(targets);
    const definition = definitionOf(targets, false);
    const live: LiveRecord = {
      id: 1,
      pid: 1,
      startTicks: 1,
      rebooting: false,
      definition: definitionOf(targets, true),
      state:
        guest === 'running'
          ? { state: 'running', reason: 'booted' }
          : { state: 'paused', reason: 'user' },
      nextIndex: 10,
      mirrors: [],
    };
    if (guest === 'suspended') bench.qemu.machine.runState = 'paused';
    const defined = { change: 'define', definition, chains: [] } as const;
    await bench.journal.record(uuid, [
      ...(domain === 'persistent' ? [defined] : []),
      { change: 'start', live },
    ]);
    return bench;
  }

  async record(): Promise<DomainRecord> {
    return present(await this.journal.domain(uuid), 'it is persistent, or it runs');
  }

  /** From now on the storage below a folder is ill, for QEMU and for us. */
  ail(folder: string, health: Health): void {
    this.wasIll = true;
    this.ailing.ail(folder, health);
    this.qemu.setHealth(folder, health);
    this.healing = () => this.qemu.setHealth(folder, 'ok');
  }

  /** It is well again; jobs that its errors paused go on, as the host's keeper lets them. */
  heal(): void {
    this.ailing.heal();
    this.healing();
    for (const job of this.qemu.machine.jobs.values())
      if (job.paused && job.ioStatus !== 'ok' && !job.isOver) job.resume();
    this.qemu.machine.pump();
  }

  /** Sees to it that `work` ends: whatever waits for ill storage does so until nothing else happens. */
  async healedWhenStuck(work: Promise<void>): Promise<void> {
    let isDone = false;
    const done = work.finally(() => (isDone = true));
    // It is awaited below.
    done.catch(() => undefined);
    let [quiet, calls] = [0, -1];
    while (!isDone) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      quiet = this.striker.calls === calls ? quiet + 1 : 0;
      calls = this.striker.calls;
      if (quiet > longestQuiet && this.ailing.isIll) this.heal();
    }
    await done;
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
    };
  }

  async perform(planned: () => Promise<Plan | Refusal>): Promise<void> {
    await perform(planned, this.deps());
  }

  /** kill -9 of QEMU, and what the host makes of it. */
  kill(): void {
    if (!this.qemu.alive) return;
    this.qemu.kill('half');
    setImmediate(() => void this.stop().catch(() => undefined));
  }

  /** What the host does about a QEMU that is gone. */
  async stop(): Promise<void> {
    this.abort.abort();
    this.stopping ??= perform(async () => {
      const record = await this.journal.domain(uuid);
      if (record?.live == null) return { refusal: new Error('gone already') };
      return planStop(record, record.live, 'crashed', { pidFile, nowSeconds: 8 });
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
  }

  private world(): DomainWorld {
    return {
      images: this.imagesAtWork(),
      record: async () => await this.journal.domain(uuid),
      monitor: async () => await this.connected(),
      asStarted: async (definition) => definition,
      startQemu: async () => undefined,
      identify: async () => (this.qemu.alive ? { pid: 1, startTicks: 1 } : null),
      killQemu: async () => this.qemu.kill(),
      createNvram: async () => undefined,
    };
  }

  /** A copy is cut off in its middle too. */
  imagesAtWork(): ImageStore {
    const images = this.ailing.over(this.images);
    const work = this.struck(images, 'image');
    const { life } = this;
    return Object.assign(Object.create(work) as ImageStore, {
      copy: async (copy: CopyImage) => {
        await this.around(life, 'image copy, half', async () => {
          await images.copy(copy);
          this.storage.cutShort(copy.to);
        });
        await work.copy(copy);
      },
    });
  }

  private async connected(): Promise<Monitor | null> {
    if (!this.qemu.alive) return null;
    if (this.connection === null) {
      const { life } = this;
      const raw = await this.qemu.connect();
      const execute: Monitor['execute'] = async (command, args, options) =>
        await this.around(
          life,
          `qmp ${command}`,
          async () => await raw.execute(command, args, options),
        );
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
    this.pull(call, 'before');
    return await this.striker.around(method, async () => {
      const value = await body();
      this.pull(call, 'after');
      return value;
    });
  }

  private pull(call: number, moment: Moment): void {
    if (this.trigger?.call === call && this.trigger.moment === moment) this.trigger.act();
  }
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
