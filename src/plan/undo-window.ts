// The way back of a move (`--undo-window`). After its switch the small layers stay above the copies, and a mirror brings
// what the guest writes to them over to a new layer on the old side: a move back without a copy, since all below is equal.
// It ends in one of three ways: the disks switch back, its time is over, or its mirror is lost. Behind the last two the
// small layers are committed into the copies, and the chain is what a move without a window leaves.

import type { MoveForm } from '../domain/move-form.js';
import type { Layer } from '../block/layer.js';
import { formatNode, localPath, sameSource, showSource } from '../block/layer.js';
import type { BlockdevOptions } from '../block/node.js';
import { blockdevOptions, chainOptions } from '../block/node.js';
import { findDisk } from '../domain/definition.js';
import { imagesOf } from '../domain/disk.js';
import type { Change, DomainRecord, MirrorRecord } from '../domain/record.js';
import type { SourceFate } from '../domain/source-fate.js';
import type { Epoch, MoveWay, UndoWindow } from '../domain/undo-window.js';
import { present } from '../std/assert.js';
import { RequestError, StateError } from '../std/errors.js';
import type { OpenMove } from './move-again.js';
import { commitIn, mergeSteps, moveTail, newest, pathOf, twinOptions, twins } from './move-tail.js';
import { mirrorsOf } from './mirror-end.js';
import { copyJobId, filterNode } from './overlay.js';
import { refuse } from './refuse.js';
import type { Plan, Refusal, Step } from './step.js';

/** What a plan that is about a window knows of itself besides its steps. */
export interface UndoData {
  /** Number of the move. */
  readonly move: number;
  /** `back`: its disks switch back. `closing`: what was written since the switch is committed. */
  readonly going: 'open' | 'back' | 'closing';
  readonly untilMs: number;
}

/** Why a move cannot keep its way back open; null: it can. */
export function windowObstacle(
  { name, live, persistent }: Pick<DomainRecord, 'name' | 'live' | 'persistent'>,
  { keepSeconds }: SourceFate,
  { undoSeconds, ...form }: MoveForm & { readonly undoSeconds: number | null },
): StateError | RequestError | null {
  if (undoSeconds === null) return null;
  if (live === null)
    return new StateError(
      'OPERATION_INVALID',
      `move ${name}: the domain is shut off, so nothing is written that a way back would have to follow; move without --undo-window, and move it back the same way`,
    );
  if (persistent === null)
    return new StateError(
      'OPERATION_INVALID',
      `move ${name}: the domain is transient, and nobody would take its way back up after its QEMU; define it first, or move without --undo-window`,
    );
  const other = [
    ...(form.flatten ? ['--flatten'] : []),
    ...(form.format === null ? [] : ['--format']),
    ...(form.clusterSizeBytes === null ? [] : ['--cluster-size']),
    ...(form.shareBase ? ['--share-base'] : []),
  ];
  if (other.length > 0)
    return new RequestError(
      'INVALID_ARG',
      `move ${name}: --undo-window goes back to the same images, copied one by one, which ${other.join(' and ')} does not leave; move without one of them`,
    );
  if (keepSeconds === 0)
    return new RequestError(
      'INVALID_ARG',
      `move ${name}: --delete-source leaves nothing that --undo-window could go back to; say --keep-source TIME, which counts from the end of the window`,
    );
  return null;
}

export interface OpenWindow {
  readonly record: DomainRecord;
  readonly window: UndoWindow;
  /** Index that the next opened image gets; of a domain that is off, one above all that its other plans use. */
  readonly nextIndex: number;
}

/** Where the layer on the old side goes that takes what is written from the switch on. */
export const undoPath = ({ operation }: UndoWindow, way: MoveWay): string =>
  `${pathOf(present(way.from[0], 'a chain is never empty'))}.undo-${operation}`;

