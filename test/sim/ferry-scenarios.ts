// The operations under test: what stands before each, and how it is planned.

import type { PathFacts } from '../../src/block/facts.js';
import type { Definition } from '../../src/domain/definition.js';
import type { DomainRecord } from '../../src/domain/record.js';
import type { Snapshot } from '../../src/domain/snapshot.js';
import type { UndoWindow } from '../../src/domain/undo-window.js';
import {
  mirrorsOf,
  planBlockJobEnd,
  planForget,
  planRemove,
  planReopen,
} from '../../src/plan/mirror-end.js';
import { asItIs } from '../../src/domain/move-form.js';
import { pivotAtOnce } from '../../src/plan/pivot-when.js';
import { planSnapshotCreate } from '../../src/plan/snapshot-create.js';
import type { Plan, Refusal } from '../../src/plan/step.js';
import { planCloseWindow, planWindow, undone } from '../../src/plan/undo-window.js';
import { waitJobs } from '../../src/qmp/jobs.js';
import { present } from '../../src/std/assert.js';
import { withFate } from '../../src/plan/source.js';
import { FerryBench, sizeBytes, uuid } from './ferry-bench.js';
import { checkDeleted, planDelete } from './source.js';
import {
  image,
  look,
  moveAndRotate,
  moveOffline,
  planForm,
  planFull,
  planTheMove,
  rotateDuringCopy,
  shareBases,
  sizesOf,
} from './moves.js';

const one = ['vda'] as const;
const three = ['vda', 'vdb', 'vdc'] as const;
type Kind = 'plain' | 'mirrored' | 'reuse';
/** Shut off: just so, with an owed mirror, in the middle of a move, of one by full mirrors. */
type Off = 'off' | 'owed' | 'moving' | 'mirroring';
/**
 * Moved: and all is settled; and the way back is open: just so, with a sealed layer on both sides, or about to be closed.
 */
type Moved = 'settled' | 'moved' | 'moved and rotated' | 'closing';

export interface Scenario {
  readonly name: string;
  readonly targets: readonly string[];
  /** A snapshot taken before, or only the files for one made by hand. */
  readonly before: Kind | 'files' | Off | Moved | null;
  readonly plan: (bench: FerryBench) => Promise<Plan | Refusal>;
  readonly reflinks?: true;
  /** What is below the top images is at the destination before. */
  readonly isShared?: true;
  /** It is about a domain that is off, before and after it. */
  readonly isOffline?: true;
  /** What has to hold once it was committed. */
  readonly done?: (bench: FerryBench) => Promise<void>;
  /** Where the disks are once it has committed; it is about a way back, which is closed otherwise. */
  readonly endsIn?: '/src/' | '/dst/';
}

const end =
  (plan: typeof planReopen) =>
  async (bench: FerryBench): Promise<Plan | Refusal> => {
    const record = await bench.record();
    const snapshot = present(record.snapshots[0], 'it was taken before');
    return plan({ record, files: await mirrorFiles(bench), nowSeconds: 7 }, snapshot);
  };

const blockJob =
  (pivot: boolean) =>
  async (bench: FerryBench): Promise<Plan | Refusal> =>
    planBlockJobEnd({
      record: await bench.record(),
      files: await mirrorFiles(bench),
      nowSeconds: 7,
      path: 'vda',
      pivot,
    });

const forget = async (bench: FerryBench): Promise<Plan | Refusal> => {
  const record = await bench.record();
  return planForget(record, present(record.snapshots[0], 'it was taken before'));
};

const create = (kind: Kind) => async (bench: FerryBench) => await planCreate(bench, kind);

/** The step that holds it up is there, and its time comes as soon as it is looked at. */
const planHeld = async (bench: FerryBench): Promise<Plan | Refusal> =>
  await planTheMove(bench, { how: 'when', lagBytes: 1n << 40n, forMs: 0 });

const planQuiesced = async (bench: FerryBench): Promise<Plan | Refusal> =>
  await planTheMove(bench, pivotAtOnce, true, true);

const planWithWindow = async (bench: FerryBench): Promise<Plan | Refusal> =>
  await planTheMove(bench, pivotAtOnce, false, false, asItIs, 3600);

