// Epoch rotation: a move that stands for long gets a new layer on both sides, so that a death costs what was written
// since then, not since the move began (spec: qemu-block §3.3). The mirror ends exactly, the layers that it kept in step
// are sealed, and a new mirror starts over them, all in one pause. The rest of the move's plan is made anew with it.

import type { PathFacts } from '../block/facts.js';
import type { Layer } from '../block/layer.js';
import { formatNode } from '../block/layer.js';
import { blockdevOptions } from '../block/node.js';
import type { DiskMirror } from '../domain/disk.js';
import type { Change, DomainRecord, LiveRecord } from '../domain/record.js';
import { present } from '../std/assert.js';
import { StateError } from '../std/errors.js';
import { mirrorsOf } from './mirror-end.js';
import type { OpenMove } from './move-again.js';
import type { Epoch, MoveWay } from '../domain/undo-window.js';
import type { MoveData } from './move-tail.js';
import { commitIn, moveTail, newest, pathOf, sources, twinOptions, twins } from './move-tail.js';
import { copyJobId, filterNode } from './overlay.js';
import { isRefusal, needLive, refuse } from './refuse.js';
import type { Plan, Refusal, RotateDisk, SnapshotDisk, Step, StepOf } from './step.js';

export interface Rotate {
  readonly record: DomainRecord;
  readonly move: OpenMove;
  /** What was seen at the paths that it would make (`rotatedPaths`). */
  readonly files: ReadonlyMap<string, PathFacts>;
}

/** Where the next epoch of a disk goes: beside the last one, on both sides. */
export function rotatedPaths(way: MoveWay): readonly [string, string] {
  const { source, twin } = present(way.epochs[0], 'a move has an epoch');
  const number = way.epochs.length;
  return [`${pathOf(source)}.${number}`, `${pathOf(twin)}.${number}`];
}

/** One disk before and after. */
interface Turn {
  readonly before: MoveWay;
  readonly after: MoveWay;
  readonly epoch: Epoch;
}

export function planRotate(request: Rotate): Plan | Refusal {
  const live = needLive(request.record);
  if (isRefusal(live)) return live;
  const refusal = refusalOf(request);
  if (refusal !== null) return refuse(refusal);
  const { ways } = present(request.move.plan.move, 'checked');
  let { nextIndex } = live;
  const turns = ways.map((before): Turn => {
    const [source, twin] = rotatedPaths(before);
    const layer = (path: string): Layer => ({
      source: { type: 'file', path },
      format: 'qcow2',
      index: nextIndex++,
    });
    const epoch = { source: layer(source), twin: layer(twin) };
    return { before, epoch, after: { ...before, epochs: [...before.epochs, epoch] } };
  });
  return build(request, live, turns, nextIndex);
}

function refusalOf({ record, move, files }: Rotate): Error | null {
  const what = `rotate operation ${move.operation}`;
  const invalid = (text: string): Error => new StateError('OPERATION_INVALID', `${what}: ${text}`);
  if (move.plan.undo !== undefined)
    return invalid(
      'it keeps the way back of a move open, and that has one layer; only moves have epochs',
    );
  if (move.plan.move === undefined) return invalid('it is no move; only moves have epochs');
  for (const way of move.plan.move.ways) {
    const mirrored = mirrorsOf(record).find(({ disk }) => disk.target === way.target);
    if (mirrored?.mirror.ready !== 'yes')
      return invalid(`the mirror of ${way.target} is not READY; try again when it is`);
    const taken = rotatedPaths(way).find((path) => files.get(path)?.file != null);
    if (taken !== undefined) return invalid(`${taken} exists already; remove it`);
  }
  return null;
}

function build(request: Rotate, live: LiveRecord, turns: readonly Turn[], nextIndex: number): Plan {
  const made = turns.flatMap(imagesOf);
  const opened = turns.map(openSource);
  const tried = turns.flatMap((turn): readonly Step[] => {
    const options = twinOptions(turn.after, baseOf(turn.after));
    const alone = { ...options, backing: null };
    return [
      { kind: 'open-node', options: alone },
      { kind: 'close-node', options: alone },
    ];
  });
  const { uuid, name } = request.record;
  const before: readonly Step[] = [...made, ...tried, ...opened];
  return {
    operation: 'rotate',
    domain: uuid,
    domainName: name,
    steps: [
      ...before,
      {
        kind: 'rotate',
        disks: turns.map((turn) => rotateDisk(turn)),
        changes: [
          ...chainChanges(live, turns, nextIndex),
          ...turns.map(mirrorChange),
          replan(request, live, turns, nextIndex, [...made, ...opened]),
        ],
      },
      { kind: 'resume-guest', when: 'if-running' },
    ],
    commitAt: before.length + 1,
  };
}

const baseOf = (way: MoveWay): Layer => present(way.from[0], 'a chain is never empty');