/** Keeps the way back open: the plan of a move back that waits, and drops its mirrors when its time is over. */
export function planWindow({ record, window, nextIndex: first }: OpenWindow): Plan | Refusal {
  let nextIndex = first;
  const isOff = record.live === null;
  const ways: MoveWay[] = [];
  for (const way of window.ways) {
    const known = layersNow(record, way);
    if (known instanceof StateError) return refuse(known);
    // Those of its last QEMU; the next one gets them from this plan.
    const now = isOff ? known.map((layer) => ({ ...layer, index: nextIndex++ })) : known;
    ways.push(reversed(window, way, now, () => nextIndex++));
  }
  const { operation: move, untilMs } = window;
  const begin: Step = {
    kind: 'record',
    changes: [{ change: 'next-index', nextIndex }],
    reverts: [{ change: 'close-window', operation: move, why: 'its mirror was given up' }],
  };
  const head: readonly Step[] = [begin, ...ways.flatMap(mirrorBack)];
  const tail = closingSteps(record, window, ways);
  return {
    operation: 'undo-window',
    domain: record.uuid,
    domainName: record.name,
    steps: [...head, ...tail],
    // From the end of the wait on there is no way back to the mirror, and it needs no QEMU.
    commitAt: head.length + 1,
    // A QEMU that dies takes the mirror along; the domain's next start makes it again, as that of any move.
    waitsFrom: 0,
    move: { ways, rotateBytes: null },
    undo: { move, going: 'open', untilMs },
  };
}

/** The layers that the disk has above the copies and below, as they are now; the indexes are those of a running QEMU. */
function layersNow(record: DomainRecord, way: MoveWay): readonly Layer[] | StateError {
  const definition = record.live?.definition ?? record.persistent;
  const disk = definition === null ? null : findDisk(definition, way.target);
  const recorded = record.chains.find(({ target }) => target === way.target)?.images ?? [];
  const images = record.live === null || disk === null ? recorded : imagesOf(disk);
  const wanted = [...twins(way), ...way.to];
  const isSame =
    images.length === wanted.length &&
    images.every((image, i) => sameSource(image.source, wanted[i]?.source ?? image.source));
  if (isSame) return images.map((image, i) => ({ ...image, index: image.index ?? i + 1 }));
  const show = (list: readonly { readonly source: Layer['source'] }[]): string =>
    list.map(({ source }) => showSource(source)).join(' ← ');
  return new StateError(
    'OPERATION_INVALID',
    `the chain of disk '${way.target}' is not what the move left: it was ${show(wanted)}, and is ${show(images)}`,
  );
}

/** From where the disk is now to where it was. What both sides have sealed stays sealed; only the newest layer is mirrored. */
function reversed(
  window: UndoWindow,
  way: MoveWay,
  now: readonly Layer[],
  index: () => number,
): MoveWay {
  const live = [...now.slice(0, way.epochs.length)].toReversed();
  const again = (layer: Layer): Layer => ({ ...layer, index: index() });
  const last = way.epochs.length - 1;
  const epochs = way.epochs.map(({ source }, i): Epoch => ({
    source: present(live[i], 'one layer an epoch'),
    twin:
      i < last
        ? again(source)
        : {
            source: { type: 'file', path: undoPath(window, way) },
            format: 'qcow2',
            index: index(),
          },
  }));
  return {
    ...way,
    from: now.slice(way.epochs.length),
    to: way.from.map(again),
    epochs,
  };
}

const baseOf = (way: MoveWay): Layer => present(way.from[0], 'a chain is never empty');

/** Everything of the old side that is open while the way back is: the frozen chain, base first, and the sealed layers above it. */
function openBack(way: MoveWay): readonly BlockdevOptions[] {
  const [, ...sealed] = twins(way);
  // Over the base that the guest has open, until the pivot swings the lowest of them (law 3).
  const layers = sealed.map((layer, i) =>
    blockdevOptions(layer, {
      driver: way.driver,
      readOnly: true,
      backing: formatNode(sealed[i + 1] ?? baseOf(way)),
    }),
  );
  return [...chainOptions(way.to, way.driver, true), ...layers.toReversed()];
}

