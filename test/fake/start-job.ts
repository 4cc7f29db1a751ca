// Starting the fake's jobs: what QEMU refuses, what it copies, and how each changes the graph at its end.

import type { CommitArgs, MirrorArgs, StreamArgs } from '../../src/qapi/types.js';
import { Refusal, imageIn, imageOf, sizeOf, type Graph, type Node } from './graph.js';
import type { JobSpec } from './job.js';
import { blockBytes, type FakeStorage } from './storage.js';

export interface Bench {
  readonly graph: Graph;
  readonly storage: FakeStorage;
  /** Whether a job of this id exists, and the next id that QEMU would make up. */
  readonly has: (id: string) => boolean;
  readonly start: (spec: JobSpec) => void;
}

/** A copy of one node, kept in step by a filter on top of it. */
interface Standing {
  readonly source: Node;
  readonly target: Node;
  readonly unitBlocks: number;
  readonly dirty: Set<number>;
}

export function startMirror(bench: Bench, args: MirrorArgs): void {
  const { graph, storage } = bench;
  const source = graph.findRoot(args.device);
  const target = graph.find(args.target);
  const id = idFor(bench, args['job-id'], args.device);
  graph.refuseBusy(target);
  if (source === target) throw new Refusal("Can't mirror node into itself");
  if (sizeOf(source) !== sizeOf(target)) {
    bench.start(failing(id, 'mirror', args, 'Source and target image have different sizes'));
    return;
  }

  judgeMirror(storage, args, target);
  const unitBlocks = copyUnitOf(args, target);
  const standing = { source, target, unitBlocks, dirty: initialUnits(args, source, unitBlocks) };
  const spec: JobSpec = {
    ...endingsOf(id, 'mirror', args),
    onTargetError: args['on-target-error'] ?? 'report',
    blocked: [source],
    held: [target],
    standing: true,
    dirty: standing.dirty,
    copyMode: args['copy-mode'] ?? 'background',
    copyUnit: (unit) => copyUnit(graph, standing, unit),
    settle: () => storage.flush(imageIn(target)),
    end: (how) => {
      if (how === 'pivot') judgePivot(storage, id, target, args.sync);
      graph.removeFilter(filter, how === 'pivot' ? target : source);
    },
  };
  const filter = graph.insertFilter(args['filter-node-name'], source, (block, value) => {
    if (spec.copyMode === 'write-blocking') graph.write(target, block, value);
    else spec.dirty.add(Math.floor(block / unitBlocks));
  });
  bench.start(spec);
}

export function startCommit(bench: Bench, args: CommitArgs): void {
  const { graph } = bench;
  const device = graph.findRoot(args.device);
  const top = args['top-node'] === undefined ? device : graph.find(args['top-node']);
  const chain = chainFrom(device);
  const base = args['base-node'] === undefined ? chain.at(-1) : graph.find(args['base-node']);
  if (base === undefined || base === top) throw new Refusal('cannot commit an image into itself');
  if (!chain.includes(top) || !chain.slice(chain.indexOf(top)).includes(base))
    throw new Refusal(`'${base.name}' is not in this backing file chain`);

  const between = chain.slice(chain.indexOf(top), chain.indexOf(base));
  const id = idFor(bench, args['job-id'], args.device);
  for (const node of top === device ? [device] : [device, ...between]) graph.refuseJob(node);
  graph.setReadOnly(base, false);
  imageIn(base).virtualSizeBytes = max(sizeOf(base), sizeOf(top));
  if (top === device) startActiveCommit(bench, args, { id, top, base, between });
  else startInnerCommit(bench, args, { id, top, base, between });
}

interface Commit {
  readonly id: string;
  readonly top: Node;
  readonly base: Node;
  /** Top first, base excluded. */
  readonly between: readonly Node[];
}