function imagesOf({ before, epoch }: Turn): readonly StepOf<'create-image'>[] {
  const last = newest(before);
  const make = (image: Layer, below: Layer): StepOf<'create-image'> => ({
    kind: 'create-image',
    path: pathOf(image),
    sizeBytes: before.sizeBytes,
    // Each side's layer names what lies below it on that side: sealed, so true from the first byte.
    backing: { path: pathOf(below), format: below.format },
    clusterSizeBytes: before.clusterSizeBytes,
    existed: false,
  });
  return [make(epoch.source, last.source), make(epoch.twin, last.twin)];
}

const openSource = ({ before, epoch }: Turn): Step => ({
  kind: 'open-node',
  options: blockdevOptions(epoch.source, {
    driver: before.driver,
    readOnly: false,
    backing: null,
  }),
});

function snapshotDisk({ before, epoch }: Turn): SnapshotDisk {
  const below = newest(before).source;
  return {
    target: before.target,
    node: formatNode(below),
    overlay: formatNode(epoch.source),
    overlayPath: pathOf(epoch.source),
    base: { path: pathOf(below), format: below.format },
  };
}

const mirrorOf = ({ before, epoch: { source, twin } }: Turn): StepOf<'start-mirror'> => ({
  kind: 'start-mirror',
  jobId: copyJobId(before.target, twin),
  device: formatNode(source),
  target: formatNode(twin),
  filter: filterNode(twin),
  sync: 'top',
  copyMode: 'background',
});

function rotateDisk(turn: Turn): RotateDisk {
  const { before, after } = turn;
  const { source, twin } = newest(before);
  const image = {
    path: pathOf(twin),
    sizeBytes: before.sizeBytes,
    backing: { path: pathOf(baseOf(before)), format: baseOf(before).format },
    clusterSizeBytes: before.clusterSizeBytes,
  };
  const below = before.epochs.at(-2)?.twin;
  return {
    snapshot: snapshotDisk(turn),
    twin: twinOptions(after, baseOf(after)),
    mirror: mirrorOf(turn),
    sealed: {
      options: twinOptions(before, baseOf(before)),
      image:
        below === undefined
          ? image
          : { ...image, backing: { path: pathOf(below), format: below.format } },
      mirror: mirrorOf({ before, after: before, epoch: { source, twin } }),
    },
  };
}

function chainChanges(
  live: LiveRecord,
  turns: readonly Turn[],
  nextIndex: number,
): readonly Change[] {
  return [
    ...turns.map(({ before, epoch }): Change => ({
      change: 'chain',
      target: before.target,
      images: [epoch.source, ...sources(before)],
      was: newest(before).source.source,
    })),
    { change: 'next-index', nextIndex: Math.max(nextIndex, live.nextIndex) },
  ];
}

function mirrorChange({ before, epoch }: Turn): Change {
  const { jobId, filter } = mirrorOf({ before, after: before, epoch });
  const shown: DiskMirror = {
    job: 'copy',
    ready: 'no',
    image: epoch.twin,
    backing: [...twins(before), ...before.from],
    jobId,
  };
  const { target } = before;
  const owner = { made: 'ours', snapshot: null, move: true, problem: null } as const;
  const record = { target, jobId, filter, ...owner };
  return { change: 'mirror', mirror: record, disk: shown };
}

/** The move's plan with the epoch in it: what the rotation did stands there as done, so that the move's undo undoes it. */
function replan(
  { record, move }: Rotate,
  live: LiveRecord,
  turns: readonly Turn[],
  nextIndex: number,
  prepared: readonly Step[],
): Change {
  const { plan, operation } = move;
  const before = present(plan.move, 'checked');
  const data: MoveData = { ...before, ways: turns.map(({ after }) => after) };
  const tailLength = moveTail(record, before).length;
  const head = plan.steps.slice(0, plan.steps.length - tailLength);
  const rotated: readonly Step[] = [
    ...prepared,
    {
      kind: 'snapshot',
      disks: turns.map(snapshotDisk),
      changes: chainChanges(live, turns, nextIndex),
      reverts: turns.map(({ before, epoch }) => ({
        change: 'chain' as const,
        target: before.target,
        images: sources(before),
        was: epoch.source.source,
      })),
    },
    ...turns.flatMap((turn): readonly Step[] => [
      { kind: 'open-node', options: twinOptions(turn.after, baseOf(turn.after)) },
      {
        ...mirrorOf(turn),
        changes: [mirrorChange(turn)],
        reverts: [{ change: 'mirror-end', target: turn.before.target }],
      },
    ]),
  ];
  const tail = moveTail(record, data);
  const steps = [...head, ...rotated, ...tail];
  const commitAt = head.length + rotated.length + commitIn(tail);
  const next: Plan = { ...plan, steps, commitAt, move: data };
  return { change: 'replan', operation, from: head.length, done: rotated.length, plan: next };
}
