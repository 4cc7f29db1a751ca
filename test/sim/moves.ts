// The moves that scenarios begin: what the host looks at before it plans them, over the fake storage.

import type { FileIdentity } from '../../src/block/copy.js';
import type { PathFacts } from '../../src/block/facts.js';
import type { Image } from '../../src/block/layer.js';
import { showSource } from '../../src/block/layer.js';
import { findDisk } from '../../src/domain/definition.js';
import type { Disk } from '../../src/domain/disk.js';
import { imagesOf } from '../../src/domain/disk.js';
import type { Definition } from '../../src/domain/definition.js';
import type { LookDepth } from '../../src/host/chains.js';
import { factsOf, resolveChains } from '../../src/host/chains.js';
import { mirrorsOf } from '../../src/plan/mirror-end.js';
import { planMove } from '../../src/plan/move.js';
import { copiesOf, destinationsOf } from '../../src/plan/move-places.js';
import type { MoveForm } from '../../src/domain/move-form.js';
import { asItIs } from '../../src/domain/move-form.js';
import { fullPathOf, planMoveFull } from '../../src/plan/move-full.js';
import { planMoveOffline } from '../../src/plan/move-offline.js';
import type { PivotWhen } from '../../src/domain/pivot-when.js';
import { pivotAtOnce } from '../../src/plan/pivot-when.js';
import { layersOf } from '../../src/plan/refuse.js';
import type { Plan, Refusal } from '../../src/plan/step.js';
import { waitJobs } from '../../src/qmp/jobs.js';
import { present } from '../../src/std/assert.js';
import { NeedsOperatorError } from '../../src/std/errors.js';
import { planRotate } from '../../src/plan/rotate.js';
import { openMoves } from '../../src/host/owed.js';
import { FerryBench, sizeBytes, uuid } from './ferry-bench.js';

export const image = (path: string): Image => ({
  source: { type: 'file', path },
  format: 'qcow2',
  index: null,
});

export const sizesOf = (definition: Definition) =>
  new Map(
    definition.disks.map(({ target, format }) => [
      target,
      { sizeBytes, clusterSizeBytes: format === 'raw' ? null : 65536 },
    ]),
  );

export async function planTheMove(
  bench: FerryBench,
  pivot: PivotWhen = pivotAtOnce,
  quiesce = false,
  trim = false,
  form: MoveForm = asItIs,
  undoSeconds: number | null = null,
): Promise<Plan | Refusal> {
  const record = await bench.record();
  const { definition } = present(record.live, 'it runs');
  const disks = definition.disks.map(({ target }) => present(findDisk(definition, target), target));
  const seen = await look(bench, disks.flatMap(layersOf), 'header');
  const { files, ...destination } = await atDestination(bench, disks, form);
  return planMove({
    record,
    disks: disks.map((disk) => disk.target),
    ...destination,
    overlayFolder: form.overlayDir === null ? null : await bench.images.stat(form.overlayDir),
    files: new Map([...files, ...seen]),
    sizes: sizesOf(definition),
    rotateBytes: null,
    bytesPerSecond: null,
    verify: 'full',
    pivot,
    quiesce,
    trim,
    undoSeconds,
  });
}

export function planForm(form: Partial<MoveForm>): (bench: FerryBench) => Promise<Plan | Refusal> {
  return async (bench) =>
    await planTheMove(bench, pivotAtOnce, false, false, { ...asItIs, ...form });
}

/** Somebody brought what is below the top images before, in files of his own. */
export async function shareBases(bench: FerryBench): Promise<void> {
  const { definition } = present((await bench.record()).live, 'it runs');
  for (const disk of definition.disks)
    for (const { source, format } of layersOf(disk).slice(1).toReversed()) {
      const from = showSource(source);
      const to = from.replace('/src/', '/dst/');
      await bench.storage.copy({ from, to });
      if (format === 'qcow2')
        await bench.storage.setBacking(to, { path: '/dst/base.raw', format: 'raw' });
      await bench.storage.sync(to);
      bench.storage.seal(to, 'it is not ours');
    }
}