/** An active commit is a mirror into the backing: it stands until it is completed, and its end is a pivot. */
function startActiveCommit(bench: Bench, args: CommitArgs, commit: Commit): void {
  const { graph, storage } = bench;
  const { id, top, base, between } = commit;
  const unitBlocks = 16;
  const dirty = unitsOf(between, unitBlocks);
  const standing = { source: top, target: base, unitBlocks, dirty };
  const filter = graph.insertFilter(
    args['filter-node-name'],
    top,
    (block) => void dirty.add(Math.floor(block / unitBlocks)),
  );
  bench.start({
    ...endingsOf(id, 'commit', args),
    onTargetError: args['on-error'] ?? 'report',
    blocked: between,
    held: [base],
    standing: true,
    dirty,
    copyMode: 'background',
    copyUnit: (unit) => copyUnit(graph, standing, unit, between),
    settle: () => storage.flush(imageIn(base)),
    end: (how) => {
      graph.removeFilter(filter, how === 'pivot' ? base : top);
      if (how !== 'pivot') graph.setReadOnly(base, true);
    },
  });
}

function startInnerCommit(bench: Bench, args: CommitArgs, commit: Commit): void {
  const { graph, storage } = bench;
  const { id, top, base, between } = commit;
  const unitBlocks = 16;
  const dirty = unitsOf(between, unitBlocks);
  const standing = { source: top, target: base, unitBlocks, dirty };
  bench.start({
    ...endingsOf(id, 'commit', args),
    onTargetError: args['on-error'] ?? 'report',
    blocked: between,
    held: [base],
    standing: false,
    dirty,
    copyMode: 'background',
    copyUnit: (unit) => copyUnit(graph, standing, unit, between),
    settle: () => storage.flush(imageIn(base)),
    end: (how) => {
      graph.setReadOnly(base, true);
      if (how === 'abort') return;
      for (const over of graph.parentsOf(top)) rebase(bench, over, base, args['backing-file']);
    },
  });
}

export function startStream(bench: Bench, args: StreamArgs): void {
  const { graph, storage } = bench;
  const device = graph.find(args.device);
  graph.refuseJob(device);
  const chain = chainFrom(device);
  const base = args['base-node'] === undefined ? null : graph.find(args['base-node']);
  if (base !== null && !chain.includes(base))
    throw new Refusal(`Can't find '${base.name}' in the backing chain`);
  const between = chain.slice(1, base === null ? chain.length : chain.indexOf(base));
  const id = idFor(bench, args['job-id'], args.device);
  const wasReadOnly = device.readOnly;
  graph.setReadOnly(device, false);
  const unitBlocks = 16;
  const dirty = unitsOf(between, unitBlocks);

  bench.start({
    ...endingsOf(id, 'stream', args),
    onTargetError: args['on-error'] ?? 'report',
    blocked: [device, ...between],
    held: [],
    standing: false,
    dirty,
    copyMode: 'background',
    copyUnit: (unit) => {
      for (const block of blocksOf(unit, unitBlocks))
        if (imageIn(device).blocks.get(block) === undefined)
          graph.write(device, block, graph.read(device, block));
    },
    settle: () => storage.flush(imageIn(device)),
    end: (how) => {
      if (how !== 'abort') rebase(bench, device, base, args['backing-file']);
      graph.setReadOnly(device, wasReadOnly);
    },
  });
}

/** Layers from a node down, filters left out. */
export function chainFrom(node: Node): readonly Node[] {
  const below = node.backing === null ? [] : chainFrom(node.backing);
  return node.onWrite === null ? [node, ...below] : below;
}

