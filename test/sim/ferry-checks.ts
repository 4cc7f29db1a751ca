// What has to hold once an operation has ended, whatever struck it.

import assert from 'node:assert/strict';

import type { Image } from '../../src/block/layer.js';
import { formatNode, localPath } from '../../src/block/layer.js';
import type { DomainRecord } from '../../src/domain/record.js';
import { checkRoles, resolveChains } from '../../src/host/chains.js';
import type { Known } from '../../src/host/context.js';
import { rolesOfMoves } from '../../src/host/owed.js';
import { mirrorsOf } from '../../src/plan/mirror-end.js';
import { layersOf } from '../../src/plan/refuse.js';
import { present } from '../../src/std/assert.js';
import { FakeCopyFiles } from '../fake/copy-files.js';
import { chainFrom } from '../fake/start-job.js';
import type { FerryBench } from './ferry-bench.js';

/** What was there before the operation. */
export interface Before {
  readonly files: readonly string[];
  /** Of those: what nobody may write to or remove. */
  readonly sealed: readonly string[];
  readonly record: DomainRecord;
}

export async function before(bench: FerryBench): Promise<Before> {
  const sealed = [...bench.storage.files].flatMap(([path, image]) =>
    image.sealed === null ? [] : [path],
  );
  return { files: [...bench.storage.files.keys()], sealed, record: await bench.record() };
}

/** The guest runs on what the record names, all it wrote is there, and nothing is left over. */
export async function checkRunning(bench: FerryBench): Promise<void> {
  const record = await bench.record();
  const live = present(record.live, 'QEMU was not struck');
  assert.equal(bench.qemu.machine.runState, live.state.state, 'the run state of the guest');
  assert.equal(bench.fileSystems.isFrozen, false, 'the file systems of the guest');
  const mirrors = mirrorsOf(record);
  const nodes = live.definition.disks.flatMap((disk) => layersOf(disk).map(formatNode));
  const targets = mirrors.flatMap(({ mirror }) =>
    mirror.image.index === null ? [] : [formatNode({ index: mirror.image.index })],
  );
  const left = bench.qemu.leftovers();
  assert.deepEqual(left.nodes.toSorted(), [...nodes, ...targets].toSorted(), 'nodes');
  assert.deepEqual(
    left.jobs.toSorted(),
    mirrors.map(({ mirror }) => mirror.jobId).toSorted(),
    'jobs',
  );
  for (const disk of live.definition.disks) {
    const root = present(bench.qemu.machine.graph.roots.get(disk.target), disk.target);
    const open = chainFrom(root).map((node) => node.name);
    assert.deepEqual(open, layersOf(disk).map(formatNode), `the chain of ${disk.target}`);
    checkData(bench, disk.target, layersOf(disk), 'exact');
  }
  checkLocks(bench, record);
}

/** What a start after a death would open is there, is not refused, and holds every acknowledged write (law 1). */
export async function checkStopped(bench: FerryBench): Promise<void> {
  const record = await bench.record();
  assert.equal(record.live, null, 'QEMU is gone and the record does not know');
  const definition = present(record.persistent, 'it is persistent');
  const resolved = await resolveChains(bench.images, definition, record.chains);
  const roles = [...(await bench.journal.roles()), ...(await rolesOfMoves(bench.host()))];
  // Only what `checkRoles` asks of it.
  const known = { roles: () => roles, all: () => [record] } as unknown as Known;
  await checkRoles({ known, images: bench.images, roles }, resolved);
  for (const disk of resolved.disks) {
    const top: Image = {
      source: present(disk.source, 'it has an image'),
      format: disk.format,
      index: null,
    };
    checkData(bench, disk.target, [top, ...(disk.backing ?? [])], 'acknowledged');
  }
  for (const [path, { opens }] of bench.storage.files)
    assert.equal(opens.size, 0, `${path} is open still`);
}

/** What an unfinished copy says to have on disk is there, to the block: it was synced before it was written down. */
export async function checkSaved({ journal, storage }: FerryBench): Promise<void> {
  for (const { id, plan, direction } of await journal.openOperations()) {
    for (const [i, step] of plan.steps.entries()) {
      const saved = step.kind === 'copy-image' ? await journal.copy(id, i) : null;
      if (step.kind !== 'copy-image' || saved === null || direction === 'back') continue;
      const target = `${step.to}.part`;
      if (!storage.files.has(target)) continue;
      const files = new FakeCopyFiles(storage, step.from, target);
      for (const { offset, length, dataBytes, hash } of saved.pieces) {
        const parts = [{ start: offset, length }];
        const found = await files.check({ offset, length, parts, dataBytes }, parts);
        // The first holds the header, which is rewritten once all pieces are there.
        if (offset > 0) assert.equal(found, hash, `${target} lost what it had at ${offset}`);
      }
    }
  }
}

/** No file that nobody knows: before it, in the record, or with a role. */
export async function checkFiles(bench: FerryBench, { files, sealed }: Before): Promise<void> {
  assert.deepEqual(bench.storage.rudeness, [], 'rude');
  for (const path of sealed) assert.ok(bench.storage.files.has(path), `${path} is gone`);
  const roles = await bench.journal.roles();
  const record = await bench.record();
  const named = [
    ...record.chains.flatMap((chain) => chain.images),
    ...mirrorsOf(record).map(({ mirror }) => mirror.image),
  ].map((image) => localPath(image.source));
  const known = new Set([...files, ...named, ...roles.map(({ path }) => path)]);
  const left = [...bench.storage.files.keys()].filter((path) => !known.has(path));
  assert.deepEqual(left, [], 'files left over');
  for (const path of named) assert.ok(bench.storage.files.has(path ?? ''), `${path} is gone`);
}

/** Rolled back, or never begun: nothing became known. */
export async function checkNothing(bench: FerryBench, then: Before): Promise<void> {
  const record = await bench.record();
  const present_ = [...bench.storage.files.keys()].toSorted();
  assert.deepEqual(present_, then.files.toSorted(), 'files');
  const nextIndex = record.live?.nextIndex ?? 0;
  const live = then.record.live === null ? null : { ...then.record.live, nextIndex };
  assert.deepEqual(
    { ...record, chains: sorted(record) },
    { ...then.record, chains: sorted(then.record), live },
    'the record',
  );
}

const sorted = ({ chains }: DomainRecord) =>
  chains.toSorted((a, b) => (a.target < b.target ? -1 : 1));

function checkData(
  bench: FerryBench,
  target: string,
  chain: readonly Image[],
  want: 'exact' | 'acknowledged',
): void {
  const paths = chain.map((image) => present(localPath(image.source), 'a file'));
  const top = present(paths[0], 'a chain is never empty');
  const read = (block: number): number => bench.storage.read(top, block, paths);
  assert.deepEqual(bench.guest.problems(target, read, want), [], `${want}: ${paths.join(' ← ')}`);
}

/** Whoever writes is a top or a mirror; everything else is open to be read, or not at all. */
function checkLocks(bench: FerryBench, record: DomainRecord): void {
  const disks = record.live?.definition.disks ?? [];
  const tops = disks.map((disk) => layersOf(disk)[0]?.source);
  const mirrors = mirrorsOf(record).map(({ mirror }) => mirror.image.source);
  const writers = [...tops, ...mirrors].map((source) =>
    source === undefined ? null : localPath(source),
  );
  for (const [path, { opens }] of bench.storage.files) {
    const modes = [...opens.values()];
    const expected = writers.includes(path) ? ['write'] : modes.map(() => 'read');
    assert.deepEqual(modes, expected, `locks of ${path}`);
  }
}
