// What a move whose QEMU died needs of its domain's next QEMU, read from the move's own journal: the same images under
// the same node names, its targets made anew and mirrored again under the same job ids, and what it had opened besides.
// Then the rest of its plan holds word for word, and the move goes on where it was.

import type { Layer } from '../block/layer.js';
import { localPath } from '../block/layer.js';
import type { ImageRole, OwedMirror } from '../domain/record.js';
import { present } from '../std/assert.js';
import type { Attach } from './attach.js';
import type { Plan, Step, StepOf } from './step.js';

/** A move that was begun and has not switched: its overlays are live, its copies and targets are not finished. */
export interface OpenMove {
  readonly operation: number;
  readonly plan: Plan;
  /** Numbers of the steps that its journal calls done. */
  readonly done: ReadonlySet<number>;
}

export interface MovedDisk {
  readonly target: string;
  /** Active first, with the indexes that the rest of the plan names. */
  readonly images: readonly Layer[];
  /** Null: it had not come to the mirror yet, and sees to it itself. */
  readonly mirror: { readonly owed: OwedMirror; readonly attach: Attach } | null;
}

export interface MoveAgain {
  readonly disks: readonly MovedDisk[];
  /** Nodes that it had opened besides, base first. */
  readonly open: readonly Step[];
  /** Above every index that its plan uses. */
  readonly nextIndex: number;
}

/** Whether an operation is a move that waits when its QEMU goes: past its snapshot, not switched, not turned round. */
export const isOpenMove = ({ plan, done }: OpenMove): boolean =>
  plan.waitsFrom !== undefined && done.has(plan.waitsFrom) && !done.has(plan.commitAt - 1);

export function moveAgain({ plan, done: numbers }: OpenMove, nowSeconds: number): MoveAgain {
  const done = plan.steps.filter((_, i) => numbers.has(i));
  const changes = done.flatMap((step) => (step.kind === 'snapshot' ? (step.changes ?? []) : []));
  const disks = changes.flatMap((change): readonly MovedDisk[] =>
    change.change !== 'chain'
      ? []
      : [
          {
            target: change.target,
            images: change.images.map((image) => ({
              ...image,
              index: present(image.index, 'an image of a running domain has an index'),
            })),
            mirror: mirrorOf(plan, done, change.target, nowSeconds),
          },
        ],
  );
  const mirrored = new Set(
    plan.steps.flatMap((step) => (step.kind === 'start-mirror' ? [step.target, step.device] : [])),
  );
  const open = done.filter(
    (step) => step.kind === 'open-node' && !mirrored.has(step.options['node-name']),
  );
  const indexes = changes.map((change) => (change.change === 'next-index' ? change.nextIndex : 0));
  return { disks, open, nextIndex: Math.max(1, ...indexes) };
}

function mirrorOf(
  plan: Plan,
  done: readonly Step[],
  target: string,
  sinceSeconds: number,
): MovedDisk['mirror'] {
  const start = done.findLast(
    (step): step is StepOf<'start-mirror'> =>
      step.kind === 'start-mirror' &&
      step.changes?.some((c) => c.change === 'mirror' && c.mirror.target === target) === true,
  );
  const known = start?.changes?.find((change) => change.change === 'mirror');
  if (start === undefined || known === undefined) return null;
  const open = present(
    done.findLast(
      (step): step is StepOf<'open-node'> =>
        step.kind === 'open-node' && step.options['node-name'] === start.target,
    ),
    'a mirror has its target open',
  );
  const path = present(localPath(known.disk.image.source), 'a move goes to files');
  const made = present(
    plan.steps.find(
      (step): step is StepOf<'create-image'> => step.kind === 'create-image' && step.path === path,
    ),
    'a move makes its targets',
  );
  const snapshot = plan.steps
    .flatMap((step) => (step.kind === 'snapshot' ? step.disks : []))
    .findLast((disk) => disk.target === target);
  const owed: OwedMirror = {
    record: known.mirror,
    source: {
      type: 'file',
      path: present(snapshot, 'a move takes a snapshot of its disks').overlayPath,
    },
    image: { ...known.disk.image, index: null },
    below: known.disk.backing.map((image) => ({ ...image, index: null })),
    sinceSeconds,
    stamp: null,
  };
  const { sizeBytes, backing, clusterSizeBytes } = made;
  const attach: Attach = {
    target,
    before: [{ kind: 'recreate-image', path, sizeBytes, backing, clusterSizeBytes }],
    inQemu: [
      { kind: 'open-node', options: open.options },
      { ...start, reverts: [...(start.reverts ?? []), { change: 'owe', owed }] },
    ],
  };
  return { owed, attach };
}

/** Law 13 for the images of a move that waits: who may not be opened, and which image is live instead. */
export function rolesOfMove({ plan }: OpenMove, sinceSeconds: number): readonly ImageRole[] {
  const domain = { domain: plan.domain, domainName: plan.domainName, sinceSeconds };
  const snapshots = plan.steps.flatMap((step) => (step.kind === 'snapshot' ? step.disks : []));
  const made = plan.steps.flatMap((step) => (step.kind === 'copy-image' ? [step.to] : []));
  const pivots = plan.steps.flatMap((step) =>
    step.kind === 'pivot' ? step.disks.map((disk) => [disk.target, disk.path] as const) : [],
  );
  return snapshots.flatMap(({ target, base, overlayPath: live }): readonly ImageRole[] => {
    const role = { ...domain, target, live };
    const targets = pivots.flatMap(([of, path]) => (of === target && path !== null ? [path] : []));
    return [
      { ...role, path: base.path, role: 'sealed' },
      ...[...new Set(targets)].map((path) => ({ ...role, path, role: 'unfinished' as const })),
      ...made
        .filter((path) => !targets.includes(path))
        .map((path) => ({ ...role, path, role: 'unfinished' as const })),
    ];
  });
}
