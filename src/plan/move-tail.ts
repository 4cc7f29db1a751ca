// The second half of a move, from READY on: all disks switched, the source closed, the small layers committed into the
// copied top layer. Made from data that the plan keeps, because epoch rotation puts layers on while the base is copied.

import type { Layer } from '../block/layer.js';
import { formatNode, localPath } from '../block/layer.js';
import type { BlockdevOptions } from '../block/node.js';
import { blockdevOptions, chainOptions, reopenOptions } from '../block/node.js';
import type { Change } from '../domain/record.js';
import type { Epoch, MoveWay } from '../domain/undo-window.js';
import { assert, present } from '../std/assert.js';
import { commitJobId, copyJobId, filterNode } from './overlay.js';
import type { PivotWhen } from '../domain/pivot-when.js';
import { pivotAtOnce } from './pivot-when.js';
import { staleRoles } from './roles.js';
import type { OfflineCommit, PivotDisk, Step } from './step.js';

/** What a move's plan knows of itself besides its steps. */
export interface MoveData {
  readonly ways: readonly MoveWay[];
  /** The live layer gets an epoch on top of it once it takes more; null: never. */
  readonly rotateBytes: bigint | null;
  /** Left out: as soon as it is in step. */
  readonly pivot?: PivotWhen;
  /** The guest's file systems are frozen around the pivot. */
  readonly quiesce?: boolean;
  /** The guest discards at the end what its file systems do not use. */
  readonly trim?: boolean;
  /** It ends with the switch, and its way back is kept open for so long. */
  readonly undoSeconds?: number;
}

interface Named {
  readonly uuid: string;
  readonly name: string;
}

export const newest = ({ epochs }: MoveWay): Epoch =>
  present(epochs.at(-1), 'a move has an epoch from its beginning');
const oldest = ({ epochs }: MoveWay): Epoch =>
  present(epochs[0], 'a move has an epoch from its beginning');
/** Made by the move, so that what the guest wrote meanwhile may be committed into it. */
function topCopy({ to, shared = 0 }: MoveWay): Layer {
  assert(shared < to.length, 'the top image is never one that was there before');
  return present(to[0], 'a chain is never empty');
}
export const pathOf = (layer: Layer): string =>
  present(localPath(layer.source), 'a move is of files');

/** The chain that the guest is on, active first, until the disks switch. */
export const sources = (way: MoveWay): readonly Layer[] => [
  ...way.epochs.map(({ source }) => source).toReversed(),
  ...way.from,
];
/** What its mirrors made at the destination, newest first; over the copies once they are whole. */
export const twins = ({ epochs }: MoveWay): readonly Layer[] =>
  epochs.map(({ twin }) => twin).toReversed();

const jobOf = (way: MoveWay): string => copyJobId(way.target, newest(way).twin);
const commitJobOf = (way: MoveWay): string => commitJobId(way.target, newest(way).twin);

/** How many steps stand before the end of the commit step, the first pivot. */
export const commitIn = (tail: readonly Step[]): number =>
  1 + tail.findIndex(({ kind }) => kind === 'pivot');

export function moveTail(domain: Named, data: Omit<MoveData, 'rotateBytes'>): readonly Step[] {
  const { ways, pivot: when = pivotAtOnce, quiesce = false, trim = false, undoSeconds } = data;
  const jobIds = ways.map(jobOf);
  const held: readonly Step[] = when.how === 'auto' ? [] : [{ kind: 'wait-pivot', when, jobIds }];
  const window = undoSeconds === undefined ? null : { seconds: undoSeconds, ways, trim };
  return [
    { kind: 'wait-ready', job: 'copy', jobIds },
    ...held,
    {
      kind: 'pivot',
      disks: ways.map(toDestination),
      ...(quiesce ? { quiesce } : {}),
      ...(window === null ? {} : { window }),
      changes: ways.flatMap((way) => arrived(domain, way)),
    },
    { kind: 'resume-guest', when: 'if-running' },
    ...(quiesce ? [{ kind: 'thaw-guest' } as const] : []),
    { kind: 'dismiss-jobs', jobIds },
    ...ways.flatMap(closeSource),
    // The layers stay above the copies as long as somebody may want to go back.
    ...(window === null ? mergeSteps(domain, ways, trim) : []),
  ];
}

