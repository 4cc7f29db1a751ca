// What a move whose QEMU died needs of its domain's next QEMU, read from the move's own journal: the same images under
// the same node names, its targets made anew and mirrored again under the same job ids, and what it had opened besides.
// Then the rest of its plan holds word for word, and the move goes on where it was.

import type { Layer } from '../block/layer.js';
import { formatNode } from '../block/layer.js';
import type { ImageRole, OwedMirror } from '../domain/record.js';
import { present } from '../std/assert.js';
import type { Attach } from './attach.js';
import { fullAgain, rolesOfFull } from './full-again.js';
import type { FullWay } from './move-full.js';
import type { MoveWay } from '../domain/undo-window.js';
import { newest, pathOf, sources } from './move-tail.js';
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
  readonly mirror: {
    readonly owed: OwedMirror;
    readonly attach: Attach;
    /** Of a move by full mirrors. */
    readonly full?: FullWay;
  } | null;
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
  if (plan.full !== undefined) return fullAgain({ plan }, plan.full, nowSeconds);
  const done = plan.steps.filter((_, i) => numbers.has(i));
  const { ways } = present(plan.move, 'a move that waits knows its ways');
  const disks = ways.map((way) => ({
    target: way.target,
    images: sources(way),
    mirror: mirrorOf(done, way, nowSeconds),
  }));
  // In the chain that the start opens, or opened with its mirror.
  const opened = new Set(
    ways.flatMap((way, i) => [
      ...way.epochs.map(({ source }) => formatNode(source)),
      ...(disks[i]?.mirror === null ? [] : [formatNode(newest(way).twin)]),
    ]),
  );
  const open = leftOpen(done).flatMap((step): readonly Step[] => {
    const name = step.options['node-name'];
    if (opened.has(name)) return [];
    const way = ways.find((one) => formatNode(newest(one).twin) === name);
    // A mirror that was begun and not known yet may have written to its target (law 2).
    if (way !== undefined) return [makeAnew(done, way), step];
    return [{ ...step, options: { ...step.options, 'read-only': true } }];
  });
  const indexes = done
    .flatMap((step) => step.changes ?? [])
    .map((change) => (change.change === 'next-index' ? change.nextIndex : 0));
  return {
    disks,
    open,
    nextIndex: Math.max(1, ...indexes),
  };
}

/** What it has opened and not closed again, as it did to try it. */
function leftOpen(done: readonly Step[]): readonly StepOf<'open-node'>[] {
  const left = new Map<string, StepOf<'open-node'>>();
  for (const step of done) {
    if (step.kind === 'open-node') left.set(step.options['node-name'], step);
    if (step.kind === 'close-node') left.delete(step.options['node-name']);
  }
  return [...left.values()];
}

function mirrorOf(done: readonly Step[], way: MoveWay, sinceSeconds: number): MovedDisk['mirror'] {
  const { source, twin } = newest(way);
  const start = done.find(
    (step): step is StepOf<'start-mirror'> =>
      step.kind === 'start-mirror' && step.target === formatNode(twin),
  );
  const known = start?.changes?.find((change) => change.change === 'mirror');
  if (start === undefined || known === undefined) return null;
  const open = done.findLast(
    (step): step is StepOf<'open-node'> =>
      step.kind === 'open-node' && step.options['node-name'] === start.target,
  );
  const owed: OwedMirror = {
    record: known.mirror,
    source: source.source,
    image: { ...twin, index: null },
    below: known.disk.backing.map((image) => ({ ...image, index: null })),
    sinceSeconds,
    stamp: null,
  };
  const attach: Attach = {
    target: way.target,
    before: [makeAnew(done, way)],
    inQemu: [
      present(open, 'a mirror has its target open'),
      { ...start, reverts: [...(start.reverts ?? []), { change: 'owe', owed }] },
    ],
  };
  return { owed, attach };
}

function makeAnew(done: readonly Step[], way: MoveWay): Step {
  const path = pathOf(newest(way).twin);
  const made = done.find(
    (step): step is StepOf<'create-image'> => step.kind === 'create-image' && step.path === path,
  );
  const { sizeBytes, backing, clusterSizeBytes } = present(made, 'a move makes its targets');
  return { kind: 'recreate-image', path, sizeBytes, backing, clusterSizeBytes };
}

/** Law 13 for the images of a move that waits: who may not be opened, and which image is live instead. */
export function rolesOfMove({ plan }: OpenMove, sinceSeconds: number): readonly ImageRole[] {
  if (plan.full !== undefined) return rolesOfFull(plan, plan.full, sinceSeconds);
  const domain = { domain: plan.domain, domainName: plan.domainName, sinceSeconds };
  const { ways } = present(plan.move, 'a move that waits knows its ways');
  return ways.flatMap((way): readonly ImageRole[] => {
    const role = { ...domain, target: way.target, live: pathOf(newest(way).source) };
    const made = way.to.length - (way.shared ?? 0);
    const sealed = [
      ...way.epochs.slice(0, -1).map(({ source }) => source),
      ...way.from,
      ...way.to.slice(made),
    ];
    const unfinished = [...way.epochs.map(({ twin }) => twin), ...way.to.slice(0, made)];
    return [
      ...sealed.map((layer) => ({ ...role, path: pathOf(layer), role: 'sealed' as const })),
      ...unfinished.map((layer) => ({ ...role, path: pathOf(layer), role: 'unfinished' as const })),
    ];
  });
}
