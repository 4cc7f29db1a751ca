// The operations under torture. One more is one more object: where the guest has to be before, where it is afterwards,
// what is asked of the daemon, and what clients are owed once it is done.

import { basename } from 'node:path';

import type { Rig } from './rig.js';
import { namedDisks, stateOf, topsOf, viewOf, type State, type View } from './view.js';

export interface Scenario {
  readonly name: string;
  readonly from: State;
  readonly to: State;
  /** Resolves when the operation has ended well. */
  readonly run: (rig: Rig) => Promise<void>;
  /** Path of the image that is live afterwards, per disk; not given: the same as before. */
  readonly live?: (before: View, target: string, after: string) => string;
  /** Change of the number of snapshot objects. */
  readonly snapshots: -1 | 0 | 1;
  /** Events of each disk, and of the domain, that clients are owed once it is done. */
  readonly owed: { readonly disk?: readonly string[]; readonly domain?: readonly string[] };
}

const flags = { diskOnly: true, noMetadata: false, reuseExternal: false, atomic: false };

const create = (kind: 'plain' | 'mirrored') => async (rig: Rig) => {
  await rig.client.createSnapshot(rig.life.name, rig.snapshot(kind).xml, flags);
};

const remove =
  (mode: 'reopen-mirror' | 'remove-mirror' | 'metadata') =>
  async ({ client, life: { name } }: Rig) => {
    const found = (await client.listSnapshots(name)).find(({ disks }) =>
      disks.some(({ mirror }) => mirror !== null),
    );
    if (found === undefined) throw new Error('there is no mirrored snapshot');
    await client.deleteSnapshot(name, found.name, mode);
  };

async function move(rig: Rig): Promise<void> {
  const { client, life, targets } = rig;
  const { id } = await client.startMove(life.name, { disks: targets, to: await rig.freshFolder() });
  await client.waitOperation(id);
}

/** The image that was the mirror. */
const mirrorBefore = (before: View, target: string): string =>
  namedDisks(before.liveXml).find((disk) => disk.target === target)?.mirror[0]?.path ?? '';

/** In the folder that was made last. */
const underItsName = (before: View, target: string, after: string): string =>
  basename(after) === basename(topsOf(before).get(target) ?? '') ? after : '';

export const scenarios: readonly Scenario[] = [
  {
    name: 'snapshot-create',
    from: 'plain',
    to: 'plain',
    run: create('plain'),
    live: (_, target, after) => (basename(after).startsWith(`${target}-`) ? after : ''),
    snapshots: 1,
    owed: {},
  },
  {
    name: 'snapshot-create (mirrored)',
    from: 'plain',
    to: 'mirrored',
    run: create('mirrored'),
    live: (_, target, after) => (basename(after).startsWith(`${target}-`) ? after : ''),
    snapshots: 1,
    owed: { disk: ['block-job ready'] },
  },
  {
    name: 'REOPEN',
    from: 'mirrored',
    to: 'plain',
    run: remove('reopen-mirror'),
    live: mirrorBefore,
    snapshots: -1,
    owed: { disk: ['block-job completed'] },
  },
  {
    name: 'REMOVE',
    from: 'mirrored',
    to: 'plain',
    run: remove('remove-mirror'),
    snapshots: -1,
    owed: { disk: ['block-job canceled'] },
  },
  {
    name: 'METADATA_ONLY',
    from: 'mirrored',
    to: 'copies',
    run: remove('metadata'),
    snapshots: -1,
    owed: {},
  },
  {
    name: 'move',
    from: 'plain',
    to: 'plain',
    run: move,
    live: underItsName,
    snapshots: 0,
    owed: { disk: ['block-job completed'] },
  },
  {
    name: 'move (shut off)',
    from: 'off',
    to: 'off',
    run: move,
    live: underItsName,
    snapshots: 0,
    owed: { domain: ['lifecycle defined updated'] },
  },
  {
    name: 'start',
    from: 'off',
    to: 'plain',
    run: async ({ client, life }) => void (await client.start(life.name)),
    snapshots: 0,
    owed: { domain: ['lifecycle resumed unpaused', 'lifecycle started booted'] },
  },
  {
    name: 'start (owed mirror)',
    from: 'owed',
    to: 'mirrored',
    run: async (rig) => {
      await rig.client.start(rig.life.name);
      await untilReady(rig);
    },
    snapshots: 0,
    owed: {
      disk: ['block-job ready'],
      domain: ['lifecycle resumed unpaused', 'lifecycle started booted'],
    },
  },
  {
    name: 'destroy',
    from: 'plain',
    to: 'off',
    run: async ({ client, life }) => await client.destroy(life.name),
    snapshots: 0,
    owed: { domain: ['lifecycle shutdown host', 'lifecycle stopped destroyed'] },
  },
];

/** Brings the guest, wherever it is, to where a scenario begins. Nothing is struck meanwhile. */
export async function arrange(rig: Rig, to: State): Promise<void> {
  const { client, life } = rig;
  const view = await viewOf(rig);
  const at = stateOf(view);
  // After a failure some mirrors may be left, and those of the others be gone.
  const whole = new Set(namedDisks(view.liveXml).map(({ mirror }) => mirror.length > 0)).size < 2;
  if (at === to && whole) return;
  if (at === 'off' || at === 'owed') {
    await startAnyhow(rig);
    return await arrange(rig, to);
  }
  // Objects whose mirrors are lost are only remembered.
  if (at === 'plain')
    for (const { name, disks } of view.snapshots)
      if (disks.some(({ mirror }) => mirror !== null))
        await client.deleteSnapshot(life.name, name, 'metadata');
  if (at === 'mirrored') await remove('remove-mirror')(rig);
  if (at === 'copies')
    for (const target of rig.targets) await client.endBlockJob(life.name, target, 'abort');
  if (to === 'off') await client.destroy(life.name);
  if (to === 'mirrored' || to === 'copies' || to === 'owed') {
    await create('mirrored')(rig);
    await untilReady(rig);
  }
  if (to === 'copies') await remove('metadata')(rig);
  // Mirrors end unsealed with it, as they do when QEMU dies.
  if (to === 'owed') await client.destroy(life.name);
}

export async function untilReady(rig: Rig): Promise<void> {
  await rig.until('mirrors READY', async () => {
    const disks = namedDisks(await rig.client.dumpXml(rig.life.name, { inactive: false }));
    return disks.every(({ mirror, ready }) => mirror.length === 0 || ready) ? true : null;
  });
}

/** Starts a domain; mirrors that it owes are in step when this resolves. */
export async function startAnyhow(rig: Rig): Promise<void> {
  await rig.client.start(rig.life.name);
  await untilReady(rig);
}

export function scenarioNamed(name: string): Scenario {
  const found = scenarios.find((scenario) => scenario.name === name);
  if (found === undefined)
    throw new Error(
      `no scenario '${name}'; there are: ${scenarios.map((one) => one.name).join(', ')}`,
    );
  return found;
}
