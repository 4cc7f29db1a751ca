// Pause of a pivot, through ferryd and by the bare QMP sequence (pre-flush, stop, job-complete, pending, job-finalize,
// concluded, roots, cont), the same guest writing in both.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { until } from '../../src/std/deadline.js';
import { imageNode, type BareGuest } from '../../test/lib/bare.js';
import { withLab, type Lab, type LabGuest } from '../../test/lib/lab.js';

const targets = ['vda', 'vdb', 'vdc', 'vdd'];

/** Mirrors all disks to new layers and lets them go over; the pause that ferryd measured, in ms. */
async function byFerryd(lab: Lab, guest: LabGuest, disks: number, round: number): Promise<number> {
  const list = targets
    .slice(0, disks)
    .map(
      (target) =>
        `<disk name='${target}' snapshot='external'><source file='${join(lab.a, `${target}.${disks}.${round}`)}'/>` +
        `<mirror file='${join(lab.b, `${target}.${disks}.${round}`)}'/></disk>`,
    );
  const file = join(lab.directory, 'snapshot.xml');
  const name = `s${round}`;
  await writeFile(
    file,
    `<domainsnapshot><name>${name}</name><disks>${list.join('')}</disks></domainsnapshot>`,
  );
  await lab.mustVirsh('snapshot-create', 'vm1', file);
  const ready = async (): Promise<true | null> =>
    (await lab.mustVirsh('dumpxml', 'vm1')).match(/ready='yes'/g)?.length === disks ? true : null;
  await until(ready, 60_000, 'mirrors READY');
  await guest.serial.waitAcked(guest.serial.acked() + 100);
  await lab.mustFerry('snapshot-delete', 'vm1', name, '--reopen-mirror');
  const shown = JSON.parse(await lab.mustFerry('ops', '--all', '--json')) as readonly {
    readonly pauses: readonly { readonly what: string; readonly ms: number }[];
  }[]; // our own CLI; newest first
  return (
    shown.flatMap(({ pauses }) => pauses).find(({ what }) => what === 'pivot')?.ms ?? Number.NaN
  );
}

/** The same by hand; from `stop` until `cont` was answered, in ms. */
async function byHand(lab: Lab, guest: BareGuest, disks: number, round: number): Promise<number> {
  const { qmp } = guest;
  const ids = Array.from({ length: disks }, (_, i) => i);
  const node = (kind: string, i: number, of = round): string => `${kind}${i}-${of}`;
  const top = (i: number): string => (round === 0 ? `d${i}` : node('m', i, round - 1));
  for (const i of ids) {
    for (const [kind, folder] of [
      ['s', lab.a],
      ['m', lab.b],
    ] as const) {
      await lab.createImage(join(folder, `bare-${disks}-${node(kind, i)}`));
    }
    await qmp.execute('blockdev-add', {
      ...imageNode(node('s', i), join(lab.a, `bare-${disks}-${node('s', i)}`), { backing: null }),
    });
  }
  await qmp.execute('transaction', {
    actions: ids.map((i) => ({
      type: 'blockdev-snapshot',
      data: { node: top(i), overlay: node('s', i) },
    })),
  });
  for (const i of ids) {
    const file = join(lab.b, `bare-${disks}-${node('m', i)}`);
    await qmp.execute('blockdev-add', { ...imageNode(node('m', i), file, { backing: top(i) }) });
    await qmp.execute('blockdev-mirror', {
      'job-id': node('j', i),
      device: node('s', i),
      target: node('m', i),
      sync: 'top',
      'copy-mode': 'background',
      'auto-finalize': false,
      'auto-dismiss': false,
    });
  }
  await untilJobs(
    guest,
    ids.map((i) => node('j', i)),
    'ready',
  );
  await guest.serial.waitAcked(guest.serial.acked() + 100);
  for (const i of ids) {
    await qmp.execute('human-monitor-command', { 'command-line': `qemu-io ${node('m', i)} flush` });
  }
  const start = performance.now();
  await qmp.execute('stop');
  for (const i of ids) await qmp.execute('job-complete', { id: node('j', i) });
  await untilJobs(
    guest,
    ids.map((i) => node('j', i)),
    'pending',
  );
  for (const i of ids) await qmp.execute('job-finalize', { id: node('j', i) });
  await untilJobs(
    guest,
    ids.map((i) => node('j', i)),
    'concluded',
  );
  await qmp.execute('query-block');
  await qmp.execute('cont');
  const ms = performance.now() - start;
  for (const i of ids) {
    await qmp.execute('job-dismiss', { id: node('j', i) });
    await qmp.execute('blockdev-del', { 'node-name': node('s', i) });
  }
  return ms;
}

async function untilJobs(guest: BareGuest, ids: readonly string[], status: string): Promise<void> {
  const look = async (): Promise<true | null> => {
    const jobs = await guest.qmp.execute<readonly { id: string; status: string }[]>('query-jobs');
    const there = ids.every((id) => jobs.some((job) => job.id === id && job.status === status));
    return there ? true : null;
  };
  await until(look, 60_000, `jobs ${status}`, 0);
}

export interface Pauses {
  /** In ms, one a round. */
  readonly ours: readonly number[];
  readonly bare: readonly number[];
}

/** Turn about; up to four disks. */
export async function pausesOf(disks: number, rounds: number): Promise<Pauses> {
  return await withLab(`bench-${disks}`, async (lab) => {
    await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1', disks, writer: { delay: 0 } });
    await lab.mustVirsh('create', guest.xmlFile);
    await guest.serial.waitAcked(100);
    const files = await Promise.all(
      Array.from({ length: disks }, (_, i) => lab.createImage(join(lab.a, `bare-${i}.qcow2`))),
    );
    const bare = await lab.bare({ nodes: files.map((file, i) => imageNode(`d${i}`, file)) });
    await bare.serial.waitAcked(100);
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      ours.push(await byFerryd(lab, guest, disks, round));
      theirs.push(await byHand(lab, bare, disks, round));
    }
    return { ours, bare: theirs };
  });
}
