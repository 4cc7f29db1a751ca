// Mirrors that ended with their QEMU and moves that wait for the next one: what is looked at before they are taken up
// again, at a start or, when the destination was not there, once it is back.

import { posix } from 'node:path';
import { nothingThere } from '../block/facts.js';
import type { Image, Layer } from '../block/layer.js';
import { localPath, sameSource, showSource } from '../block/layer.js';
import type { Definition } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import type { Change, DomainRecord, ImageRole, OwedMirror } from '../domain/record.js';
import type { OperationRecord } from '../journal/journal.js';
import type { Attach, OwedFacts } from '../plan/attach.js';
import { attachOwed, obstacleOf, planAttach, refuseOwed } from '../plan/attach.js';
import type { MoveAgain, OpenMove } from '../plan/move-again.js';
import { isOpenMove, moveAgain, rolesOfMove } from '../plan/move-again.js';
import { refuse } from '../plan/refuse.js';
import { liveOf } from '../plan/ways.js';
import type { Step } from '../plan/step.js';
import { StateError, messageOf } from '../std/errors.js';
import { factsOf } from './chains.js';
import type { Host } from './host.js';
import { fullObstacle } from './move-full.js';
import { isOpenOffline, rolesOfOfflineMoves } from './offline.js';

/** Whether a start takes mirrors up: it must, it leaves them for later, or it does where that can be. */
export type MirrorsAtStart = 'now' | 'later' | 'if-possible';

const openMoveOf = ({ id, plan, steps }: OperationRecord): OpenMove => ({
  operation: id,
  plan,
  done: new Set(steps.flatMap(({ mark }, i) => (mark === 'done' ? [i] : []))),
});

/** Moves that have their snapshot and have not switched, of all domains. */
export async function openMoves(host: Host): Promise<readonly OpenMove[]> {
  const open = await host.known.journal.openOperations();
  return open
    .filter((operation) => operation.direction === 'forward')
    .map(openMoveOf)
    .filter(isOpenMove);
}

/** A rotation that came to no end stands in its move's way: nobody knows yet which layers there are. Null: there is none. */
export function rotationOf(open: readonly OperationRecord[], uuid: string): string | null {
  const found = open.find(({ kind, domain }) => kind === 'rotate' && domain === uuid);
  return found === undefined
    ? null
    : `operation ${found.id} (rotate) has to come to its end first; 'ferry ops show ${found.id}' says what it waits for`;
}

/** Law 13 for the images of moves whose domain does not run. */
export async function rolesOfMoves(host: Host): Promise<readonly ImageRole[]> {
  const open = (await openMoves(host)).flatMap((move) => rolesOfMove(move, host.nowSeconds));
  return [...open, ...(await rolesOfOfflineMoves(host))];
}

/** What has to be taken up when a domain starts. */
export interface TakenUp {
  readonly disks: readonly Disk[];
  readonly nextIndex: number;
  readonly attach: readonly Attach[];
  readonly open: readonly Step[];
  /** What is told of mirrors that are put off. */
  readonly told: readonly Change[];
}

/**
 * Gives the images of `definition` their indexes and finds what is taken up with it.
 *
 * @throws {StateError} 55 with the ways out, when a mirror cannot be taken up and `mirrors` is `now`.
 */
export async function takeUp(
  host: Host,
  record: DomainRecord | null,
  definition: Definition,
  mirrors: MirrorsAtStart,
): Promise<TakenUp> {
  const moves = (await openMoves(host))
    .filter(({ plan }) => plan.domain === definition.uuid)
    .map((move) => ({ move, again: moveAgain(move, host.nowSeconds) }));
  for (const { move, again } of moves) checkNamed(definition, move, again);
  await checkForeign(host, definition);
  const { disks, nextIndex } = withIndexes(
    definition.disks,
    moves.map(({ again }) => again),
  );
  if (mirrors === 'later') return { disks, nextIndex, attach: [], open: [], told: [] };
  const pending = { uuid: definition.uuid, name: definition.name, disks, nextIndex };
  const found = await attaches(host, record?.owed ?? [], pending, moves.map(numbered));
  if (found.obstacle === null) return { disks, ...found, told: [] };
  if (mirrors === 'now') throw found.obstacle.refusal;
  return { disks, nextIndex, attach: [], open: [], told: [putOff(found.obstacle)] };
}