/** Law 3, 10 and 11, as far as one command shows them. */
function judgeMirror(storage: FakeStorage, args: MirrorArgs, target: Node): void {
  const rude = (what: string): void => storage.rude(`blockdev-mirror ${args['job-id']}: ${what}`);
  const image = imageIn(target);
  const named = image.backing !== null;
  if (
    args['auto-dismiss'] !== false ||
    args['auto-finalize'] !== false ||
    args['job-id'] === undefined
  )
    rude('own job id, auto-finalize and auto-dismiss off (law 10)');
  if (args['filter-node-name'] === undefined) rude('its filter has no name (law 10)');
  if (args['on-target-error'] !== 'stop') rude('on-target-error is not stop (law 11)');
  if (args.sync !== 'none' && image.blocks.size > 0)
    rude(`target ${target.name} has clusters of its own (law 3)`);
  if (args['copy-mode'] === 'write-blocking' && named && target.backing === null)
    rude(`write-blocking into ${target.name}, opened without its backing (law 3)`);
}

/** Law 3: a guest moved onto an overlay that lacks its backing reads zeroes. */
function judgePivot(storage: FakeStorage, id: string, target: Node, sync: string): void {
  if (sync !== 'full' && imageIn(target).backing !== null && target.backing === null)
    storage.rude(`pivot ${id}: target ${target.name} lacks its backing (law 3)`);
}

/** QEMU's default granularity is a cluster; below it, a target whose header names a backing gets whole clusters. */
function copyUnitOf(args: MirrorArgs, target: Node): number {
  const image = imageIn(target);
  const unit = Math.max(
    1,
    (args.granularity ?? Math.max(65536, image.clusterBlocks * blockBytes)) / blockBytes,
  );
  return image.backing === null ? unit : Math.max(unit, image.clusterBlocks);
}

function initialUnits(args: MirrorArgs, source: Node, unitBlocks: number): Set<number> {
  if (args.sync === 'none') return new Set();
  return unitsOf(args.sync === 'top' ? [source] : chainFrom(source), unitBlocks);
}

function unitsOf(nodes: readonly Node[], unitBlocks: number): Set<number> {
  const blocks = nodes.flatMap((node) => [...(imageOf(node)?.blocks.keys() ?? [])]);
  return new Set(blocks.map((block) => Math.floor(block / unitBlocks)));
}

/** With `only`, just the blocks that those layers hold: what lies below them is the target's own. */
function copyUnit(graph: Graph, copy: Standing, unit: number, only: readonly Node[] = []): void {
  for (const block of blocksOf(unit, copy.unitBlocks)) {
    const held = only.length === 0 || only.some((node) => imageIn(node).blocks.has(block));
    if (held) graph.write(copy.target, block, graph.read(copy.source, block));
  }
}

const blocksOf = (unit: number, unitBlocks: number): readonly number[] =>
  Array.from({ length: unitBlocks }, (_, index) => unit * unitBlocks + index);

function rebase(bench: Bench, over: Node, base: Node | null, named: string | undefined): void {
  over.backing = base;
  const image = imageOf(over);
  if (image === null) return;
  image.backing =
    base === null
      ? null
      : { path: named ?? bench.storage.pathOf(imageIn(base)), format: imageIn(base).format };
}

function idFor(bench: Bench, id: string | undefined, device: string): string {
  const own = id ?? device;
  if (bench.has(own)) throw new Refusal(`Job ID '${own}' already in use`);
  return own;
}

type Endings = Pick<MirrorArgs, 'auto-finalize' | 'auto-dismiss'>;

const endingsOf = (id: string, type: JobSpec['type'], args: Endings) =>
  ({
    id,
    type,
    autoFinalize: args['auto-finalize'] ?? true,
    autoDismiss: args['auto-dismiss'] ?? true,
  }) as const;

/** A job that QEMU starts and that then fails at its first step. */
function failing(id: string, type: JobSpec['type'], args: Endings, why: string): JobSpec {
  return {
    ...endingsOf(id, type, args),
    onTargetError: 'report',
    blocked: [],
    held: [],
    standing: true,
    dirty: new Set([0]),
    copyMode: 'background',
    copyUnit: () => {
      throw new Refusal(why);
    },
    settle: () => undefined,
    end: () => undefined,
  };
}

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);
