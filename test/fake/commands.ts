// The commands that the fake QEMU knows, one row each. Arguments were checked against the schema before.

import { present } from '../../src/std/assert.js';
import type { BlockdevOptions } from '../../src/qapi/blockdev.js';
import type { ArgsOf, CommandName, TransactionAction } from '../../src/qapi/types.js';
import { Refusal, imageIn, type Node } from './graph.js';
import type { FakeJob } from './job.js';
import type { Machine } from './machine.js';
import * as tell from './replies.js';
import { startCommit, startMirror, startStream, type Bench } from './start-job.js';

/** Never answers until the fake is killed or its targets are well again. */
export const hangs = Symbol('hangs');

type Handlers = {
  readonly [C in CommandName]?: (machine: Machine, args: ArgsOf<C>) => unknown;
};

const nothing = {} as const;

const handlers: Handlers = {
  'query-status': tell.queryStatus,
  'query-block': tell.queryBlock,
  'query-named-block-nodes': tell.queryNodes,
  'query-blockstats': tell.queryBlockStats,
  'query-jobs': tell.queryJobs,
  'query-block-jobs': tell.queryBlockJobs,
  'x-debug-query-block-graph': tell.queryGraph,
  'query-version': (machine) => machine.version,
  'query-kvm': () => ({ enabled: false, present: true }),
  'query-target': () => ({ arch: 'x86_64' }),
  'query-cpus-fast': () => [],
  'query-chardev': () => [],
  'query-yank': () => [],
  'query-balloon': () => {
    throw new Refusal('No balloon device has been activated', 'DeviceNotActive');
  },

  'blockdev-add': (machine, args) => (machine.graph.add(args), nothing),
  'blockdev-del': (machine, args) => (machine.graph.delete(args['node-name']), nothing),
  'blockdev-reopen': reopen,
  'blockdev-snapshot': (machine, args) =>
    transact(machine, { actions: [{ type: 'blockdev-snapshot', data: args }] }),
  transaction: transact,
  'change-backing-file': changeBackingFile,
  block_resize: resize,

  'blockdev-mirror': (machine, args) => (startMirror(benchOf(machine), args), nothing),
  'block-commit': (machine, args) => (startCommit(benchOf(machine), args), nothing),
  'block-stream': (machine, args) => (startStream(benchOf(machine), args), nothing),

  'job-complete': (machine, { id }) => complete(machine, machine.job(id)),
  'block-job-complete': (machine, { device }) => complete(machine, blockJob(machine, device)),
  'job-finalize': (machine, { id }) => finalize(machine, machine.job(id)),
  'job-dismiss': (machine, { id }) => (machine.job(id).dismiss(), nothing),
  'job-cancel': (machine, { id }) => cancel(machine, machine.job(id), 'hard'),
  'block-job-cancel': (machine, { device, force }) =>
    cancel(machine, blockJob(machine, device), force === true ? 'hard' : 'soft'),
  'job-pause': (machine, { id }) => (machine.job(id).pause(), nothing),
  'job-resume': (machine, { id }) => (machine.job(id).resume(), nothing),
  'block-job-pause': (machine, { device }) => (blockJob(machine, device).pause(), nothing),
  'block-job-resume': (machine, { device }) => (blockJob(machine, device).resume(), nothing),
  'block-job-set-speed': (machine, { device, speed }) => {
    const job = blockJob(machine, device);
    job.accept('set-speed');
    job.speed = speed;
    return nothing;
  },
  'block-job-change': (machine, args) => {
    const { spec } = machine.job(args.id);
    const target = spec.held[0];
    if (target !== undefined && target.backing === null && imageIn(target).backing !== null)
      machine.storage.rude(`block-job-change ${args.id}: ${target.name} lacks its backing (law 3)`);
    spec.copyMode = args['copy-mode'];
    return nothing;
  },

  stop,
  cont,
  system_reset: (machine) => {
    machine.drain();
    machine.emit('RESET', { guest: false, reason: 'host-qmp-system-reset' });
    return nothing;
  },
  system_powerdown: (machine) => (machine.emit('POWERDOWN'), nothing),
  'set-action': (machine, args) => {
    machine.onShutdown = args.shutdown ?? machine.onShutdown;
    return nothing;
  },
  'human-monitor-command': monitorCommand,
  'object-add': () => nothing,
  'object-del': () => nothing,
  'block-latency-histogram-set': () => nothing,
  'block-set-write-threshold': (machine, args) => (machine.graph.find(args['node-name']), nothing),
  block_set_io_throttle: throttle,
  yank: () => nothing,
};

