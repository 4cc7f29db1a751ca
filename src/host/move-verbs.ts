// `ferry move`: what has to be looked at before it can be planned.

import { posix } from 'node:path';
import type { Image } from '../block/layer.js';
import { findDisk } from '../domain/definition.js';
import { destinationsOf, planMove } from '../plan/move.js';
import { isRefusal, layersOf, needLive, refuse } from '../plan/refuse.js';
import type { MoveRequest } from './ferry-host.js';
import { checkNoneWaits } from './domain-verbs.js';
import type { Host, Started } from './host.js';
import { look, sizesOf } from './look.js';
import { checkTargets } from './targets.js';

/** Resolves when the move is journaled; `ended` when it is over. */
export async function startMove(host: Host, uuid: string, request: MoveRequest): Promise<Started> {
  const to = posix.normalize(request.to).replace(/(.)\/$/, '$1');
  return await host.begin(uuid, async (known) => {
    const record = known ?? host.known.domain(uuid);
    const live = needLive(record);
    if (isRefusal(live)) return refuse(live.refusal);
    await checkNoneWaits(host, uuid);
    await checkTargets(host.context.images, record, 'move');
    const { images } = host.context;
    const folder = to.startsWith('/') ? await images.stat(to) : null;
    const stamp = String(host.nowSeconds);
    const disks = request.disks.flatMap((name) => findDisk(live.definition, name) ?? []);
    const seen = await look(host, disks.flatMap(layersOf), 'header');
    const made = disks.flatMap((disk) => {
      const paths = destinationsOf(disk, to, stamp);
      return paths === null
        ? []
        : [...paths.copies, ...paths.copies.map((path) => `${path}.part`), ...paths.overlays];
    });
    // Without the folder nothing is there; the planner says what is wrong with it.
    const there =
      folder?.kind === 'folder' ? await look(host, made.map(fileAt), 'header') : new Map();
    return planMove({
      record,
      disks: request.disks,
      to,
      folder,
      freeBytes: folder?.kind === 'folder' ? await images.freeBytes(to) : 0n,
      files: new Map([...there, ...seen]),
      sizes: await sizesOf(host, uuid, live),
      stamp,
      rotateBytes: request.rotateBytes,
      bytesPerSecond: request.bytesPerSecond,
    });
  });
}

const fileAt = (path: string): Image => ({
  source: { type: 'file', path },
  format: 'raw',
  index: null,
});
