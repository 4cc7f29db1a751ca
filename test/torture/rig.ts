// One place of torture: a lab with a struck daemon, one that waits to take its place, and a writing guest that lives
// through as many strikes as it can. Says nothing about what has to hold; see checks.ts.

import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import type { DomainSummary, OperationView, StreamedEvent } from '../../src/host/ferry-host.js';
import { ferryClient, type FerryClient } from '../../src/http/client.js';
import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { FerryError } from '../../src/std/errors.js';
import { Ferryd } from '../lib/ferryd.js';
import type { Writer } from '../lib/guest.js';
import type { Lab, LabGuest } from '../lib/lab.js';
import { root } from '../lib/process.js';
import { verifyChains, type Verdict } from '../lib/verify.js';
import { strikeLog, strikeWaits, type Blow, type Note } from './blow.js';
import { MonitorDoor } from './monitor-door.js';
import { afterPowerCut } from './power-cut.js';
import { namedDisks } from './view.js';

/** Small, and with pauses between writes: what counts is how often, not how much. */
const calmWriter = { resume: 1, span: 8, delay: 4000 } as const satisfies Writer;
const sizeMiB = 16;
/** Further overlays would make each step slower; a guest with that many images below it has served. */
const deepest = 10;

type OptionsOf<V extends 'start' | 'startMove'> = Parameters<FerryClient[V]>[1];

/** virDomainSuspend and virDomainResume. */
const [SUSPEND, RESUME] = [34, 28];

/** The API's client; options that are not given have the API's own defaults. */
export type RigClient = Omit<FerryClient, 'start' | 'startMove'> & {
  start(domain: string): Promise<DomainSummary>;
  startMove(
    domain: string,
    move: { readonly disks: readonly string[]; readonly to: string },
  ): Promise<OperationView>;
};

export interface Life {
  /** Name of the domain: each life has its own, with images of its own. */
  readonly name: string;
  readonly uuid: string;
  readonly guest: LabGuest;
}

export class Rig implements AsyncDisposable {
  readonly lab: Lab;
  readonly disks: number;
  readonly client: RigClient;
  readonly monitor: MonitorDoor;
  /** By its user: it stays so whatever happens. */
  isSuspended = false;
  private readonly writer: Writer;
  private readonly log: string;
  private logRead = 0;
  private lastEvent = 0;
  private lastOperation = 0;
  private lives = 0;
  private numbers = 0;
  private current: Ferryd | null = null;
  private next: Ferryd | null = null;
  private living: Life | null = null;

  private constructor(lab: Lab, disks: number, writer: Writer) {
    this.lab = lab;
    this.writer = writer;
    this.disks = disks;
    const client = ferryClient(join(lab.runDir, 'ferry.sock'));
    this.client = {
      ...client,
      // What is not sent has its default there.
      start: async (domain) => await client.start(domain, {} as OptionsOf<'start'>),
      startMove: async (domain, move) =>
        await client.startMove(domain, move as OptionsOf<'startMove'>),
    };
    this.monitor = new MonitorDoor(join(lab.runDir, 'libvirt-sock'));
    this.log = join(lab.directory, 'points');
  }

  /** `breathUs`: what the guest pauses between writes. */
  static async open(lab: Lab, disks: number, breathUs: number = calmWriter.delay): Promise<Rig> {
    const rig = new Rig(lab, disks, { ...calmWriter, delay: breathUs });
    await rig.daemonUp();
    return rig;
  }

  get targets(): readonly string[] {
    return Array.from({ length: this.disks }, (_, i) => `vd${String.fromCodePoint(97 + i)}`);
  }

  get life(): Life {
    return present(this.living, 'a guest was made');
  }

  get daemon(): Ferryd {
    return present(this.current, 'a daemon was started');
  }

  /** Numbers for names that were never used before. */
  number(): number {
    return ++this.numbers;
  }

  /** The daemon that waited takes over; the next one begins to wait. */
  async daemonUp(blow: Blow | null = null): Promise<void> {
    const daemon = this.next ?? this.waiting();
    this.current = daemon;
    this.next = null;
    if (blow !== null) await daemon.tell({ do: 'arm', blow });
    await daemon.tell({ do: 'go' });
    await daemon.ready().catch((error: unknown) => {
      // Struck while it starts: it is gone then, and the next one is called.
      if (blow === null || daemon.running()) throw error;
    });
    this.next = this.waiting();
  }

  private waiting(): Ferryd {
    const { runDir, stateDir } = this.lab;
    const daemon = Ferryd.start({
      runDir,
      stateDir,
      preload: join(root, 'dist/test/torture/strike.js'),
      env: { [strikeLog]: this.log, [strikeWaits]: '1' },
    });
    // Lets the dead go, but for what the last ones said.
    this.lab.daemons.splice(0, Math.max(0, this.lab.daemons.length - 4));
    this.lab.daemons.push(daemon);
    return daemon;
  }

  /** Points are counted from now on. */
  async arm(blow: Blow | null): Promise<void> {
    await this.notes();
    await this.daemon.tell({ do: 'arm', blow });
  }

  async disarm(): Promise<void> {
    // It may just have been killed.
    if (this.daemon.running()) await this.daemon.tell({ do: 'disarm' }).catch(() => undefined);
  }