/**
 * Executes one command whose arguments were checked.
 *
 * @throws {Refusal} QEMU would refuse it in this state.
 */
export function handle(machine: Machine, command: string, args: unknown): unknown {
  const row: unknown = Object.entries(handlers).find(([name]) => name === command)?.[1];
  if (typeof row !== 'function') throw new Refusal(`the fake does not know ${command}`);
  return row(machine, args) as unknown;
}

function benchOf(machine: Machine): Bench {
  return {
    graph: machine.graph,
    storage: machine.storage,
    has: (id) => machine.jobs.has(id),
    start: (spec) => machine.startJob(spec),
  };
}

function blockJob(machine: Machine, id: string): FakeJob {
  return machine.job(id, () => new Refusal(`Block job '${id}' not found`, 'DeviceNotActive'));
}

/** Law 4: a root changes under `stop` only, and is finalized by us. */
function complete(machine: Machine, job: FakeJob): object {
  job.accept('complete');
  const { id, autoFinalize } = job.spec;
  if (machine.isRunning) machine.storage.rude(`job-complete ${id} while the guest runs (law 4)`);
  if (autoFinalize) machine.storage.rude(`job-complete ${id} with auto-finalize on (law 4)`);
  if (job.ioStatus !== 'ok') machine.storage.rude(`job-complete ${id}: io-status ${job.ioStatus}`);
  job.complete();
  return nothing;
}

function finalize(machine: Machine, job: FakeJob): object {
  job.accept('finalize');
  if (machine.isRunning && job.spec.standing && !job.endsInPlace)
    machine.storage.rude(`job-finalize ${job.spec.id} while the guest runs (law 4)`);
  job.finalize();
  return nothing;
}

/** Towards a hung target a cancel is accepted, and then nothing happens until the target answers. */
function cancel(machine: Machine, job: FakeJob, how: 'soft' | 'hard'): object {
  job.accept('cancel');
  if (machine.healthOf(job) === 'hung') {
    machine.storage.rude(`cancel ${job.spec.id} towards a hung target (law 9)`);
    job.cancelLater = how;
    return nothing;
  }
  job.cancel(how);
  return nothing;
}

function stop(machine: Machine): object | typeof hangs {
  const hung = machine.hung();
  if (machine.runState === 'running') {
    machine.runState = 'paused';
    machine.emit('STOP');
  }
  if (hung.length > 0) {
    machine.storage.rude(`stop: the target of ${hung[0]?.spec.id} hangs (law 9)`);
    return hangs;
  }
  machine.drain();
  machine.flushAll();
  return nothing;
}

function cont(machine: Machine): object {
  const { runState } = machine;
  if (runState === 'shutdown' || runState === 'guest-panicked' || runState === 'internal-error')
    throw new Refusal('Resetting the Virtual Machine is required');
  const pivoting = [...machine.jobs.values()].find((job) => job.drains);
  if (pivoting !== undefined)
    machine.storage.rude(`cont while ${pivoting.spec.id} is ${pivoting.status} (law 4)`);
  if (runState === 'running') return nothing;
  machine.runState = 'running';
  machine.emit('RESUME');
  return nothing;
}

/** All or none: whatever an action changed is put back when a later one is refused. */
function transact(
  machine: Machine,
  args: { readonly actions: readonly TransactionAction[] },
): object | typeof hangs {
  if (machine.hung().length > 0) return hangs;
  const { graph } = machine;
  const roots = new Map(graph.roots);
  const links = [...graph.nodes.values()].map(
    (node) => [node, node.backing, node.readOnly] as const,
  );
  machine.drain();
  try {
    for (const action of args.actions) act(machine, action);
  } catch (error) {
    for (const [device, node] of roots) graph.roots.set(device, node);
    for (const [node, backing, readOnly] of links) {
      node.backing = backing;
      if (node.readOnly !== readOnly) graph.setReadOnly(node, readOnly);
    }
    throw error;
  }
  return nothing;
}

