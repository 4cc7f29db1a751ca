// Effects on QEMU's node graph: nodes opened and closed.

import type { BlockdevOptions } from '../../block/node.js';
import type { StepOf } from '../../plan/step.js';
import type { Monitor } from '../../qmp/monitor.js';
import type { Effect } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { ifAlive, needMonitor } from '../world.js';

/** The node that each device has as its root, by node name (`query-block`; key is what is inserted). */
export async function rootsOf(monitor: Monitor): Promise<ReadonlySet<string>> {
  const devices = await monitor.execute('query-block', {});
  return new Set(devices.flatMap((device) => device.inserted?.['node-name'] ?? []));
}

export async function nodesOf(monitor: Monitor): Promise<ReadonlySet<string>> {
  const nodes = await monitor.execute('query-named-block-nodes', { flat: true });
  return new Set(nodes.flatMap((node) => node['node-name'] ?? []));
}

async function open(monitor: Monitor, options: BlockdevOptions): Promise<void> {
  await monitor.execute('blockdev-add', options);
}

/** Closed already is fine. */
export async function close(monitor: Monitor, name: string): Promise<void> {
  if (!(await nodesOf(monitor)).has(name)) return;
  await monitor.execute('blockdev-del', { 'node-name': name });
}

export const openNode: Effect<StepOf<'open-node'>, DomainWorld> = {
  async do({ options }, world) {
    await open(await needMonitor(world, `open ${options['node-name']}`), options);
  },
  async undo({ options }, world) {
    await ifAlive(world, (monitor) => close(monitor, options['node-name']));
  },
  async probe({ options }, world) {
    const monitor = await world.monitor();
    return monitor !== null && (await nodesOf(monitor)).has(options['node-name'])
      ? 'done'
      : 'absent';
  },
};

export const closeNode: Effect<StepOf<'close-node'>, DomainWorld> = {
  async do({ options }, world) {
    await ifAlive(world, (monitor) => close(monitor, options['node-name']));
  },
  async undo({ options }, world) {
    await ifAlive(world, async (monitor) => {
      if (!(await nodesOf(monitor)).has(options['node-name'])) await open(monitor, options);
    });
  },
  async probe({ options }, world) {
    const monitor = await world.monitor();
    return monitor === null || !(await nodesOf(monitor)).has(options['node-name'])
      ? 'done'
      : 'absent';
  },
};
