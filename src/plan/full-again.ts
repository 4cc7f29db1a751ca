// What a move by full mirrors needs of its domain's next QEMU: its targets made anew, and all of each disk mirrored again
// under the same names (law 2). Then the rest of its plan holds word for word.

import { formatNode, localPath } from '../block/layer.js';
import type { ImageRole, OwedMirror } from '../domain/record.js';
import { present } from '../std/assert.js';
import type { MoveAgain, MovedDisk, OpenMove } from './move-again.js';
import type { FullMove, FullWay } from './move-full.js';
import type { Plan, Step, StepOf } from './step.js';

export function fullAgain(
  { plan }: Pick<OpenMove, 'plan'>,
  { ways }: FullMove,
  nowSeconds: number,
): MoveAgain {
  return {
    disks: ways.map((way): MovedDisk => ({
      target: way.target,
      images: way.from,
      mirror: mirrorOf(plan.steps, way, nowSeconds),
    })),
    open: [],
    nextIndex: 1 + Math.max(...ways.map(({ to }) => to.index)),
  };
}

function mirrorOf(
  steps: readonly Step[],
  way: FullWay,
  sinceSeconds: number,
): NonNullable<MovedDisk['mirror']> {
  const node = formatNode(way.to);
  const open = steps.find(
    (step): step is StepOf<'open-node'> =>
      step.kind === 'open-node' && step.options['node-name'] === node,
  );
  const start = present(
    steps.find(
      (step): step is StepOf<'start-mirror'> =>
        step.kind === 'start-mirror' && step.target === node,
    ),
    'every disk has its mirror',
  );
  const known = start.changes?.find((change) => change.change === 'mirror');
  const owed: OwedMirror = {
    record: present(known, 'a mirror is made known').mirror,
    source: present(way.from[0], 'a chain is never empty').source,
    image: { ...way.to, index: null },
    below: [],
    sinceSeconds,
    stamp: null,
  };
  return {
    owed,
    full: way,
    attach: {
      target: way.target,
      before: steps.flatMap((step) => madeAgain(step, way)),
      inQemu: [
        present(open, 'a mirror has its target open'),
        { ...start, reverts: [...(start.reverts ?? []), { change: 'owe', owed }] },
      ],
    },
  };
}

/** A file is empty again; of a device all is written over. */
function madeAgain(step: Step, { to, fuse }: FullWay): readonly Step[] {
  if (step.kind === 'start-fuse' && step.fuse.pidFile === fuse?.pidFile) return [step];
  const path = localPath(to.source);
  if (step.kind === 'take-device' && step.path === path) return [step];
  if (step.kind !== 'create-image' || step.path !== path) return [];
  const { sizeBytes, backing, clusterSizeBytes, format = 'qcow2' } = step;
  return [{ kind: 'recreate-image', path, sizeBytes, backing, clusterSizeBytes, format }];
}

/** Law 13: half a copy is nobody's image. */
export const rolesOfFull = (
  { domain, domainName }: Plan,
  { ways }: FullMove,
  sinceSeconds: number,
): readonly ImageRole[] =>
  ways.flatMap(({ target, from, to }): readonly ImageRole[] => {
    const [path, live] = [localPath(to.source), localPath(from[0]?.source ?? to.source)];
    if (path === null || live === null) return [];
    return [{ path, role: 'unfinished', domain, domainName, target, live, sinceSeconds }];
  });
