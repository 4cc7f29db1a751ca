// What it costs to go on after QEMU's death: bytes written for the destination after it ÷ what was still to be copied at
// that moment (data extents of the base that the copy does not hold yet + allocated clusters of the live layer).
// Once with a mirror in step, once at 90 % of a move, and a move that nothing happens to beside.
//
// Bytes are counted by the kernel: `wchar` of /proc/PID/io, every byte that ferryd (its threads and its children too) and
// the new QEMU hand to a write call. The guest stands still from the new QEMU's first instruction on, so all of it is
// the product's own.

import { existsSync, readFileSync, statSync } from 'node:fs';
import { open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import type { Extent } from '../../src/block/copy.js';
import { dataExtents } from '../../src/image/extents.js';
import { openJournal } from '../../src/journal/sqlite.js';
import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import type { Ferryd } from '../../test/lib/ferryd.js';
import { withLab, type Lab, type LabGuest } from '../../test/lib/lab.js';
import { mirror, qemuPid, untilOff, untilReady, writeMore } from '../../test/lib/mirrored.js';
import { killNow } from '../../test/lib/process.js';
import { verifyChains } from '../../test/lib/verify.js';

const MiB = 1 << 20;
/** Where the guest writes: the beginning of the disk. */
const spanMiB = 64;
const writer = { resume: 1, span: spanMiB, sync: 64, delay: 0 } as const;
/** What the copy of a base is made to take, so that the guest writes its layer meanwhile, and 90 % can be met. */
const COPY_SECONDS = 6;
/** Of 4 KiB in random places of the span: they touch three quarters of its clusters. */
const WRITES = 1500;

const sum = (extents: readonly Extent[]): number =>
  extents.reduce((total, { length }) => total + length, 0);

export interface Case {
  readonly dataMiB: number;
  readonly sizeMiB: number;
  readonly format: 'raw' | 'qcow2';
}

export interface Written {
  /** What was missing when QEMU died. */
  readonly left: Unfinished;
  readonly bytes: number;
  /** With the merge of the live layer, which ends every move. */
  readonly withCommitBytes: number | null;
}

interface Base {
  readonly format: Case['format'];
  readonly file: string;
  /** Of data that is in it before its guest starts. */
  readonly bytes: number;
}

/** Data that no file system makes smaller, in pieces of 1 MiB all over the disk behind what the guest writes. */
async function makeDisk(lab: Lab, { dataMiB, sizeMiB, format }: Case): Promise<Base> {
  const raw = join(lab.a, 'vda.raw');
  const pieces = Math.min(dataMiB, sizeMiB - spanMiB);
  const stride = Math.floor((sizeMiB - spanMiB) / pieces);
  const random = await open('/dev/urandom');
  const piece = Buffer.alloc(MiB);
  await random.read(piece);
  await random.close();
  const file = await open(raw, 'w');
  await file.truncate(sizeMiB * MiB);
  for (let i = 0; i < pieces; i++) await file.write(piece, 0, MiB, (spanMiB + i * stride) * MiB);
  await file.close();
  const bytes = pieces * MiB;
  if (format === 'raw') return { format, file: raw, bytes };
  const qcow2 = join(lab.a, 'vda.qcow2');
  await lab.qemuImg('convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2);
  await rm(raw);
  return { format, file: qcow2, bytes };
}

async function runningOn(lab: Lab, { file, format }: Base): Promise<LabGuest> {
  const guest = await lab.guest({ name: 'vm1', disks: [{ file, format }], writer });
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(300);
  return guest;
}

const wchar = (pid: number): number =>
  Number(/^wchar: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1]);

/** Bytes of the data that a file has, as the file system tells it; what is not on its disk yet counts too. */
const dataOf = async (lab: Lab, path: string): Promise<number> =>
  sum(await dataExtents(lab.qemu.img, path, (await stat(path)).size));

/** Bytes of the clusters that are allocated in the top image of a chain. */
async function allocatedOf(lab: Lab, image: string): Promise<number> {
  const map = await lab.qemuImg('map', '-U', '-f', 'qcow2', '--output=json', image);
  const parts = JSON.parse(map) as (Extent & { depth: number })[]; // printed by qemu-img
  return sum(parts.filter(({ depth }) => depth === 0));
}

interface Unfinished {
  readonly base: number;
  readonly live: number;
}

/** All that was acknowledged is there; of the disk only what the guest writes is read. */
async function nothingLost(guest: LabGuest, file: string, driver: 'qcow2' | 'raw'): Promise<void> {
  const image = { driver, 'read-only': true, file: { driver: 'file', filename: file } };
  const node = { driver: 'raw', size: spanMiB * MiB, file: image };
  const verdict = await verifyChains([{ node }], {
    acked: guest.serial.acked(),
    state: 'crashed',
    writer,
  });
  if (!verdict.ok) throw new Error(`${file}: ${JSON.stringify(verdict)}`);
}

/** A mirror in step is lost with its QEMU; counted until it is in step again. */
async function ready(lab: Lab, daemon: Ferryd, base: Base): Promise<Written> {
  const guest = await runningOn(lab, base);
  await mirror(lab, 1);
  await writeMore(guest, WRITES);
  await untilReady(lab, 1);
  const left = { base: 0, live: 0 };
  const before = await die(daemon, await qemuPid(lab), async () => {
    left.live = await allocatedOf(lab, join(lab.a, 'vda.s1'));
  });
  await untilOff(lab);
  await lab.mustVirsh('start', 'vm1', '--paused');
  await untilReady(lab, 1);
  const written = wchar(daemon.pid) - before + wchar(await qemuPid(lab));
  await lab.mustVirsh('destroy', 'vm1');
  await nothingLost(guest, join(lab.b, 'vda.s1'), 'qcow2');
  return { left, bytes: written, withCommitBytes: null };
}

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

/** Counts what ferryd and the QEMU after `dead` write, again and again. */
class Counting implements Disposable {
  readonly samples: Sample[] = [];
  private readonly timer: NodeJS.Timeout;

  constructor(ferryd: number, pidFile: string, dead: number) {
    this.timer = setInterval(() => {
      const qemu = existsSync(pidFile)
        ? Number.parseInt(readFileSync(pidFile, 'utf8'), 10)
        : Number.NaN;
      if (Number.isNaN(qemu) || qemu === dead) return;
      this.samples.push({ atMs: Date.now(), bytes: wchar(ferryd) + wchar(qemu) });
    }, 3);
  }

  /** The count as it was at that time. */
  at(ms: number): number {
    return present(
      this.samples.findLast(({ atMs }) => atMs <= ms),
      'QEMU was counted by then',
    ).bytes;
  }

  [Symbol.dispose](): void {
    clearInterval(this.timer);
  }
}

/**
 * Kills QEMU while ferryd stands still, so that all numbers that `look` takes are of the moment of the death. Resolves to
 * what ferryd has written by then, together with the dead QEMU: a parent takes over what its children wrote.
 */
async function die(daemon: Ferryd, qemu: number, look: () => Promise<void>): Promise<number> {
  process.kill(daemon.pid, 'SIGSTOP');
  try {
    killNow(qemu);
    const isZombie = (): true | null =>
      /^State:\s+Z/m.test(readFileSync(`/proc/${qemu}/status`, 'utf8')) ? true : null;
    await until(isZombie, 20_000, 'end of QEMU');
    await look();
    return wchar(daemon.pid) + wchar(qemu);
  } finally {
    process.kill(daemon.pid, 'SIGCONT');
  }
}

/** Resolves when a share of the base is in the copy. */
async function copied(part: string, bytes: number): Promise<void> {
  // It goes and comes again while the copier tries what its storage can do.
  const look = (): boolean =>
    (statSync(part, { throwIfNoEntry: false })?.blocks ?? 0) * 512 >= bytes;
  const endMs = performance.now() + 120_000;
  while (!look()) {
    if (performance.now() > endMs) throw new Error(`${part}: not copied in time`);
    await setTimeout(2);
  }
}

/**
 * QEMU dies at 90 % of a move; counted until all of it is at the destination: base copied, live layer in step, guest
 * switched. The commit of the live layer, which ends every move, is shown beside.
 */
async function moving(lab: Lab, daemon: Ferryd, base: Base): Promise<Written> {
  const guest = await runningOn(lab, base);
  const [to, old] = [join(lab.b, `vda.${base.format}`), await qemuPid(lab)];
  const { id } = JSON.parse(
    await lab.mustFerry(
      'move',
      'vm1',
      'vda',
      '--to',
      lab.b,
      '--detach',
      '--json',
      ...slowly(base.bytes),
    ),
  ) as { id: number }; // our own CLI
  await copied(`${to}.part`, base.bytes * 0.9);
  const left = { base: 0, live: 0 };
  const before = await die(daemon, old, async () => {
    const [live = ''] = await overlays(lab);
    left.live = await allocatedOf(lab, live);
    left.base = -(await dataOf(lab, `${to}.part`));
  });
  await untilOff(lab);
  await until(
    () => (existsSync(`${to}.part`) ? null : true),
    120_000,
    'the base copy goes on to its end',
  );
  // The copier leaves out zeroes that lie in the data of the source; should it ever add some, they do not count.
  left.base += Math.min(await dataOf(lab, to), await dataOf(lab, base.file));
  const counted = await toItsEnd(lab, daemon, id, old);
  await lab.mustVirsh('destroy', 'vm1');
  await daemon.stop();
  const resumed = counted.at(await commitBegan(lab, id)) - before;
  const all = counted.at(Infinity) - before;
  await nothingLost(guest, to, base.format);
  return { left, bytes: resumed, withCommitBytes: all };
}

/** The same move, of a guest that has written as much and stands still: what one begun anew writes. */
async function fresh(lab: Lab, daemon: Ferryd, base: Base): Promise<Written> {
  const first = await runningOn(lab, base);
  await writeMore(first, WRITES);
  await lab.mustVirsh('destroy', 'vm1');
  await lab.mustVirsh('start', 'vm1', '--paused');
  const qemu = await qemuPid(lab);
  const before = wchar(daemon.pid) + wchar(qemu);
  await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b, '--progress=none');
  const bytes = wchar(daemon.pid) + wchar(qemu) - before;
  await lab.mustVirsh('destroy', 'vm1');
  const to = join(lab.b, `vda.${base.format}`);
  await nothingLost(first, to, base.format);
  const whole = Math.min(await dataOf(lab, to), await dataOf(lab, base.file));
  return { left: { base: whole, live: 0 }, bytes, withCommitBytes: bytes };
}