export const scenarios: readonly Scenario[] = [
  { name: 'snapshot of 1 disk', targets: one, before: null, plan: create('plain') },
  { name: 'snapshot of 3 disks', targets: three, before: null, plan: create('plain') },
  { name: 'mirrored snapshot of 1 disk', targets: one, before: null, plan: create('mirrored') },
  { name: 'mirrored snapshot of 3 disks', targets: three, before: null, plan: create('mirrored') },
  { name: 'mirrored snapshot, reuse', targets: one, before: 'files', plan: create('reuse') },
  { name: 'reopen 1 mirror', targets: one, before: 'mirrored', plan: end(planReopen) },
  { name: 'reopen 3 mirrors', targets: three, before: 'mirrored', plan: end(planReopen) },
  { name: 'reopen a reused mirror', targets: one, before: 'reuse', plan: end(planReopen) },
  { name: 'remove 1 mirror', targets: one, before: 'mirrored', plan: end(planRemove) },
  { name: 'remove 3 mirrors', targets: three, before: 'mirrored', plan: end(planRemove) },
  { name: 'forget 3 mirrors', targets: three, before: 'mirrored', plan: forget },
  { name: 'blockjob --pivot', targets: one, before: 'mirrored', plan: blockJob(true) },
  { name: 'blockjob --abort', targets: one, before: 'mirrored', plan: blockJob(false) },
  { name: 'move 1 disk', targets: one, before: null, plan: planTheMove },
  { name: 'move 1 disk with a snapshot', targets: one, before: 'plain', plan: planTheMove },
  { name: 'start', targets: three, before: 'off', plan: start },
  { name: 'start with 1 owed mirror', targets: one, before: 'owed', plan: start },
  { name: 'start with 3 owed mirrors', targets: three, before: 'owed', plan: start },
  { name: 'start in a move of 3 disks', targets: three, before: 'moving', plan: start },
  { name: 'move 3 disks by full mirrors', targets: three, before: null, plan: planFull },
  {
    name: 'start in a move of 3 disks by full mirrors',
    targets: three,
    before: 'mirroring',
    plan: start,
  },
  { name: 'move 1 disk and rotate', targets: one, before: null, plan: moveAndRotate },
  { name: 'move 2 disks and rotate', targets: ['vda', 'vdb'], before: null, plan: moveAndRotate },
  { name: 'move 3 disks', targets: three, before: null, plan: planTheMove },
  {
    name: 'move of a shut-off domain',
    targets: ['vda', 'vdb'],
    before: 'off',
    plan: moveOffline,
    isOffline: true,
  },
  { name: 'move 1 disk, quiesced and trimmed', targets: one, before: null, plan: planQuiesced },
  { name: 'move 1 disk, held until its time', targets: one, before: null, plan: planHeld },
  {
    name: 'move 1 disk, flattened to raw, the overlay elsewhere',
    targets: one,
    before: null,
    plan: planForm({ flatten: true, format: 'raw', overlayDir: '/spare' }),
  },
  {
    name: 'move 1 disk of two layers onto bases that are there',
    targets: one,
    before: 'plain',
    plan: planForm({ shareBase: true }),
    isShared: true,
  },
  {
    name: 'move of a shut-off domain, flattened',
    targets: ['vda', 'vdb'],
    before: 'off',
    plan: async (bench) => await moveOffline(bench, { ...asItIs, flatten: true }),
    isOffline: true,
  },
  {
    name: 'delete the source of 2 moved disks',
    targets: ['vda', 'vdb'],
    before: 'settled',
    plan: planDelete,
    done: checkDeleted,
  },
  { name: 'window closes', targets: one, before: 'moved', plan: windowUntil(0), endsIn: '/dst/' },
  { name: 'closed window', targets: one, before: 'closing', plan: planClose, endsIn: '/dst/' },
  { name: 'undo 1 disk', targets: one, before: 'moved', plan: planTheUndo, endsIn: '/src/' },
  {
    name: 'undo 2 disks that were rotated',
    targets: ['vda', 'vdb'],
    before: 'moved and rotated',
    plan: planTheUndo,
    endsIn: '/src/',
  },
  { name: 'move 1 disk by reflink', targets: one, before: null, plan: planTheMove, reflinks: true },
];

/** The bench as the operation finds it. */
export async function prepared(scenario: Scenario): Promise<FerryBench> {
  const { targets, before, reflinks = false, isShared = false } = scenario;
  const bench = await FerryBench.open(targets);
  bench.storage.reflinks = reflinks;
  if (before === 'off' || before === 'owed' || before === 'moving' || before === 'mirroring')
    return await turnedOff(bench, targets, before);
  if (before === 'settled') {
    const fate = { keepSeconds: 0, shared: true };
    await bench.perform(async () => withFate(await planTheMove(bench), fate));
    return bench;
  }
  if (before === 'moved' || before === 'moved and rotated' || before === 'closing')
    return await movedAway(bench, before);
  if (before === 'files' || before === 'reuse') await makeByHand(bench);
  if (before === null && isShared) await shareBases(bench);
  if (before === null || before === 'files') return bench;
  await bench.perform(async () => await planCreate(bench, before));
  if (isShared) await shareBases(bench);
  if (before === 'plain') return bench;
  const jobs = mirrorsOf(await bench.record()).map(({ mirror }) => mirror.jobId);
  await waitJobs(await bench.monitor(), jobs, ['ready'], 5000);
  for (const target of targets)
    await bench.journal.record(uuid, [{ change: 'mirror-ready', target, ready: 'yes' }]);
  if (before === 'reuse') await copyBase(bench);
  return bench;
}

