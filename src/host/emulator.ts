// What the emulator of this host is: asked of the binary itself once, by a QEMU without a machine, and kept until the
// binary changes.

import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { connect } from '../qmp/monitor.js';
import { until } from '../std/deadline.js';
import { QemuError, RequestError, messageOf } from '../std/errors.js';

const factsSchema = z.object({
  binary: z.string(),
  stamp: z.string(),
  version: z.object({ major: z.number(), minor: z.number(), micro: z.number() }),
  machines: z.array(
    z.object({ name: z.string(), alias: z.string().nullable(), maxCpus: z.number() }),
  ),
  kvm: z.boolean(),
});

/** `stamp` changes when the binary does. */
export type EmulatorFacts = Readonly<z.infer<typeof factsSchema>>;

const PROBE_TIMEOUT_MS = 60_000;

export async function emulatorFacts(binary: string, cacheDir: string): Promise<EmulatorFacts> {
  const stamp = await stampOf(binary);
  const path = join(cacheDir, `emulator-${Buffer.from(binary).toString('base64url')}.json`);
  const cached = await readFile(path, 'utf8').then(
    (text) => factsSchema.safeParse(JSON.parse(text)).data ?? null,
    () => null, // not there yet
  );
  if (cached?.stamp === stamp) return cached;
  const facts = await probe(binary, stamp);
  await keep(path, JSON.stringify(facts));
  return facts;
}

/** A cache that cannot be written costs the next start some time, and no more. */
async function keep(path: string, text: string): Promise<void> {
  const draft = `${path}.new`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeFile(draft, text);
    await rename(draft, path);
  } catch {
    await rm(draft, { force: true }).catch(() => undefined);
  }
}

async function stampOf(binary: string): Promise<string> {
  try {
    const { mtimeMs, size, ino } = await stat(binary);
    return `${mtimeMs}-${size}-${ino}`;
  } catch (cause) {
    throw new QemuError(
      `look at emulator ${binary}: ${messageOf(cause)}; install qemu-system-x86, or name another one with --emulator`,
      { cause },
    );
  }
}

async function probe(binary: string, stamp: string): Promise<EmulatorFacts> {
  const folder = await mkdtemp('/tmp/ferry-probe-');
  const socket = join(folder, 'qmp');
  const options = ['-S', '-no-user-config', '-nodefaults', '-display', 'none', '-machine', 'none'];
  const door = ['-qmp', `unix:${socket},server=on,wait=off`];
  // It must not outlive us even if we are killed: nobody would end it.
  const bound = ['--signal=KILL', String(PROBE_TIMEOUT_MS / 1000)];
  const child = spawn('timeout', [...bound, binary, ...options, ...door], { stdio: 'ignore' });
  const exited = new Promise<never>((_, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => reject(new QemuError(`probe ${binary}: it ended with ${code}`)));
  });
  exited.catch(() => undefined);
  try {
    const open = until(
      () =>
        connect({ path: socket, greetingTimeoutMs: 3000, commandTimeoutMs: 5000 }).catch(
          () => null,
        ),
      PROBE_TIMEOUT_MS,
      `probe ${binary}`,
      10,
    );
    await using monitor = await Promise.race([open, exited]);
    const machines = await monitor.execute('query-machines', {});
    const kvm = await monitor.execute('query-kvm', {});
    return {
      binary,
      stamp,
      version: monitor.version.qemu,
      machines: machines.map((machine) => ({
        name: machine.name,
        alias: machine.alias ?? null,
        maxCpus: machine['cpu-max'],
      })),
      // What QEMU could do if the host let it.
      kvm: kvm.present,
    };
  } finally {
    child.kill('SIGTERM'); // `timeout` hands it on as SIGKILL
    await rm(folder, { recursive: true, force: true });
  }
}

/** Whether `<domain type='kvm'>` can start here: QEMU has it, and the host lets us. */
export const hasKvm = (facts: EmulatorFacts): boolean => accelObstacle(facts, 'kvm') === null;

const kvmDevice = '/dev/kvm';

/**
 * What keeps a domain of a type from starting here (virQEMUCapsIsVirtTypeSupported, which only says that). QEMU itself
 * would say it too, with the last words of a process that is gone.
 */
export function accelObstacle(
  { kvm, binary }: EmulatorFacts,
  type: 'kvm' | 'qemu',
  device = kvmDevice,
): RequestError | null {
  if (type !== 'kvm') return null;
  const why = kvm ? cannotOpen(device) : 'it was built without KVM';
  if (why === null) return null;
  return new RequestError(
    'CONFIG_UNSUPPORTED',
    `Emulator '${binary}' does not support virt type 'kvm' here: ${why}; load kvm_intel or kvm_amd, or use <domain type='qemu'>`,
  );
}

/** The node may be there without its module. */
function cannotOpen(device: string): string | null {
  try {
    closeSync(openSync(device, 'r+'));
    return null;
  } catch (error) {
    return existsSync(device) ? `cannot open it (${messageOf(error)})` : `there is no ${device}`;
  }
}

/** `pc` → `pc-i440fx-7.2`; null: this emulator does not know it. */
export function canonicalMachine(facts: EmulatorFacts, machine: string): string | null {
  const found = facts.machines.find(({ name, alias }) => name === machine || alias === machine);
  return found?.name ?? null;
}