/** The images of a move that waits are the domain's images: another one under its name is not what its guest wrote. */
function checkNamed(definition: Definition, { operation }: OpenMove, { disks }: MoveAgain): void {
  for (const moved of disks) {
    const disk = definition.disks.find(({ target }) => target === moved.target);
    const images = disk === undefined ? [] : imagesOf(disk);
    const same =
      images.length === moved.images.length &&
      images.every((image, i) => sameSource(image.source, moved.images[i]?.source ?? image.source));
    if (same) continue;
    const show = (list: readonly Image[]): string =>
      list.length === 0 ? 'nothing' : list.map(({ source }) => showSource(source)).join(' ← ');
    throw new StateError(
      'OPERATION_INVALID',
      `start ${definition.name}: disk '${moved.target}' is being moved (operation ${operation}) and its live chain is ${show(moved.images)}, ` +
        `but ${show(images)} is named; name that image, or end the move with 'ferry ops cancel ${operation}'`,
      { sourceIntact: true, next: [`ferry ops show ${operation}`] },
    );
  }
}

/** The live image of a move that waits belongs to the domain that is moved. */
async function checkForeign(host: Host, definition: Definition): Promise<void> {
  for (const { plan, operation } of await openMoves(host)) {
    if (plan.domain === definition.uuid) continue;
    const live = new Set(liveOf(plan).map(({ source }) => showSource(source)));
    const taken = definition.disks.find(
      ({ source, readonly }) => source !== null && !readonly && live.has(showSource(source)),
    );
    if (taken?.source == null) continue;
    throw new StateError(
      'OPERATION_INVALID',
      `start ${definition.name}: image ${showSource(taken.source)} of disk '${taken.target}' is live for domain '${plan.domainName}', which is being moved (operation ${operation}); ` +
        `give that domain's uuid ${plan.domain}, or end the move with 'ferry ops cancel ${operation}'`,
      { sourceIntact: true, next: [`ferry ops show ${operation}`] },
    );
  }
}

/** `index` of every image, counting up over the disks in their order; never given twice in one life (virDomain's nodenameindex). */
function withIndexes(
  disks: readonly Disk[],
  moves: readonly MoveAgain[],
): { readonly disks: readonly Disk[]; readonly nextIndex: number } {
  let nextIndex = Math.max(1, ...moves.map((move) => move.nextIndex));
  const moved = new Map(moves.flatMap((move) => move.disks).map((one) => [one.target, one.images]));
  const indexed = disks.map((disk): Disk => {
    const fixed = moved.get(disk.target);
    const layers: readonly Layer[] = imagesOf(disk).map((image, i) => ({
      ...image,
      index: fixed?.[i]?.index ?? nextIndex++,
    }));
    const top = layers[0];
    return top === undefined ? disk : { ...disk, index: top.index, backing: layers.slice(1) };
  });
  return { disks: indexed, nextIndex };
}

interface Obstacle {
  readonly owed: OwedMirror;
  readonly text: string;
  readonly refusal: StateError;
}

interface Pending {
  readonly uuid: string;
  readonly name: string;
  /** With their indexes. */
  readonly disks: readonly Disk[];
  readonly nextIndex: number;
}

interface Found {
  readonly attach: readonly Attach[];
  readonly open: readonly Step[];
  readonly nextIndex: number;
  readonly obstacle: Obstacle | null;
}

interface Numbered {
  readonly operation: number;
  readonly again: MoveAgain;
}

const numbered = ({
  move,
  again,
}: {
  readonly move: OpenMove;
  readonly again: MoveAgain;
}): Numbered => ({ operation: move.operation, again });

async function attaches(
  host: Host,
  owed: readonly OwedMirror[],
  pending: Pending,
  moves: readonly Numbered[],
): Promise<Found> {
  const moved = moves.flatMap(({ again }) => again.disks.flatMap(({ mirror }) => mirror ?? []));
  const own = owed.filter(({ record }) => !record.move);
  const attach: Attach[] = moved.map((mirror) => mirror.attach);
  let { nextIndex } = pending;
  for (const one of [...moved.map((mirror) => mirror.owed), ...own]) {
    const disk = pending.disks.find(({ target }) => target === one.record.target) ?? null;
    const full = moved.find(({ owed: its }) => its === one)?.full;
    const facts = full === undefined ? await lookAt(host, one, disk) : null;
    const text =
      full !== undefined
        ? await fullObstacle(host, full.to, full.sizeBytes)
        : typeof facts === 'string' || facts === null
          ? facts
          : obstacleOf(one, disk, facts);
    if (text !== null) {
      const { target } = one.record;
      const owner = moves.find(({ again }) =>
        again.disks.some((moving) => moving.target === target),
      );
      const move = one.record.move ? (owner?.operation ?? null) : null;
      const obstacle = { owed: one, text, refusal: refuseOwed(pending, one, text, move) };
      return { attach: [], open: [], nextIndex: pending.nextIndex, obstacle };
    }
    if (one.record.move || disk === null || facts === null || typeof facts === 'string') continue;
    const made = attachOwed({ domain: pending, owed: one, disk, nextIndex, facts });
    attach.push(made.attach);
    nextIndex = made.nextIndex;
  }
  return { attach, open: moves.flatMap(({ again }) => again.open), nextIndex, obstacle: null };
}

