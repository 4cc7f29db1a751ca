// Recovery of many guests: 50 small domains run, `ferryd` is killed, meanwhile some guests end and some go on behind its
// back, a new daemon starts. Counted from its start: the first answered call, and until one libvirt-python connection has
// the truth about all of them. One line a run.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { openJournal } from '../src/journal/sqlite.js';
import { planReopen } from '../src/plan/mirror-end.js';
import { isRefusal } from '../src/plan/refuse.js';
import { present } from '../src/std/assert.js';
import { until } from '../src/std/deadline.js';
import type { Ferryd } from '../test/lib/ferryd.js';
import { withLab, type Lab } from '../test/lib/lab.js';
import { killNow } from '../test/lib/process.js';
import { Qmp } from '../test/lib/qmp.js';

const DOMAINS = Number(process.env['DOMAINS'] ?? 50);
const ROUNDS = Number(process.env['ROUNDS'] ?? 5);
/** How many end, and how many are let go on, while there is no daemon. */
const CHANGED = 3;

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const ms = (seconds: number): string => `${Math.round(seconds * 1000)} ms`;
const times = ({ first, all: last, cpu, load }: Answers): string =>
  `first answer ${ms(first)}, all ${ms(last)} (its own CPU ${ms(cpu)}, load ${load})`;
const all = Array.from({ length: DOMAINS }, (_, i) => i);
const nameOf = (i: number): string => `vm${i}`;
const uuidOf = (i: number): string => `c0ffee00-0000-4000-8000-${String(i).padStart(12, '0')}`;

/** A boot sector of `cli; hlt`: a guest that runs and does nothing, so that emulation does not eat the machine. */
const idle = Buffer.alloc(1024 * 1024);
idle.set([0xfa, 0xf4, 0xeb, 0xfc]);
idle.set([0x55, 0xaa], 510);

async function define(lab: Lab, i: number): Promise<void> {
  const disk = join(lab.a, `${nameOf(i)}.qcow2`);
  await writeFile(`${disk}.raw`, idle);
  await lab.qemuImg('convert', '-f', 'raw', '-O', 'qcow2', `${disk}.raw`, disk);
  const file = join(lab.directory, `${nameOf(i)}.xml`);
  await writeFile(
    file,
    `<domain type='qemu'><name>${nameOf(i)}</name><uuid>${uuidOf(i)}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>${lab.qemu.system}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${disk}'/><target dev='vda' bus='virtio'/></disk>
<memballoon model='none'/></devices></domain>`,
  );
  await lab.mustVirsh('define', file);
}

/** Waits for a word, then asks until it has been answered for every domain; tells both times and what it was told. */
const client = (uri: string): string => `
import json, sys, time, libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
print('prepared', flush=True)
start = float(sys.stdin.readline())
while True:
    try:
        conn = libvirt.open(${JSON.stringify(uri)})
        conn.numOfDomains()
        break
    except libvirt.libvirtError:
        time.sleep(0.005)
first = time.time()
states = {}
for i in range(${DOMAINS}):
    domain = conn.lookupByName('vm%d' % i)
    states[domain.name()] = [domain.info()[0], domain.state()[0]]
print(json.dumps({'first': first - start, 'all': time.time() - start, 'states': states}))
`;

interface Answers {
  readonly first: number;
  readonly all: number;
  /** Seconds of the daemon's own processor time. */
  readonly cpu: number;
  readonly load: string;
  readonly states: Readonly<Record<string, readonly [number, number]>>;
}

/** virDomainState. */
const [RUNNING, PAUSED, SHUTOFF] = [1, 3, 5];

const truth = (i: number): number => (i < CHANGED ? SHUTOFF : i < 2 * CHANGED ? RUNNING : PAUSED);

async function behindItsBack(lab: Lab): Promise<void> {
  for (let i = 0; i < 2 * CHANGED; i++) {
    const base = join(lab.runDir, 'qemu', uuidOf(i));
    if (truth(i) === SHUTOFF) {
      killNow(Number(await readFile(`${base}.pid`, 'utf8')));
      continue;
    }
    using qmp = await Qmp.open(`${base}.qmp`);
    await qmp.execute('cont');
  }
}