  /** What daemons wrote down since this was asked last. */
  async notes(): Promise<readonly Note[]> {
    const text = await readFile(this.log, 'utf8').catch(() => '');
    const lines = text.slice(this.logRead).split('\n').filter(Boolean);
    this.logRead = text.length;
    return lines.map((line) => JSON.parse(line) as Note); // striker.ts wrote it
  }

  /** Events since this was asked last. */
  async newEvents(): Promise<readonly StreamedEvent[]> {
    const events = await this.client.pastEvents(this.lastEvent);
    this.lastEvent = events.at(-1)?.seq ?? this.lastEvent;
    return events;
  }

  /** Operations that began since this was asked last, oldest first. */
  async newOperations(): Promise<readonly OperationView[]> {
    const found: OperationView[] = [];
    for (;;) {
      const next = await this.client.operation(this.lastOperation + 1).catch((error: unknown) => {
        if (error instanceof FerryError && error.code === 'NO_OPERATION') return null;
        throw error;
      });
      if (next === null) return found;
      found.push(next);
      this.lastOperation = next.id;
    }
  }

  /** After a strike: what the power cut takes from the files, and the next daemon, which `blow` may strike in its turn. */
  async daemonAgain(notes: readonly Note[], blow: Blow | null = null): Promise<void> {
    this.monitor.close();
    const struck = notes.find((note) => 'struck' in note);
    if (struck?.struck.deed === 'host') {
      // The one that waits has been there before the power went; that is no matter, it did nothing yet.
      await afterPowerCut(this.lab.runDir, struck.unsynced);
    }
    await this.daemonUp(blow);
  }

  async suspend(): Promise<void> {
    await this.monitor.tell(this.life, SUSPEND);
    this.isSuspended = true;
  }

  async resume(): Promise<void> {
    await this.monitor.tell(this.life, RESUME);
    this.isSuspended = false;
  }

  /** A guest with fresh images, defined, running and writing. */
  async newLife(): Promise<void> {
    const name = `vm${++this.lives}`;
    const guest = await this.lab.guest({ name, disks: this.disks, sizeMiB, writer: this.writer });
    await this.client.define(guest.xml);
    const { uuid } = await this.client.start(name);
    this.living = { name, uuid, guest };
    await guest.serial.waitAcked(64, 120_000);
  }

  /** Every life but the first begins where the one before has ended. */
  async ensureLife(): Promise<Verdict | null> {
    if (this.living === null) {
      await this.newLife();
      return null;
    }
    const xml = await this.client.dumpXml(this.life.name, { inactive: false });
    if (namedDisks(xml).every(({ chain }) => chain.length < deepest)) return null;
    const verdict = await this.endLife();
    await this.newLife();
    return verdict;
  }

  /** Ends the guest, asks the verifier, and forgets domain and images. */
  async endLife(): Promise<Verdict> {
    const { name, guest } = this.life;
    if ((await this.client.showDomain(name)).id !== null) await this.client.destroy(name);
    const verdict = await this.verify();
    await this.client.undefine(name, { snapshotsMetadata: true, nvram: null });
    guest.serial[Symbol.dispose]();
    this.living = null;
    await this.sweep();
    return verdict;
  }

  /** What the live images hold of what the guest was told to be safe. They are read as they are. */
  async verify(): Promise<Verdict> {
    const { name, guest } = this.life;
    const disks = await this.client.chain(name);
    const images = disks.map(({ chain }) => ({ node: nodeOf(chain) }));
    return await verifyChains(images, {
      acked: guest.serial.acked(),
      state: 'crashed',
      writer: this.writer,
      qemuImg: this.lab.qemu.img,
    });
  }

  /** Files of domains that are no more. */
  private async sweep(): Promise<void> {
    for (const folder of [this.lab.a, this.lab.b]) {
      await rm(folder, { recursive: true });
      await mkdir(folder);
    }
  }

  /** A folder on the other storage that nothing was moved to yet. */
  async freshFolder(): Promise<string> {
    const folder = join(this.lab.b, `to-${this.number()}`);
    await mkdir(folder);
    return folder;
  }

  /** Snapshot XML of all disks, and its name. */
  snapshot(kind: 'plain' | 'mirrored'): { readonly name: string; readonly xml: string } {
    const number = this.number();
    const disks = this.targets.map((target) => {
      const source = `<source file='${join(this.lab.a, `${target}-${number}.snap`)}'/>`;
      const mirror = `<mirror file='${join(this.lab.b, `${target}-${number}.mirror`)}'/>`;
      const inside = kind === 'plain' ? source : `${source}${mirror}`;
      return `<disk name='${target}' snapshot='external'>${inside}</disk>`;
    });
    const name = `s${number}`;
    return {
      name,
      xml: `<domainsnapshot><name>${name}</name><disks>${disks.join('')}</disks></domainsnapshot>`,
    };
  }

  async until<T>(what: string, probe: () => Promise<T | null>, timeoutMs = 60_000): Promise<T> {
    return await until(probe, timeoutMs, what, 10);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.monitor.close();
    await this.next?.kill9();
    await this.current?.kill9();
  }
}

interface ChainImage {
  readonly path: string;
  readonly format: string;
}

/** The whole chain by name, whatever headers say. */
function nodeOf(chain: readonly ChainImage[]): Readonly<Record<string, unknown>> {
  const [top, ...below] = chain;
  const { path, format } = present(top, 'a chain is never empty');
  const backing = format === 'raw' ? {} : { backing: below.length === 0 ? null : nodeOf(below) };
  return { driver: format, file: { driver: 'file', filename: path }, ...backing };
}
