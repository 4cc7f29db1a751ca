// What the fake tells when it is asked.

import type { BlockdevOptions } from '../../src/qapi/blockdev.js';
import { chainFrom } from './start-job.js';
import { imageOf, sizeOf, type Node } from './graph.js';
import type { Machine } from './machine.js';

type Reply = Readonly<Record<string, unknown>>;

export function queryStatus(machine: Machine): Reply {
  const old = machine.isModern ? {} : { singlestep: false };
  return { running: machine.runState === 'running', status: machine.runState, ...old };
}

export const queryBlock = (machine: Machine): readonly Reply[] =>
  [...machine.graph.roots].map(([qdev, root]) => ({
    device: '',
    qdev,
    type: 'unknown',
    removable: false,
    locked: false,
    'io-status': 'ok',
    inserted: { ...nodeInfo(machine, explicit(root)), ...(machine.throttles.get(qdev) ?? {}) },
  }));

export const queryNodes = (machine: Machine): readonly Reply[] =>
  [...machine.graph.nodes.values()].map((node) => nodeInfo(machine, node));

export const queryJobs = (machine: Machine): readonly Reply[] =>
  [...machine.jobs.values()].map((job) => job.info());

export const queryBlockJobs = (machine: Machine): readonly Reply[] =>
  [...machine.jobs.values()]
    .filter((job) => job.spec.type !== 'create')
    .map((job) => {
      const isMirror = machine.isModern && job.spec.type === 'mirror';
      const sync = job.spec.copyMode === 'write-blocking' && job.isReady;
      return { ...job.blockInfo(), ...(isMirror ? { 'actively-synced': sync } : {}) };
    });

export const queryBlockStats = (machine: Machine): readonly Reply[] =>
  [...machine.graph.roots].map(([qdev, root]) => ({
    device: '',
    qdev,
    'node-name': explicit(root).name,
    stats: stats(machine),
  }));

/** The edges as `x-debug-query-block-graph` names them: file, backing, root, source, target. */
export function queryGraph(machine: Machine): Reply {
  const nodes: Reply[] = [];
  const edges: Reply[] = [];
  const ids = new Map<string, number>();
  const known = (type: string, name: string): number => {
    const key = `${type} ${name}`;
    const id = ids.get(key) ?? ids.size + 1;
    if (!ids.has(key)) nodes.push({ id, type, name });
    ids.set(key, id);
    return id;
  };
  const edge = (parent: number, child: Node, name: string): void => {
    const to = known('block-driver', child.name);
    edges.push({ parent, child: to, name, perm: ['consistent-read'], 'shared-perm': [] });
  };

  for (const node of machine.graph.nodes.values()) {
    const id = known('block-driver', node.name);
    if (node.file !== null) edge(id, node.file, 'file');
    if (node.backing !== null) edge(id, node.backing, 'backing');
  }
  for (const [qdev, root] of machine.graph.roots) edge(known('block-backend', qdev), root, 'root');
  for (const job of machine.jobs.values()) {
    if (job.isOver) continue;
    const id = known('block-job', job.spec.id);
    for (const node of job.spec.blocked) edge(id, node, 'source');
    for (const node of job.spec.held) edge(id, node, 'target');
  }
  return { nodes, edges };
}

/** A node as queries see it: through a filter that nobody named. */
const explicit = (node: Node): Node =>
  node.isImplicit && node.backing !== null ? explicit(node.backing) : node;

function nodeInfo(machine: Machine, node: Node): Reply {
  const layers = chainFrom(node);
  const image = imageOf(node);
  const filename = filenameOf(node);
  const header = image?.backing ?? null;
  const backing =
    header === null || node.file === null
      ? {}
      : {
          'backing-filename': header.path,
          'full-backing-filename': header.path,
          'backing-filename-format': header.format,
        };
  return {
    file: filename,
    'node-name': node.name,
    ro: node.readOnly,
    drv: node.driver,
    backing_file_depth: Math.max(0, layers.length - (node.onWrite === null ? 1 : 0)),
    encrypted: false,
    detect_zeroes: 'off',
    ...zero(['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr']),
    image: {
      filename,
      format: node.driver,
      'virtual-size': sizeOf(node),
      'actual-size': BigInt((image?.blocks.size ?? 0) + 48) * 4096n,
      'dirty-flag': false,
      ...(node.driver === 'qcow2'
        ? { 'cluster-size': BigInt(image?.clusterBlocks ?? 16) * 4096n }
        : {}),
      ...backing,
    },
    cache: { writeback: true, direct: false, 'no-flush': false },
    write_threshold: 0n,
    ...(machine.isModern ? { active: true } : {}),
  };
}

/** As QEMU does: a plain name, and a `json:` text once the open backing is not what the header says. */
function filenameOf(node: Node): string {
  if (node.filename !== null) return node.filename;
  if (node.onWrite !== null) return node.backing === null ? '' : filenameOf(node.backing);
  const path = node.file?.filename ?? '';
  const image = imageOf(node);
  const open = node.backing === null ? null : (node.backing.file?.filename ?? null);
  if (node.driver !== 'qcow2' || (image?.backing?.path ?? null) === open) return path;
  const options: Partial<BlockdevOptions> & { backing: string | null } = {
    backing: node.backing?.name ?? null,
    driver: 'qcow2',
  };
  return `json:${JSON.stringify({ ...options, file: { driver: 'file', filename: path } })}`;
}

const zero = (names: readonly string[]): Reply =>
  Object.fromEntries(names.map((name) => [name, 0n]));

function stats(machine: Machine): Reply {
  const verbs = ['rd', 'wr', 'unmap', 'flush', ...(machine.isModern ? ['zone_append'] : [])];
  const counted = verbs.flatMap((verb) => [
    `${verb}_operations`,
    `${verb}_total_time_ns`,
    `failed_${verb}_operations`,
    `invalid_${verb}_operations`,
    ...(verb === 'flush' ? [] : [`${verb}_bytes`, `${verb}_merged`]),
  ]);
  const writes = BigInt(machine.options.guest?.writes ?? 0);
  return {
    ...zero(counted),
    wr_operations: writes,
    wr_bytes: writes * 4096n,
    wr_highest_offset: 0n,
    account_invalid: true,
    account_failed: true,
    timed_stats: [],
  };
}