function mirrorBack(way: MoveWay): readonly Step[] {
  const { source, twin } = newest(way);
  const below = twins(way)[1] ?? baseOf(way);
  const jobId = copyJobId(way.target, twin);
  const filter = filterNode(twin);
  const record: MirrorRecord = {
    ...{ target: way.target, jobId, filter },
    ...{ made: 'ours', snapshot: null, move: true, problem: null },
  };
  const backing = [...twins(way).slice(1), ...way.from];
  return [
    {
      kind: 'create-image',
      path: pathOf(twin),
      sizeBytes: way.sizeBytes,
      backing: { path: pathOf(below), format: below.format },
      clusterSizeBytes: way.clusterSizeBytes,
      existed: false,
    },
    ...openBack(way).map((options): Step => ({ kind: 'open-node', options })),
    { kind: 'open-node', options: twinOptions(way, baseOf(way)) },
    {
      kind: 'start-mirror',
      jobId,
      device: formatNode(source),
      target: formatNode(twin),
      filter,
      sync: 'top',
      copyMode: 'background',
      changes: [
        {
          change: 'mirror',
          mirror: record,
          disk: { job: 'copy', ready: 'no', image: twin, backing, jobId },
        },
      ],
      reverts: [{ change: 'mirror-end', target: way.target }],
    },
  ];
}

const jobIdOf = (way: MoveWay): string => copyJobId(way.target, newest(way).twin);

/** The wait, and the end of the mirrors behind it. What the window said of the record is committed by a plan of its own. */
function closingSteps(
  { uuid, name }: Pick<DomainRecord, 'uuid' | 'name'>,
  { operation: move, untilMs }: UndoWindow,
  ways: readonly MoveWay[],
): readonly Step[] {
  const ended = (way: MoveWay): readonly Change[] => [
    { change: 'mirror-end', target: way.target },
    // Law 13: until it is removed.
    {
      change: 'role',
      role: {
        path: pathOf(newest(way).twin),
        role: 'unfinished',
        domain: uuid,
        domainName: name,
        target: way.target,
        live: showSource(newest(way).source.source),
        sinceSeconds: 0,
      },
      since: 'commit',
    },
    {
      change: 'event',
      event: {
        type: 'block-job',
        path: localPath(newest(way).source.source),
        target: way.target,
        job: 'copy',
        status: 'canceled',
      },
    },
  ];
  return [
    {
      kind: 'wait-window',
      move,
      untilMs,
      jobIds: ways.map(jobIdOf),
      paths: ways.map((way) => pathOf(newest(way).twin)),
      changes: ways.flatMap(ended),
    },
    ...ways.map((way): Step => ({ kind: 'cancel-job', jobId: jobIdOf(way) })),
    ...ways.flatMap((way): readonly Step[] => [
      { kind: 'close-node', options: twinOptions(way, baseOf(way)) },
      ...openBack(way)
        .toReversed()
        .map((options): Step => ({ kind: 'close-node', options })),
    ]),
    ...ways.map((way): Step => {
      const path = pathOf(newest(way).twin);
      return { kind: 'remove-file', path, changes: [{ change: 'forget-role', path }] };
    }),
  ];
}

/** There is no way back any more: the small layers go down into the copies, in QEMU or, where none runs, without. */
export function planCloseWindow(record: DomainRecord, window: UndoWindow): Plan | Refusal {
  const ways: MoveWay[] = [];
  for (const way of window.ways) {
    const now = layersNow(record, way);
    if (now instanceof StateError) return refuse(now);
    const live = now.slice(0, way.epochs.length).toReversed();
    const epochs = way.epochs.map(({ source }, i): Epoch => ({
      source,
      twin: present(live[i], 'one layer an epoch'),
    }));
    ways.push({ ...way, to: now.slice(way.epochs.length), epochs });
  }
  const { operation: move, untilMs } = window;
  const details = JSON.stringify({ operation: move, reason: window.closing });
  const also: readonly Change[] = [
    { change: 'end-window', operation: move },
    { change: 'event', event: { type: 'monitor', event: 'UNDO_WINDOW_CLOSED', details } },
  ];
  return {
    operation: 'undo-window (close)',
    domain: record.uuid,
    domainName: record.name,
    steps: mergeSteps(record, ways, window.trim, also),
    commitAt: 0,
    undo: { move, going: 'closing', untilMs },
  };
}

