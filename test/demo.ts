// The main job, for a person to watch: a guest that writes all the time, its disks moved between two storages, a daemon
// killed in the middle, and at the end a proof that nothing was lost. Run by script/demo.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { until } from '../src/std/deadline.js';
import type { Ferryd } from './lib/ferryd.js';
import { withLab, type Lab, type LabGuest } from './lib/lab.js';
import { verifyChains } from './lib/verify.js';

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const heading = (text: string): void => say(`\n== ${text}`);

interface Operation {
  readonly id: number;
  readonly kind: string;
  readonly pauses: readonly { readonly what: string; readonly ms: number }[];
}

async function demo(lab: Lab): Promise<boolean> {
  heading('a daemon, and a guest with two disks on storage A');
  const first = await lab.ferryd();
  say(`virsh -c '${lab.uri}' works with it as it is`);
  const guest = await lab.guest({ name: 'vm1', disks: 2, writer: { resume: 1, delay: 0 } });
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  await guest.serial.waitAcked(1000);
  say(`vm1 runs and writes; ${guest.serial.acked()} writes acknowledged so far`);

  heading(`ferry move vm1 vda vdb --to ${lab.b}   (storage A to storage B, while it writes)`);
  say(await lab.mustFerry('move', 'vm1', 'vda', 'vdb', '--to', lab.b));
  await writeMore(guest);

  await mirrorByLibvirt(lab, guest, first);

  heading('ferry chain vm1');
  say(await lab.mustFerry('chain', 'vm1'));
  await writeMore(guest);
  return await prove(lab, guest);
}

async function writeMore(guest: LabGuest): Promise<void> {
  await guest.serial.waitAcked(guest.serial.acked() + 500);
}

/** The same by stock clients: `virsh snapshot-create` with a mirror, ferryd killed meanwhile, REOPEN by libvirt-python. */
async function mirrorByLibvirt(lab: Lab, guest: LabGuest, daemon: Ferryd): Promise<void> {
  heading('virsh snapshot-create with <mirror>   (back to storage A, by a stock client)');
  const disks = ['vda', 'vdb'].map(
    (target) =>
      `<disk name='${target}' snapshot='external'>` +
      `<source file='${join(lab.b, `${target}.snap`)}'/><mirror file='${join(lab.a, `${target}.snap`)}'/></disk>`,
  );
  const file = join(lab.directory, 'snapshot.xml');
  await writeFile(
    file,
    `<domainsnapshot><name>back</name><disks>${disks.join('')}</disks></domainsnapshot>`,
  );
  say(await lab.mustVirsh('snapshot-create', 'vm1', file));

  await sayPauses(lab);

  heading('kill -9 of ferryd in the middle, and a new one');
  const before = await lab.mustVirsh('dumpxml', 'vm1');
  const acked = guest.serial.acked();
  await daemon.kill9();
  await guest.serial.waitAcked(acked + 200);
  say(
    `ferryd is dead; the guest went on (${guest.serial.acked() - acked} writes acknowledged meanwhile)`,
  );
  await lab.ferryd();
  const ready = await until(
    async () =>
      (await lab.mustVirsh('dumpxml', 'vm1')).match(/ready='yes'/g)?.length === 2 ? true : null,
    60_000,
    'both mirrors READY',
  );
  const after = await lab.mustVirsh('dumpxml', 'vm1');
  const same = before.replaceAll(" ready='yes'", '') === after.replaceAll(" ready='yes'", '');
  say(
    `the new ferryd shows the same XML (${same ? 'byte for byte' : 'DIFFERENT'}); mirrors ready: ${ready}`,
  );

  heading('libvirt-python: snapshot.delete(8), which is REOPEN_MIRROR');
  const { code, stderr } = await lab.python(
    "conn.lookupByName('vm1').snapshotLookupByName('back').delete(8)",
  );
  if (code !== 0) throw new Error(`reopen: ${stderr}`);
  say(await lab.mustVirsh('domblklist', 'vm1'));
}

async function prove(lab: Lab, guest: LabGuest): Promise<boolean> {
  heading('the proof');
  await sayPauses(lab);
  const live = (await lab.mustVirsh('domblklist', 'vm1')).match(/\/\S+/g) ?? [];
  await lab.mustVirsh('destroy', 'vm1');
  const acked = guest.serial.acked();
  const verdict = await verifyChains(live, { acked, state: 'crashed', writer: { resume: 1 } });
  say(`live images: ${live.join(' ')}`);
  say(`writes acknowledged: ${acked}`);
  say(
    `writes lost: ${verdict.lostAcked}${verdict.ok ? '' : `   FAILED: ${JSON.stringify(verdict)}`}`,
  );
  await lab.mustVirsh('undefine', 'vm1');
  return verdict.ok;
}

/** How long the guest stood still, as this daemon measured it. */
async function sayPauses(lab: Lab): Promise<void> {
  const listed: unknown = JSON.parse(await lab.mustFerry('ops', '--all', '--json'));
  for (const { id, kind, pauses } of (listed as readonly Operation[]).toReversed()) {
    for (const { what, ms } of pauses) say(`pause of operation ${id} (${kind}), ${what}: ${ms} ms`);
  }
}

const startedAt = performance.now();
const ok = await withLab('demo', demo);
say(
  `\n${ok ? 'nothing was lost' : 'SOMETHING WAS LOST'}, and nothing is left behind (${Math.round((performance.now() - startedAt) / 1000)} s)`,
);
process.exitCode = ok ? 0 : 1;