/** A text instead of facts: why they cannot be had. */
async function lookAt(
  host: Host,
  owed: OwedMirror,
  disk: Disk | null,
): Promise<OwedFacts | string> {
  const { images } = host.context;
  const path = localPath(owed.image.source);
  if (path === null) return `${showSource(owed.image.source)} is on the network`;
  try {
    const [image, source] = await Promise.all([
      factsOf(images, owed.image, owed.record.made === 'ours' ? 'header' : 'chain'),
      disk?.source == null
        ? nothingThere
        : factsOf(images, { source: disk.source, format: disk.format, index: null }, 'header'),
    ]);
    const isFile = image.file?.kind === 'file';
    return {
      image,
      source,
      freeBytes: isFile ? await images.freeBytes(posix.dirname(path)) : null,
    };
  } catch (error) {
    return messageOf(error);
  }
}

function putOff({ owed, text }: Obstacle): Change {
  const details = JSON.stringify({
    disk: owed.record.target,
    source: showSource(owed.source),
    mirror: showSource(owed.image.source),
    live: showSource(owed.source),
    reason: text,
  });
  return { change: 'event', event: { type: 'monitor', event: 'MIRROR_OWED', details } };
}

/**
 * Takes up what is owed to a domain that runs, if its destination is back. Resolves to whether there is nothing left to
 * take up; what stands in the way is no error here, it is tried again.
 */
export async function takeUpLater(host: Host, uuid: string): Promise<boolean> {
  const record = host.known.find(uuid);
  if (record?.live == null || record.owed.length === 0) return true;
  const nothing = new StateError('OPERATION_INVALID', 'nothing to take up');
  try {
    await host.operate(uuid, async (known) => {
      if (known?.live == null || known.owed.length === 0) return refuse(nothing);
      const moves = (await openMoves(host))
        .filter(({ plan }) => plan.domain === uuid)
        .map((move) => ({ operation: move.operation, again: moveAgain(move, host.nowSeconds) }));
      const { name, live } = known;
      const { nextIndex, definition } = live;
      const pending = { uuid, name, disks: definition.disks, nextIndex };
      const found = await attaches(host, known.owed, pending, moves);
      if (found.obstacle !== null) return refuse(found.obstacle.refusal);
      return planAttach(known, found);
    });
  } catch (error) {
    if (error === nothing) return true;
    host.log.debug({ domain: uuid, error: messageOf(error) }, 'mirror not taken up yet');
    return false;
  }
  await resumeMoves(host, uuid);
  return true;
}

/** Moves of a domain that waited for its QEMU go on. Resolves when they were begun, not when they ended. */
export async function resumeMoves(host: Host, uuid: string): Promise<void> {
  const open = await host.known.journal.openOperations();
  for (const operation of open) {
    if (operation.domain !== uuid || host.running.has(operation.id)) continue;
    if (operation.attention !== null || !isOpenMove(openMoveOf(operation))) continue;
    host.resumeOperation(operation).catch((error: unknown) => {
      host.log.warn(
        { operation: operation.id, error: messageOf(error) },
        'move ended with an error',
      );
    });
  }
}

/** An operation that waits for its domain's next start is undone without it. Resolves when it is; never rejects. */
export async function takeBack(host: Host, record: OperationRecord): Promise<void> {
  const abort = new AbortController();
  abort.abort();
  // That it ends rolled back is what was asked for.
  await host.resumeOperation(record, { abort }).catch((error: unknown) => {
    host.log.info({ operation: record.id, error: messageOf(error) }, 'operation taken back');
  });
}

/** Undoes every move of a domain that does not run, begun with a guest or without. */
export async function takeMovesBack(host: Host, uuid: string): Promise<void> {
  for (const operation of await host.known.journal.openOperations()) {
    const isMove = isOpenMove(openMoveOf(operation)) || isOpenOffline(operation);
    if (operation.domain !== uuid || !isMove) continue;
    const running = host.running.get(operation.id);
    running?.abort.abort();
    if (running === undefined) await takeBack(host, operation);
    else await running.settled;
  }
}