function act(machine: Machine, action: TransactionAction): void {
  const { graph } = machine;
  switch (action.type) {
    case 'blockdev-snapshot': {
      const base = graph.find(action.data.node);
      graph.refuseBusy(base);
      return graph.snapshot(base, graph.find(action.data.overlay));
    }
    case 'abort':
      throw new Refusal('Transaction aborted using Abort action');
    default:
      graph.find(action.data.node);
  }
}

function reopen(machine: Machine, args: { readonly options: readonly BlockdevOptions[] }): object {
  const { graph } = machine;
  const changes = args.options.map((options) => reopenOf(machine, options));
  machine.drain();
  const before = changes.map(({ node }) => [node, node.backing, node.readOnly] as const);
  try {
    for (const { node, backing, readOnly } of changes) {
      node.backing = backing;
      if (node.readOnly !== readOnly) graph.setReadOnly(node, readOnly);
    }
  } catch (error) {
    for (const [node, backing] of before) node.backing = backing;
    throw error;
  }
  return nothing;
}

function reopenOf(machine: Machine, options: BlockdevOptions) {
  const { graph } = machine;
  const name = options['node-name'];
  const node = name === undefined ? undefined : graph.nodes.get(name);
  if (node === undefined) throw new Refusal(`Failed to find node with node-name='${name ?? ''}'`);
  const job = [...machine.jobs.values()].find((one) => !one.isOver && one.spec.held.includes(node));
  if (job !== undefined && machine.isRunning)
    machine.storage.rude(`blockdev-reopen ${node.name}: a running job writes to it (law 3)`);

  const file = 'file' in options ? options.file : undefined;
  if (node.file !== null && file !== node.file.name)
    throw new Refusal(`the fake cannot change the file of '${node.name}'`);
  const readOnly = options['read-only'] ?? false;
  if (options.driver !== 'qcow2') return { node, backing: node.backing, readOnly };
  return { node, backing: reopenBacking(machine, node, options.backing), readOnly };
}

function reopenBacking(machine: Machine, node: Node, backing: unknown): Node | null {
  if (backing === null) return null;
  if (backing === undefined) {
    if (node.backing === null && imageIn(node).backing === null) return null;
    throw new Refusal(`backing is missing for '${node.name}'`);
  }
  const found = typeof backing === 'string' ? machine.graph.nodes.get(backing) : undefined;
  if (found === undefined)
    throw new Refusal(`Cannot find device='' nor node-name='${String(backing)}'`);
  return found;
}

function changeBackingFile(machine: Machine, args: ArgsOf<'change-backing-file'>): object {
  machine.graph.findRoot(args.device);
  const node = machine.graph.find(args['image-node-name']);
  const image = imageIn(node);
  if (image.backing === null && node.backing === null)
    throw new Refusal('Node has no backing file');
  const format = node.backing === null ? image.backing?.format : imageIn(node.backing).format;
  image.backing = { path: args['backing-file'], format: present(format, 'it has a backing') };
  return nothing;
}

function resize(machine: Machine, args: ArgsOf<'block_resize'>): object {
  const node = machine.graph.find(args['node-name'] ?? args.device ?? '');
  machine.graph.refuseJob(node);
  imageIn(node).virtualSizeBytes = args.size;
  return nothing;
}

function throttle(machine: Machine, args: ArgsOf<'block_set_io_throttle'>): object {
  const { device, id, group, ...limits } = args;
  const qdev = id ?? device ?? '';
  if (!machine.graph.roots.has(qdev))
    throw new Refusal(`Device '${qdev}' not found`, 'DeviceNotFound');
  machine.throttles.set(qdev, { ...limits, group: group ?? qdev });
  return nothing;
}

/** The only line that the product sends: a flush of one node before a pause. */
function monitorCommand(machine: Machine, args: ArgsOf<'human-monitor-command'>): unknown {
  const node = /^qemu-io (?:-d )?"?([^ "]+)"? "?flush"?$/.exec(args['command-line'])?.[1];
  if (node === undefined) return '';
  if (machine.hung().length > 0) {
    machine.storage.rude(`flush of ${node} while a target hangs (law 9)`);
    return hangs;
  }
  const found = machine.graph.nodes.get(node);
  if (found === undefined) return `Error: Cannot find device='${node}' nor node-name='${node}'\r\n`;
  machine.drain();
  machine.graph.flush(found);
  return '';
}
