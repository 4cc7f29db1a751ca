// What has to hold once an operation has ended, whatever struck it.

import assert from 'node:assert/strict';

import type { Image } from '../../src/block/layer.js';
import { formatNode, localPath } from '../../src/block/layer.js';
import { imagesOf } from '../../src/domain/disk.js';
import type { DomainRecord } from '../../src/domain/record.js';
import { applyChange } from '../../src/domain/record.js';
import { checkRoles, resolveChains } from '../../src/host/chains.js';
import type { Known } from '../../src/host/context.js';
import { mirrorsOf } from '../../src/plan/mirror-end.js';
import { layersOf } from '../../src/plan/refuse.js';
import { present } from '../../src/std/assert.js';
import { chainFrom } from '../fake/start-job.js';
import type { FerryBench } from './ferry-bench.js';

/** What was there before the operation. */
export interface Before {
  readonly files: readonly string[];
  readonly record: DomainRecord;
  readonly writes: number;
}

export async function before(bench: FerryBench): Promise<Before> {
  const { writes } = bench.guest;
  return { files: [...bench.storage.files.keys()], record: await bench.record(), writes };
}

/**
 * The domain as it has to be known now. Of a transient one whose QEMU is gone nothing is stored: then it is what the
 * operation says that it made of it, or what was there before it.
 */
async function knownOf(bench: FerryBench, then: Before): Promise<DomainRecord> {
  const record = await bench.journal.domain(then.record.uuid);
  if (record !== null) return record;
  const operations = await bench.journal.operations();
  const mine = operations.find(({ kind }) => !kind.startsWith('stop'));
  if (mine?.outcome !== 'committed') return then.record;
  const entries = await bench.journal.entries(mine.id);
  // Of an operation that was over before: its changes are in `then`, and change nothing once more.
  const changed = entries.flatMap(({ changes }) => changes).reduce(applyChange, then.record);
  return present(changed, 'only a stop ends a transient domain');
}

/** The guest is as its record says, on what that names, all it wrote is there, and nothing is left over. */
export async function checkRunning(bench: FerryBench, then: Before): Promise<void> {
  const record = await bench.record();
  const live = present(record.live, 'QEMU was not struck');
  assert.equal(bench.qemu.machine.runState, live.state.state, 'the guest stands still');
  const isSuspended = [live, then.record.live].every((one) => one?.state.state === 'paused');
  if (isSuspended) assert.equal(bench.guest.writes, then.writes, 'its user had suspended it');
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
export async function checkStopped(bench: FerryBench, then: Before): Promise<void> {
  for (const [path, { opens }] of bench.storage.files)
    assert.equal(opens.size, 0, `${path} is open still`);
  if (then.record.persistent === null) return await checkGone(bench, then);
  const record = await bench.record();
  assert.equal(record.live, null, 'QEMU is gone and the record does not know');
  const definition = present(record.persistent, 'it is persistent');
  const resolved = await resolveChains(bench.images, definition, record.chains);
  const roles = await bench.journal.roles();
  // Only what `checkRoles` asks of it.
  const known = { roles: () => roles, all: () => [record] } as unknown as Known;
  checkRoles(known, record.uuid, resolved);
  for (const disk of resolved.disks) {
    const top: Image = {
      source: present(disk.source, 'it has an image'),
      format: disk.format,
      index: null,
    };
    checkData(bench, disk.target, [top, ...(disk.backing ?? [])], 'acknowledged');
  }
}

/** Who creates the domain again on what its operation names has everything, and is not refused. */
async function checkGone(bench: FerryBench, then: Before): Promise<void> {
  assert.equal(await bench.journal.domain(then.record.uuid), null, 'it is gone with its QEMU');
  const { live } = await knownOf(bench, then);
  const roles = new Set((await bench.journal.roles()).map(({ path }) => path));
  for (const disk of present(live, 'as it ran last').definition.disks) {
    const [top] = imagesOf(disk);
    assert.ok(
      !roles.has(localPath(present(top, 'an image').source) ?? ''),
      'the live image is none',
    );
    checkData(bench, disk.target, imagesOf(disk), 'acknowledged');
  }
}

/** No file that nobody knows: before it, in the record, or with a role. */
export async function checkFiles(bench: FerryBench, then: Before): Promise<void> {
  const roles = await bench.journal.roles();
  const record = await knownOf(bench, then);
  const isGone = (await bench.journal.domain(then.record.uuid)) === null;
  const named = [
    ...record.chains.flatMap((chain) => (then.record.persistent === null ? [] : chain.images)),
    ...(record.live?.definition.disks ?? []).flatMap(imagesOf),
    ...(isGone ? [] : mirrorsOf(record).map(({ mirror }) => mirror.image)),
  ].map((image) => localPath(image.source));
  const known = new Set([...then.files, ...named, ...roles.map(({ path }) => path)]);
  const left = [...bench.storage.files.keys()].filter((path) => !known.has(path));
  assert.deepEqual(left, [], 'files left over');
  for (const path of named) assert.ok(bench.storage.files.has(path ?? ''), `${path} is gone`);
}

/** Nobody was rude, or only in ways that could not be helped. */
export function checkManners(bench: FerryBench, excused: RegExp | null): void {
  const rude = bench.storage.rudeness.filter((what) => excused?.test(what) !== true);
  assert.deepEqual(rude, [], 'rude');
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