export interface Undo {
  readonly record: DomainRecord;
  readonly window: UndoWindow;
  /** What keeps it open. */
  readonly open: OpenMove;
}

/**
 * The rest of the plan that keeps the way back open becomes another: the disks switch back. One record, which the plan
 * finds when it looks again (docs/decisions/0006).
 */
export function planUndo({ record, window, open }: Undo): Plan | Refusal {
  const refusal = refusalOf({ record, window, open });
  if (refusal !== null) return refuse(refusal);
  const { operation, plan } = open;
  const from = plan.steps.findIndex(({ kind }) => kind === 'wait-window');
  const change: Change = {
    change: 'replan',
    operation,
    from,
    done: 0,
    plan: undone(plan, record, window),
  };
  return {
    operation: 'undo (ask)',
    domain: record.uuid,
    domainName: record.name,
    steps: [{ kind: 'record', changes: [change] }],
    commitAt: 0,
  };
}

function refusalOf({ record, window, open }: Undo): StateError | null {
  const invalid = (text: string, next: readonly string[]): StateError =>
    new StateError('OPERATION_INVALID', `undo ${window.operation}: ${text}`, { next });
  if (record.live === null)
    return invalid(
      `domain '${record.name}' is shut off, and what its guest wrote last is on the new side only; start it, then the mirror is made again, and undo when it is READY`,
      [`ferry start ${record.name}`],
    );
  for (const { target } of window.ways) {
    const mirrored = mirrorsOf(record).find(({ disk }) => disk.target === target);
    if (mirrored?.mirror.ready === 'yes') continue;
    const owed = record.owed.find((one) => one.record.target === target);
    if (owed !== undefined)
      return invalid(
        `the mirror of ${target} on the old side is not there: it is taken up again once ${showSource(owed.image.source)} is back`,
        [`ferry ops show ${open.operation}`],
      );
    const why =
      mirrored?.record.problem == null
        ? 'it is being brought in step; try again when it is'
        : `it stands still (${mirrored.record.problem}): mend the old storage, it goes on by itself`;
    return invalid(`the mirror of ${target} on the old side is not READY: ${why}`, [
      `ferry ops show ${open.operation}`,
    ]);
  }
  return null;
}

/** The plan of a window, with the way back instead of its end. */
export function undone(
  plan: Plan,
  domain: Pick<DomainRecord, 'uuid' | 'name'>,
  window: UndoWindow,
): Plan {
  const at = plan.steps.findIndex(({ kind }) => kind === 'wait-window');
  const head = plan.steps.slice(0, at);
  const move = present(plan.move, 'it is a move back');
  const tail = moveTail(domain, move);
  const pivot = commitIn(tail) - 1;
  const details = JSON.stringify({ operation: window.operation });
  const known: readonly Change[] = [
    { change: 'end-window', operation: window.operation },
    { change: 'event', event: { type: 'monitor', event: 'MOVE_UNDONE', details } },
  ];
  const steps = tail.map((step, i) =>
    i === pivot ? { ...step, changes: [...(step.changes ?? []), ...known] } : step,
  );
  const undo = { ...present(plan.undo, 'it is of a window'), going: 'back' } as const;
  return {
    ...plan,
    operation: 'undo',
    steps: [...head, ...steps, ...window.ways.map(removeFormer)],
    commitAt: head.length + commitIn(tail),
    undo,
  };
}

/** The layer that the guest was on until the move switched: what it holds, and more, has come back by the mirror. */
function removeFormer(way: MoveWay): Step {
  const path = pathOf(newest(way).source);
  return { kind: 'remove-file', path, changes: [{ change: 'forget-role', path }] };
}