/** What the host looks at before it plans a move. */
async function atDestination(bench: FerryBench, disks: readonly Disk[], form: MoveForm) {
  const placing = { to: '/dst', name: null, form, stamp: '7' };
  const made = disks.flatMap((disk) => {
    const copies = copiesOf(imagesOf(disk), placing);
    const { overlays } = present(destinationsOf(disk, placing), 'they are files');
    return [
      ...copies.map(({ path, format }): Image => ({ ...image(path), format })),
      ...copies.map(({ path }) => image(`${path}.part`)),
      ...overlays.map(image),
    ];
  });
  const there = new Map<string, FileIdentity>();
  for (const { source } of form.shareBase ? made : []) {
    const file = await bench.images.identity(showSource(source));
    if (file !== null) there.set(showSource(source), file);
  }
  return {
    ...placing,
    folder: await bench.images.stat('/dst'),
    freeBytes: 1n << 40n,
    spokenForBytes: 0n,
    files: await look(bench, made, 'header'),
    there,
    measured: new Map<string, bigint>(),
  };
}

export async function planFull(bench: FerryBench): Promise<Plan | Refusal> {
  const record = await bench.record();
  const { definition } = present(record.live, 'it runs');
  const made = definition.disks.map((disk) => fullPathOf(record, disk, { to: '/dst', name: null }));
  return planMoveFull({
    record,
    disks: definition.disks.map(({ target }) => target),
    to: '/dst',
    name: null,
    destination: { kind: 'folder', path: '/dst' },
    folder: await bench.images.stat('/dst'),
    freeBytes: 1n << 40n,
    spokenForBytes: 0n,
    device: null,
    files: new Map([
      ...(await look(bench, made.map(image), 'header')),
      ...(await look(bench, definition.disks.flatMap(layersOf), 'header')),
    ]),
    sizes: sizesOf(definition),
    bytesPerSecond: null,
    pivot: pivotAtOnce,
    quiesce: false,
    trim: false,
    fuseAt: { prefix: '/run/vm1.fuse-', logFile: '/log/vm1-nbd.log' },
    tlsCreds: null,
    exportUsedBy: null,
  });
}

export async function moveOffline(
  bench: FerryBench,
  form: MoveForm = asItIs,
): Promise<Plan | Refusal> {
  const record = await bench.record();
  const definition = present(record.persistent, 'it is persistent');
  const { disks } = await resolveChains(bench.images, definition, record.chains);
  const images = disks.flatMap(imagesOf);
  const identities = new Map<string, FileIdentity>();
  for (const path of images.map(({ source }) => showSource(source)))
    identities.set(path, present(await bench.images.identity(path), path));
  const { files, ...destination } = await atDestination(bench, disks, form);
  return planMoveOffline({
    record,
    disks: disks.map((disk) => disk.target),
    chains: new Map(disks.map((disk) => [disk.target, disk])),
    identities,
    ...destination,
    files: new Map([...files, ...(await look(bench, images, 'header'))]),
    bytesPerSecond: null,
    verify: 'full',
  });
}

/** While the first image is copied a rotation is asked for: it comes about, is undone, or is refused. */
export async function moveAndRotate(bench: FerryBench): Promise<Plan | Refusal> {
  rotateDuringCopy(bench);
  return await planTheMove(bench);
}

export function rotateDuringCopy(bench: FerryBench): void {
  bench.duringCopy = async () => {
    const mirrors = mirrorsOf(await bench.record());
    if (!bench.qemu.alive || mirrors.length === 0) return;
    const jobs = mirrors.map(({ mirror }) => mirror.jobId);
    await waitJobs(await bench.monitor(), jobs, ['ready'], 5000);
    for (const { disk } of mirrors)
      await bench.journal.record(uuid, [
        { change: 'mirror-ready', target: disk.target, ready: 'yes' },
      ]);
    const [move] = await openMoves(bench.host());
    if (move === undefined) return;
    const record = await bench.record();
    await bench
      .perform(async () => planRotate({ record, move, files: new Map() }))
      .catch((error: unknown) => {
        if (bench.striker.dead || !(error instanceof NeedsOperatorError)) throw error;
      });
  };
}

export async function look(
  bench: FerryBench,
  images: readonly Image[],
  depth: LookDepth,
): Promise<ReadonlyMap<string, PathFacts>> {
  const found = new Map<string, PathFacts>();
  for (const wanted of images)
    found.set(showSource(wanted.source), await factsOf(bench.images, wanted, depth));
  return found;
}
