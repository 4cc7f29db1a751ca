// A laboratory for tests with real processes: one short-lived directory with two storages, a run and a state directory
// for the daemon, and the clients that talk to it. Whatever was started in it is gone afterwards.

import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { until } from '../../src/std/deadline.js';
import { BareGuest, type BareOptions } from './bare.js';
import { Ferryd, type FerrydOptions } from './ferryd.js';
import { domainXml, type DomainDisk, type DomainOptions } from './guest.js';
import {
  killNow,
  must,
  processesOf,
  root,
  run,
  type Finished,
  type RunOptions,
} from './process.js';
import { testQemus, type TestQemu } from './qemu.js';
import { SerialWatch } from './serial.js';

/** Between two writes of a guest that says nothing else: one that writes flat out takes a whole core under emulation. */
const BREATH_US = 4000;

/** Runs `body` in a new lab, and clears up after it. A failure is shown with the daemon's last log lines. */
export async function withLab<T>(
  name: string,
  body: (lab: Lab) => Promise<T>,
  qemu: TestQemu = testQemus()[0],
): Promise<T> {
  await using lab = await Lab.open(name, qemu);
  try {
    return await body(lab);
  } catch (error) {
    for (const daemon of lab.daemons) console.error(`ferryd of '${name}':\n${daemon.logTail()}`);
    throw error;
  }
}

export interface LabGuestOptions extends Partial<Omit<DomainOptions, 'disks' | 'serialFile'>> {
  readonly name: string;
  /** How many disks to create on storage A (default 1), or disks that are there already. */
  readonly disks?: number | readonly DomainDisk[];
  readonly sizeMiB?: number;
  readonly format?: 'qcow2' | 'raw';
}

export interface LabGuest {
  readonly xml: string;
  readonly xmlFile: string;
  /** The active images that it starts with, in the order of its disks. */
  readonly files: readonly string[];
  readonly serial: SerialWatch;
}

export class Lab implements AsyncDisposable {
  readonly name: string;
  /** Short, because the path of a Unix socket has to fit into 107 bytes. */
  readonly directory: string;
  /** The storage that guests start on. */
  readonly a: string;
  /** The other storage. */
  readonly b: string;
  readonly runDir: string;
  readonly stateDir: string;
  readonly uri: string;
  readonly qemu: TestQemu;
  /** All daemons started here, the last one last. */
  readonly daemons: Ferryd[] = [];
  private readonly watches: SerialWatch[] = [];
  private readonly bareGuests: BareGuest[] = [];

  private constructor(name: string, directory: string, qemu: TestQemu) {
    this.name = name;
    this.directory = directory;
    this.qemu = qemu;
    this.a = join(directory, 'a');
    this.b = join(directory, 'b');
    this.runDir = join(directory, 'run');
    this.stateDir = join(directory, 'state');
    this.uri = `qemu+unix:///system?socket=${this.runDir}/libvirt-sock`;
  }

  static async open(name: string, qemu: TestQemu): Promise<Lab> {
    const lab = new Lab(
      name,
      await mkdtemp(join(process.env['FERRY_LAB_PARENT'] ?? '/tmp', 'bf-')),
      qemu,
    );
    await Promise.all([lab.a, lab.b, lab.runDir, lab.stateDir].map((path) => mkdir(path)));
    return lab;
  }

  /** Starts the daemon, and waits for its `ready` line. Only one runs at a time. */
  async ferryd(options: FerrydOptions = {}): Promise<Ferryd> {
    const daemon = Ferryd.start({ runDir: this.runDir, stateDir: this.stateDir, ...options });
    this.daemons.push(daemon);
    await daemon.ready();
    return daemon;
  }

  async virsh(...args: readonly string[]): Promise<Finished> {
    return await run('/usr/bin/virsh', ['-c', this.uri, ...args]);
  }

  /** What virsh printed; an error when it failed. */
  async mustVirsh(...args: readonly string[]): Promise<string> {
    return await must('/usr/bin/virsh', ['-c', this.uri, ...args]);
  }

  /** Runs Python with `libvirt` imported and `conn` open to the daemon. */
  async python(script: string, options: RunOptions = {}): Promise<Finished> {
    const input = `import libvirt, sys\nconn = libvirt.open(${JSON.stringify(this.uri)})\n${script}\n`;
    return await run('/usr/bin/python3', ['-'], { ...options, input });
  }

  async ferry(...args: readonly string[]): Promise<Finished> {
    const env = { FERRY_RUN_DIR: this.runDir, FERRY_STATE_DIR: this.stateDir };
    return await run(join(root, 'bin/ferry'), args, { env });
  }