async function movedAway(bench: FerryBench, kind: Moved): Promise<FerryBench> {
  if (kind === 'moved and rotated') rotateDuringCopy(bench);
  await bench.perform(async () => await planWithWindow(bench));
  const [window] = (await bench.record()).windows ?? [];
  const { operation } = present(window, 'its way back is open');
  if (kind === 'closing')
    await bench.journal.record(uuid, [
      { change: 'close-window', operation, why: 'its time is over' },
    ]);
  return bench;
}

async function windowOf(
  bench: FerryBench,
): Promise<{ readonly record: DomainRecord; readonly window: UndoWindow }> {
  const record = await bench.record();
  return { record, window: present(record.windows?.[0], 'its way back is open') };
}

function windowUntil(untilMs: number): Scenario['plan'] {
  return async (bench) => {
    const { record, window } = await windowOf(bench);
    const { nextIndex } = present(record.live, 'it runs');
    return planWindow({ record, window: { ...window, untilMs }, nextIndex });
  };
}

export async function planClose(bench: FerryBench): Promise<Plan | Refusal> {
  const { record, window } = await windowOf(bench);
  return planCloseWindow(record, window);
}

/** As if it had been asked for before the mirror was in step. */
async function planTheUndo(bench: FerryBench): Promise<Plan | Refusal> {
  const { record, window } = await windowOf(bench);
  const plan = await windowUntil(Infinity)(bench);
  return 'refusal' in plan ? plan : undone(plan, record, window);
}

async function turnedOff(
  bench: FerryBench,
  targets: readonly string[],
  kind: Off,
): Promise<FerryBench> {
  if (kind === 'owed') {
    await bench.perform(async () => await planCreate(bench, 'mirrored'));
    const jobs = mirrorsOf(await bench.record()).map(({ mirror }) => mirror.jobId);
    await waitJobs(await bench.monitor(), jobs, ['ready'], 5000);
    for (const target of targets)
      await bench.journal.record(uuid, [{ change: 'mirror-ready', target, ready: 'yes' }]);
  }
  bench.deathAfter = kind === 'moving' ? 'image copy' : 'qmp query-block-jobs';
  if (kind === 'moving') await bench.perform(async () => await planTheMove(bench));
  // While it waits for READY.
  if (kind === 'mirroring') await bench.perform(async () => await planFull(bench));
  bench.deathAfter = null;
  bench.kill();
  await bench.stop();
  return bench;
}

async function start(bench: FerryBench): Promise<Plan | Refusal> {
  return await bench.planStart();
}

async function planCreate(bench: FerryBench, kind: Kind): Promise<Plan | Refusal> {
  const record = await bench.record();
  const live = present(record.live, 'it runs');
  const snapshot = snapshotOf(live.definition, kind);
  const images = snapshot.disks.flatMap((disk) =>
    [disk.image, disk.mirror].filter((found) => found !== null),
  );
  const files = await look(bench, images, kind === 'reuse' ? 'data' : 'header');
  const below = await look(
    bench,
    [...files.values()].flatMap((facts) => facts.below),
    'header',
  );
  return planSnapshotCreate({
    record,
    snapshot,
    reuseExternal: kind === 'reuse',
    keepMetadata: true,
    files: new Map([...below, ...files]),
    disks: sizesOf(live.definition),
  });
}

function snapshotOf(definition: Definition, kind: Kind): Snapshot {
  return {
    name: 's1',
    description: null,
    state: 'disk-snapshot',
    parent: null,
    creationTimeSeconds: 1,
    memory: { mode: 'no', file: null },
    disks: definition.disks.map(({ target }) => ({
      name: target,
      mode: 'external',
      image: image(`/src/${target}.s1`),
      mirror: kind === 'plain' ? null : image(`/dst/${target}.s1`),
    })),
    domain: definition,
    inactiveDomain: null,
  };
}

/** REUSE_EXT: the caller makes both overlays; what the mirror stands on he fills in before the reopen. */
async function makeByHand({ storage }: FerryBench): Promise<void> {
  const copy = { path: '/dst/vda.qcow2', format: 'qcow2', sizeBytes } as const;
  await storage.create({ ...copy, backing: { path: '/src/base.raw', format: 'raw' } });
  for (const [path, below] of [
    ['/src/vda.s1', '/src/vda.qcow2'],
    ['/dst/vda.s1', '/dst/vda.qcow2'],
  ] as const)
    await storage.create({
      path,
      format: 'qcow2',
      sizeBytes,
      backing: { path: below, format: 'qcow2' },
    });
}

async function copyBase({ storage }: FerryBench): Promise<void> {
  await storage.copy({ from: '/src/vda.qcow2', to: '/dst/vda.qcow2' });
}

async function mirrorFiles(bench: FerryBench): Promise<ReadonlyMap<string, PathFacts>> {
  const reused = mirrorsOf(await bench.record()).filter(({ record }) => record.made === 'reuse');
  const tops = await look(
    bench,
    reused.map(({ mirror }) => mirror.image),
    'chain',
  );
  const below = await look(
    bench,
    reused.flatMap(({ mirror }) => mirror.backing),
    'header',
  );
  return new Map([...below, ...tops]);
}
