// One move of one disk under a guest that writes as fast as it can, by each of those that are compared, and what it did
// to the guest.

import { readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type { OperationView } from '../../src/host/ferry-host.js';
import { present } from '../../src/std/assert.js';
import type { Lab, LabGuest } from '../../test/lib/lab.js';
import { must, root } from '../../test/lib/process.js';
import { verifyChains } from '../../test/lib/verify.js';
import type { Libvirtd } from './libvirtd.js';
import type { Source } from './sources.js';
import { allocatedBytes, makeCold, spanMiB } from './sources.js';

/**
 * `cp`: `cp --sparse=always` and fsync of the same files, the limit. `none`, `full`: `ferry move` without and with
 * verification. `virsh`: `virsh blockcopy --wait --pivot`. `job`: libvirt's own job, pivoted at its READY event.
 */
export type Mover = 'cp' | 'none' | 'full' | 'virsh' | 'job';

export interface Measure {
  /** As whoever asked for it waited. */
  readonly seconds: number;
  /** Without the program that asked: as ferryd has it in its journal. Null where there is no such thing. */
  readonly ownSeconds: number | null;
  /** Numbers that the guest's writer had acknowledged in a second, before it and meanwhile. */
  readonly writesBefore: number;
  readonly writes: number;
  /** The longest time in which nothing was acknowledged. */
  readonly gapMs: number;
  /** What the destination takes ÷ what the source took. */
  readonly allocated: number;
}

export interface Bench {
  readonly lab: Lab;
  readonly libvirtd: Libvirtd;
  /** Whether `ferry move` has `--verify`. */
  readonly canVerify: boolean;
}

const writer = { resume: 1, span: spanMiB, sync: 16, delay: 0 } as const;
const LIMIT_MS = 1_200_000;
/** How long the guest is watched before each move. */
const BEFORE_MS = 2000;

let boots = 0;

/** Moves of one boot of the guest, one after the other; what they left at the destination is removed. */
export async function measure(
  bench: Bench,
  source: Source,
  movers: readonly Mover[],
): Promise<readonly Measure[]> {
  const { lab, libvirtd } = bench;
  const uri = movers.some((mover) => mover === 'virsh' || mover === 'job') ? libvirtd.uri : lab.uri;
  const name = `m${boots++}`;
  const [file = ''] = source.files;
  const disks = [{ file, format: source.format }];
  const guest = await lab.guest({ name, disks, writer });
  await must('/usr/bin/virsh', ['-c', uri, 'create', guest.xmlFile]);
  await guest.serial.waitAcked(guest.serial.acked() + 500);
  const measures: Measure[] = [];
  for (const mover of movers) {
    measures.push(await once(bench, source, guest, () => actions[mover](bench, source, name)));
    // What it wrote is there, whoever moved it; of the copy of `cp` nothing is promised.
    if (mover === movers.at(-1)) await endWell(lab, uri, name, source, guest);
    for (const left of await readdir(lab.b)) await rm(join(lab.b, left));
  }
  const kept = new Set(await sourceNames(lab));
  for (const left of await readdir(lab.a)) if (!kept.has(left)) await rm(join(lab.a, left));
  guest.serial[Symbol.dispose]();
  return measures;
}

/** Seconds by the mover's own clock, where it has one. */
type Action = (bench: Bench, source: Source, name: string) => Promise<number | null>;

const actions: Readonly<Record<Mover, Action>> = {
  async cp({ lab }, { files }) {
    for (const file of files) {
      const to = join(lab.b, basename(file));
      const copy = ['--sparse=always', '--reflink=never', '--', file, to];
      await must('cp', copy, { timeoutMs: LIMIT_MS });
      await must('sync', ['--', to], { timeoutMs: LIMIT_MS });
    }
    return null;
  },
  none: (bench, _, name) => byFerry(bench, name, 'none'),
  full: (bench, _, name) => byFerry(bench, name, 'full'),
  async virsh({ lab, libvirtd }, { format }, name) {
    const copy = ['blockcopy', name, 'vda', '--dest', join(lab.b, 'copy'), '--format', format];
    const args = ['-c', libvirtd.uri, ...copy, '--transient-job', '--wait', '--pivot'];
    await must('/usr/bin/virsh', args, { timeoutMs: LIMIT_MS });
    return null;
  },
  async job({ lab, libvirtd }, { format }, name) {
    const input = jobScript(libvirtd.uri, name, format, join(lab.b, 'copy'));
    return Number(await must('/usr/bin/python3', ['-'], { input, timeoutMs: LIMIT_MS }));
  },
};

async function byFerry({ lab, canVerify }: Bench, name: string, how: string): Promise<number> {
  const env = { FERRY_RUN_DIR: lab.runDir, FERRY_STATE_DIR: lab.stateDir };
  const verify = canVerify ? ['--verify', how] : [];
  const args = ['--json', 'move', name, 'vda', '--to', lab.b, '--progress=none', ...verify];
  const said = await must(join(root, 'bin/ferry'), args, { env, timeoutMs: LIMIT_MS });
  const { startedAt, endedAt } = JSON.parse(said) as OperationView; // our own CLI
  return (Date.parse(endedAt ?? '') - Date.parse(startedAt)) / 1000;
}

/** Prints the seconds from the call that begins the job until the answer of the one that ends it. */
const jobScript = (uri: string, name: string, format: string, to: string): string => `
import libvirt, threading, time
libvirt.virEventRegisterDefaultImpl()
def loop():
    while True: libvirt.virEventRunDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
dom = libvirt.open(${JSON.stringify(uri)}).lookupByName(${JSON.stringify(name)})
ended, status = threading.Event(), []
def told(conn, dom, disk, kind, now, opaque):
    status.append(now)
    ended.set()
dom.connect().domainEventRegisterAny(dom, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, told, None)
xml = "<disk type='file'><source file='${to}'/><driver type='${format}'/></disk>"
start = time.perf_counter()
dom.blockCopy('vda', xml, flags=libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
if not ended.wait(${LIMIT_MS / 1000}) or status[0] != libvirt.VIR_DOMAIN_BLOCK_JOB_READY: raise Exception(status)
dom.blockJobAbort('vda', libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
print(time.perf_counter() - start)
`;

async function once(
  { lab }: Bench,
  { files }: Source,
  { serial }: LabGuest,
  action: () => Promise<number | null>,
): Promise<Measure> {
  const source = await allocatedBytes(files);
  await makeCold(files);
  const rate = async (body: () => Promise<unknown>): Promise<readonly [number, number]> => {
    const [first, fromMs] = [serial.acked(), performance.now()];
    await body();
    const seconds = (performance.now() - fromMs) / 1000;
    return [seconds, (serial.acked() - first) / seconds];
  };
  const [, writesBefore] = await rate(() => delay(BEFORE_MS));
  const fromMs = performance.now();
  let ownSeconds: number | null = null;
  const [seconds, writes] = await rate(async () => (ownSeconds = await action()));
  // A gap that is not over yet counts whole.
  const toMs = performance.now();
  await serial.waitProgress(64);
  const there = (await readdir(lab.b)).map((name) => join(lab.b, name));
  return {
    seconds,
    ownSeconds,
    writesBefore,
    writes,
    gapMs: serial.maxGapMs(fromMs, toMs),
    allocated: (await allocatedBytes(there)) / source,
  };
}

/** Ends the guest; its live image holds all that it saw acknowledged. Of the disk only what the guest writes is read. */
async function endWell(
  lab: Lab,
  uri: string,
  name: string,
  { format }: Source,
  { serial }: LabGuest,
): Promise<void> {
  const listed = await must('/usr/bin/virsh', ['-c', uri, 'domblklist', name]);
  const live = present(/\/\S+/.exec(listed)?.[0], 'it has a disk');
  await must('/usr/bin/virsh', ['-c', uri, 'destroy', name]);
  const image = { driver: format, 'read-only': true, file: { driver: 'file', filename: live } };
  const node = { driver: 'raw', size: spanMiB * 2 ** 20, file: image };
  const acked = serial.acked();
  const verdict = await verifyChains([{ node }], { acked, state: 'crashed', writer });
  if (!verdict.ok || !live.startsWith(lab.b))
    throw new Error(`${name} on ${live}: ${JSON.stringify(verdict)}`);
}

/** What `makeSource` made: everything else in storage A is left over from a move. */
const sourceNames = async (lab: Lab): Promise<readonly string[]> =>
  (await readdir(lab.a)).filter((name) => /^[\d.]+g(-\dlayers)?-\d\.(raw|qcow2)$/.test(name));
