// Epoch rotation of moves: when their live layer has grown, or when somebody asks.

import { formatNode } from '../block/layer.js';
import type { Image } from '../block/layer.js';
import type { OpenMove } from '../plan/move-again.js';
import { newest } from '../plan/move-tail.js';
import { planRotate, rotatedPaths } from '../plan/rotate.js';
import { refuse } from '../plan/refuse.js';
import { StateError, messageOf } from '../std/errors.js';
import type { Host } from './host.js';
import { look } from './look.js';
import { openMoves } from './owed.js';

/** A chain that is deeper than this is rotated at twice the size, and so on (design §5). */
const DEPTH = 16;

/** Puts an epoch on top of the disks of a move. */
export async function rotateMove(host: Host, operation: number): Promise<void> {
  const { domain } = host.operations.get(operation);
  await host.operate(domain, async (known) => {
    const move = (await openMoves(host)).find((one) => one.operation === operation);
    if (move === undefined || known === null)
      return refuse(
        new StateError(
          'OPERATION_INVALID',
          `rotate operation ${operation}: it is no move that is still copying; see 'ferry ops show ${operation}'`,
        ),
      );
    const paths = (move.plan.move?.ways ?? []).flatMap(rotatedPaths);
    const files = await look(host, paths.map(fileAt), 'header');
    return planRotate({ record: known, move, files });
  });
}

const fileAt = (path: string): Image => ({
  source: { type: 'file', path },
  format: 'raw',
  index: null,
});

/** Looks once at every move that copies or waits for its pivot, and rotates those whose live layer has outgrown what a death may cost. */
export async function rotateWhatGrew(host: Host): Promise<void> {
  for (const move of await openMoves(host)) {
    if (!standsForLong.has(host.running.get(move.operation)?.progress?.kind ?? '')) continue;
    try {
      if (await hasOutgrown(host, move)) await rotateMove(host, move.operation);
    } catch (error) {
      // Not READY yet, or the guest is just paused: the next look finds it.
      host.log.debug({ operation: move.operation, error: messageOf(error) }, 'not rotated');
    }
  }
}

/** Steps in which a move's mirror is READY, or soon is, and may be for hours. */
const standsForLong: ReadonlySet<string> = new Set(['copy-image', 'check-image', 'wait-pivot']);

async function hasOutgrown(host: Host, { plan }: OpenMove): Promise<boolean> {
  const { ways = [], rotateBytes = null } = plan.move ?? {};
  const monitor = await host.guestOf(plan.domain).monitor();
  if (rotateBytes === null || monitor === null) return false;
  const nodes = await monitor.execute('query-named-block-nodes', { flat: true });
  return ways.some((way) => {
    const { source } = newest(way);
    const node = nodes.find((one) => one['node-name'] === formatNode(source));
    const limit = rotateBytes << BigInt(Math.floor(way.epochs.length / DEPTH));
    return (node?.image['actual-size'] ?? 0n) > limit;
  });
}