  async mustFerry(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.ferry(...args);
    if (code !== 0) throw new Error(`ferry ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
    return stdout;
  }

  async qemuImg(...args: readonly string[]): Promise<string> {
    return await must(this.qemu.img, args);
  }

  async createImage(
    file: string,
    {
      sizeMiB = 128,
      format = 'qcow2',
    }: { readonly sizeMiB?: number; readonly format?: 'qcow2' | 'raw' } = {},
  ): Promise<string> {
    await this.qemuImg('create', '-q', '-f', format, file, `${sizeMiB}M`);
    return file;
  }

  /** Makes the disks and the XML of a writing guest. It is not started: `virsh create` or `define` its `xmlFile`. */
  async guest(options: LabGuestOptions): Promise<LabGuest> {
    const { name, format = 'qcow2', sizeMiB = 128, disks = 1 } = options;
    const serialFile = join(this.directory, `${name}.serial`);
    const xmlFile = join(this.directory, `${name}.xml`);
    const list =
      typeof disks === 'number' ? await this.createDisks(name, disks, { sizeMiB, format }) : disks;
    const xml = await domainXml({
      emulator: this.qemu.system,
      ...options,
      writer: { delay: BREATH_US, ...options.writer },
      disks: list,
      serialFile,
    });
    await writeFile(xmlFile, xml);
    return { xml, xmlFile, files: list.map((disk) => disk.file), serial: this.watch(serialFile) };
  }

  /** Starts a QEMU of its own, without the daemon. */
  async bare(options: Omit<BareOptions, 'directory'>): Promise<BareGuest> {
    const guest = await BareGuest.start({
      directory: this.runDir,
      qemu: this.qemu.system,
      ...options,
    });
    this.bareGuests.push(guest);
    return guest;
  }

  watch(serialFile: string): SerialWatch {
    const watch = new SerialWatch(serialFile);
    this.watches.push(watch);
    return watch;
  }

  /** What is still there: the command lines of processes, and the files, of this lab. */
  async leftovers(): Promise<{
    readonly processes: readonly string[];
    readonly files: readonly string[];
  }> {
    const processes = (await this.processes()).map((one) => one.command);
    const files = await readdir(this.directory, { recursive: true }).catch((): string[] => []);
    return { processes, files: files.toSorted() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const watch of this.watches) watch[Symbol.dispose]();
    // Daemons first, so that they do not start again what is killed next.
    await Promise.all(this.daemons.map((daemon) => daemon.kill9()));
    await Promise.all(this.bareGuests.map((guest) => guest[Symbol.asyncDispose]()));
    await until(
      async () => await this.killAll(),
      20_000,
      `lab '${this.name}': end of its processes`,
    );
    if (process.env['FERRY_KEEP_LAB'] === '1')
      console.error(`lab '${this.name}' is kept in ${this.directory}`);
    else await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  private async createDisks(
    name: string,
    count: number,
    shape: { readonly sizeMiB: number; readonly format: 'qcow2' | 'raw' },
  ): Promise<DomainDisk[]> {
    const targets = Array.from({ length: count }, (_, i) => `vd${String.fromCodePoint(97 + i)}`);
    return await Promise.all(
      targets.map(async (target) => ({
        file: await this.createImage(join(this.a, `${name}-${target}.${shape.format}`), shape),
        format: shape.format,
        target,
      })),
    );
  }

  private async killAll(): Promise<true | null> {
    const left = await this.processes();
    for (const { pid } of left) killNow(pid);
    return left.length === 0 ? true : null;
  }

  /** By command line and working directory, and by the pid files of the run directory. */
  private async processes(): Promise<
    readonly { readonly pid: number; readonly command: string }[]
  > {
    const seen = await processesOf(this.directory);
    const names = await readdir(this.runDir, { recursive: true }).catch(() => []);
    const files = names.filter((name) => name.endsWith('.pid'));
    const named = await Promise.all(files.map((name) => runningOf(join(this.runDir, name))));
    const more = named.filter(
      (one) => one !== null && seen.every((other) => other.pid !== one.pid),
    );
    return [...seen, ...more.filter((one) => one !== null)];
  }
}

/** The QEMU that a pid file names, if it still runs: the number may be another program's by now. */
async function runningOf(
  pidFile: string,
): Promise<{ readonly pid: number; readonly command: string } | null> {
  const pid = Number.parseInt(await readFile(pidFile, 'utf8').catch(() => ''), 10);
  if (!(pid > 1)) return null;
  const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll(
    '\0',
    ' ',
  );
  return command.includes('qemu') ? { pid, command } : null;
}