/** What the daemon has used so far; the machine may have other work, so this says more than the clock. */
async function cpuOf(daemon: Ferryd): Promise<number> {
  const stat = await readFile(`/proc/${daemon.pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const busy = async (): Promise<string> =>
  (await readFile('/proc/loadavg', 'utf8')).split(' ')[0] ?? '';

/** Kills the daemon, lets `meanwhile` happen, starts another one. */
async function restarted(lab: Lab, meanwhile: (lab: Lab) => Promise<void>): Promise<Answers> {
  const python = spawn('/usr/bin/python3', ['-c', client(lab.uri)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(python.stdout, 'data');
  await lab.daemons.at(-1)?.kill9();
  await meanwhile(lab);
  python.stdin.write(`${Date.now() / 1000}\n`);
  const [said, daemon] = await Promise.all([text(python.stdout), lab.ferryd()]);
  const answers = JSON.parse(said) as Omit<Answers, 'cpu' | 'load'>; // what `client` prints
  return { ...answers, cpu: await cpuOf(daemon), load: await busy() };
}

/** All paused again. */
async function restore(lab: Lab): Promise<void> {
  for (let i = 0; i < 2 * CHANGED; i++) {
    if (truth(i) === SHUTOFF) await lab.mustVirsh('start', nameOf(i), '--paused');
    else await lab.mustVirsh('suspend', nameOf(i));
  }
}

const pidOf = async (lab: Lab, i: number): Promise<string> =>
  (await readFile(join(lab.runDir, 'qemu', `${uuidOf(i)}.pid`), 'utf8')).trim();

async function residentMiB(lab: Lab): Promise<number> {
  const sizes = await Promise.all(
    all.map(async (i) => {
      const pid = await pidOf(lab, i);
      return Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);
    }),
  );
  return Math.round(sizes.reduce((sum, size) => sum + size, 0) / 1024);
}

async function untilReady(lab: Lab): Promise<void> {
  const look = async (): Promise<true | null> => {
    const shown = await Promise.all(all.map((i) => lab.mustVirsh('dumpxml', nameOf(i))));
    return shown.every((xml) => xml.includes("ready='yes'")) ? true : null;
  };
  await until(look, 120_000, 'mirrors READY', 100);
}

/**
 * Brings every domain to where a daemon leaves it that dies inside the pause of a pivot: the intent is journaled, the
 * guest stands still, and its job is at one of the stages of law 4.
 */
async function standStill(lab: Lab): Promise<void> {
  await using journal = openJournal({ stateDir: lab.stateDir });
  for (const i of all) {
    const record = present(await journal.domain(uuidOf(i)), nameOf(i));
    const snapshot = present(record.snapshots[0], 'it was made with its mirror');
    const plan = planReopen({ record, files: new Map(), nowSeconds: 0 }, snapshot);
    if (isRefusal(plan)) throw plan.refusal;
    const pivot = plan.steps.findIndex((step) => step.kind === 'pivot');
    const operation = await journal.begin(plan);
    await journal.append(operation, { type: 'doing', step: pivot });
    using qmp = await Qmp.open(join(lab.runDir, 'qemu', `${uuidOf(i)}.qmp`));
    const id = present(record.live?.mirrors[0], 'it has its mirror').jobId;
    await qmp.execute('stop');
    if (i % 3 > 0) await step(qmp, 'job-complete', id, 'pending');
    if (i % 3 > 1) await step(qmp, 'job-finalize', id, 'concluded');
  }
}

async function step(qmp: Qmp, command: string, id: string, status: string): Promise<void> {
  const look = async (): Promise<true | null> => {
    const jobs = await qmp.execute<readonly { id: string; status: string }[]>('query-jobs');
    return jobs.some((job) => job.id === id && job.status === status) ? true : null;
  };
  // `stop` makes a job flap; it is completed once it is READY again.
  if (command === 'job-complete') await until(async () => await ready(qmp, id), 10_000, 'READY', 1);
  await qmp.execute(command, { id });
  await until(look, 10_000, `${id} is ${status}`, 1);
}

async function ready(qmp: Qmp, id: string): Promise<true | null> {
  const jobs = await qmp.execute<readonly { id: string; status: string }[]>('query-jobs');
  return jobs.some((job) => job.id === id && job.status === 'ready') ? true : null;
}

/** How many guests QEMU itself calls running. */
async function runningNow(lab: Lab): Promise<number> {
  const replies = await Promise.all(
    all.map((i) => lab.mustVirsh('qemu-monitor-command', nameOf(i), '{"execute":"query-status"}')),
  );
  return replies.filter((reply) => reply.includes('"running":true')).length;
}

async function pausedByUs(lab: Lab, n: number): Promise<void> {
  for (const i of all) {
    const file = join(lab.directory, 'snapshot.xml');
    const names = [lab.a, lab.b].map((folder) => join(folder, `${nameOf(i)}.${n}`));
    await writeFile(
      file,
      `<domainsnapshot><name>s</name><disks><disk name='vda' snapshot='external'><source file='${names[0]}'/><mirror file='${names[1]}'/></disk></disks></domainsnapshot>`,
    );
    await lab.mustVirsh('snapshot-create', nameOf(i), file);
  }
  await untilReady(lab);
  const answers = await restarted(lab, standStill);
  const running = await runningNow(lab);
  const settled = (
    await present(lab.daemons.at(-1), 'a daemon runs').waitLog(
      'guests that stood still because of us run again',
    )
  )['msSinceStart'];
  const open = (await lab.mustFerry('ops'))
    .split('\n')
    .filter((line) => /running|attention/.test(line));
  const said = Object.values(answers.states).filter(([, state]) => state === RUNNING).length;
  say(
    `${DOMAINS} guests in our own pause: they run after ${String(settled)} ms, ${times(answers)}; ` +
      `${said} are said to run, ${running} do, ${open.length} operations open`,
  );
}

await withLab('recovery', async (lab) => {
  await lab.ferryd();
  for (const i of all) {
    await define(lab, i);
    await lab.mustVirsh('start', nameOf(i), '--paused');
  }
  say(`${DOMAINS} domains, ${await residentMiB(lab)} MiB resident in all their QEMUs`);
  for (let n = 0; n < ROUNDS; n++) {
    const answers = await restarted(lab, behindItsBack);
    const { states } = answers;
    const wrong = all.filter((i) => states[nameOf(i)]?.some((state) => state !== truth(i)) ?? true);
    say(
      `${DOMAINS} domains, ${2 * CHANGED} changed meanwhile: ${times(answers)}` +
        (wrong.length === 0 ? '' : `, NOT TRUE of ${wrong.map(nameOf).join(', ')}`),
    );
    await restore(lab);
  }
  for (const i of all) await lab.mustVirsh('resume', nameOf(i));
  for (let n = 0; n < ROUNDS; n++) await pausedByUs(lab, n);
});