const bodies = { 'mirror READY': ready, 'move at 90 %': moving, 'fresh move': fresh } as const;
export type Kind = keyof typeof bodies;

/** @throws when fewer bytes were counted than were missing: then the count misses some. */
export async function writtenBy(kind: Kind, one: Case): Promise<Written> {
  return await withLab('resume', async (lab) => {
    const daemon = await lab.ferryd();
    const written = await bodies[kind](lab, daemon, await makeDisk(lab, one));
    const due = written.left.base + written.left.live;
    if (written.bytes < due)
      throw new Error(
        `${kind}: ${written.bytes} bytes written where ${due} were missing: the count misses some`,
      );
    return written;
  });
}

async function toItsEnd(lab: Lab, daemon: Ferryd, id: number, dead: number): Promise<Counting> {
  const uuid = (await lab.mustVirsh('domuuid', 'vm1')).trim();
  using counting = new Counting(daemon.pid, join(lab.runDir, 'qemu', `${uuid}.pid`), dead);
  await lab.mustVirsh('start', 'vm1', '--paused');
  await lab.mustFerry('ops', 'wait', String(id));
  return counting;
}

/** When the step began that follows the switch to the destination. */
async function commitBegan(lab: Lab, id: number): Promise<number> {
  await using journal = openJournal({ stateDir: lab.stateDir });
  const { plan, entries } = present(await journal.operation(id), 'the move is in the journal');
  const step = plan.steps.findIndex(({ kind }) => kind === 'start-commit');
  return present(
    entries.find(({ entry }) => 'step' in entry && entry.step === step),
    'the move came to its commit',
  ).atMs;
}

const slowly = (bytes: number): readonly string[] => [
  '--bandwidth',
  `${Math.ceil(bytes / MiB / COPY_SECONDS)}M`,
];

/** What the move put on top of the disk. */
const overlays = async (lab: Lab): Promise<readonly string[]> =>
  (await readdir(lab.a)).filter((file) => file.includes('.move-')).map((file) => join(lab.a, file));