/** The small layers go down into the copied top layer: chains and file names are what they were. `also` becomes known with it. */
export function mergeSteps(
  domain: Named,
  ways: readonly MoveWay[],
  trim: boolean,
  also: readonly Change[] = [],
): readonly Step[] {
  const jobIds = ways.map(commitJobOf);
  return [
    ...ways.map(startCommit),
    { kind: 'wait-ready', job: 'commit', jobIds },
    {
      kind: 'pivot',
      disks: ways.map(intoCopy),
      changes: [...ways.flatMap((way) => settled(domain, way)), ...also],
    },
    { kind: 'resume-guest', when: 'if-running' },
    { kind: 'dismiss-jobs', jobIds },
    ...ways.flatMap(removeTwins),
    ...(trim ? [{ kind: 'trim-guest' } as const] : []),
  ];
}

function toDestination(way: MoveWay): PivotDisk {
  const { source, twin } = newest(way);
  // The layer at the bottom of the twins stands on the source's base until all of the base is at the destination.
  const bottom = oldest(way).twin;
  const swingTo = (base: Layer) =>
    reopenOptions(bottom, {
      driver: way.driver,
      readOnly: way.epochs.length > 1,
      backing: formatNode(base),
    });
  return {
    target: way.target,
    jobId: jobOf(way),
    job: 'copy',
    from: formatNode(source),
    to: formatNode(twin),
    path: localPath(twin.source),
    swing: swingTo(topCopy(way)),
    swingBack: swingTo(present(way.from[0], 'a chain is never empty')),
    header: { node: formatNode(bottom), names: pathOf(topCopy(way)) },
    offline: null,
  };
}

/** From now on the destination is live, and what stays behind is a point in time. */
function arrived(domain: Named, way: MoveWay): readonly Change[] {
  const { source, twin } = newest(way);
  const after = [...twins(way), ...way.to];
  // Of a chain that became one image only the top one is there; no snapshot names the others.
  const moved = way.to.map((layer, i) => ({
    path: pathOf(present(way.from[i], 'a copy is of an image')),
    image: { ...layer, index: null },
  }));
  return [
    { change: 'chain', target: way.target, images: after, was: source.source },
    { change: 'mirror-end', target: way.target },
    ...staleRoles(domain, way.target, sources(way), after),
    // The move's own layers are no snapshot objects.
    { change: 'moved-images', target: way.target, moved },
    {
      change: 'event',
      event: {
        type: 'block-job',
        path: localPath(twin.source),
        target: way.target,
        job: 'copy',
        status: 'completed',
      },
    },
  ];
}

function closeSource(way: MoveWay): readonly Step[] {
  return chainOptions(sources(way), way.driver, false)
    .toReversed()
    .map((options) => ({ kind: 'close-node', options }));
}

const offline = (way: MoveWay): OfflineCommit => ({
  overlayPaths: way.epochs.map(({ twin }) => pathOf(twin)),
  base: { path: pathOf(topCopy(way)), format: topCopy(way).format },
});

function startCommit(way: MoveWay): Step {
  const { twin } = newest(way);
  return {
    kind: 'start-commit',
    jobId: commitJobOf(way),
    device: formatNode(twin),
    base: formatNode(topCopy(way)),
    filter: `${filterNode(twin)}-c`,
    offline: offline(way),
  };
}

function intoCopy(way: MoveWay): PivotDisk {
  return {
    target: way.target,
    jobId: commitJobOf(way),
    job: 'commit',
    from: formatNode(newest(way).twin),
    to: formatNode(topCopy(way)),
    path: localPath(topCopy(way).source),
    swing: null,
    swingBack: null,
    header: null,
    offline: offline(way),
  };
}

function settled(domain: Named, way: MoveWay): readonly Change[] {
  return [
    { change: 'chain', target: way.target, images: way.to, was: newest(way).twin.source },
    // The images of the source are stale since the first pivot; only the name of the live one is new.
    ...staleRoles(domain, way.target, sources(way), way.to).map((change) =>
      change.change === 'role' ? { ...change, since: 'kept' as const } : change,
    ),
  ];
}

/** What opens the twin of the last epoch, over the one before it or over `base`. */
export function twinOptions(way: MoveWay, base: Layer): BlockdevOptions {
  const [top, next] = twins(way);
  return blockdevOptions(present(top, 'a move has an epoch'), {
    driver: way.driver,
    readOnly: false,
    backing: formatNode(next ?? base),
  });
}

function removeTwins(way: MoveWay): readonly Step[] {
  const close = chainOptions([...twins(way), topCopy(way)], way.driver, false)
    .slice(1)
    .toReversed();
  return [
    ...close.map((options): Step => ({ kind: 'close-node', options })),
    ...twins(way).map((layer): Step => ({ kind: 'remove-file', path: pathOf(layer) })),
  ];
}
