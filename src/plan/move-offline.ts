// Plans `ferry move` of a domain that is shut off: its images are held against writers, copied as they are, and then the
// definition names the copies. No layer of it changes, so there is nothing to mirror, to switch or to merge.

import type { FileIdentity } from '../block/copy.js';
import type { Image } from '../block/layer.js';
import { localPath } from '../block/layer.js';
import { findDisk } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import type { Change, DomainRecord, ImageRole } from '../domain/record.js';
import { present } from '../std/assert.js';
import type { AtDestination, Move } from './move.js';
import {
  badDisk,
  checkDestinations,
  checkFolder,
  copySteps,
  diskObstacle,
  imageObstacle,
  inLanes,
  noDisk,
} from './move.js';
import { copiesOf, destinationsOf, formObstacle } from './move-places.js';
import { refuse } from './refuse.js';
import { staleRoles } from './roles.js';
import { checkSteps, heldShared, sharedOf } from './share-base.js';
import type { HeldImage, Plan, Refusal, Step } from './step.js';

/** What such a plan knows of itself besides its steps. */
export interface OfflineMove {
  readonly ways: readonly OfflineWay[];
}

/** One disk: its chain, active first, and where each of its images goes. Without indexes. */
export interface OfflineWay {
  readonly target: string;
  readonly from: readonly Image[];
  readonly to: readonly Image[];
  /** How many of `to`, from its base up, were there before and are not ours. Left out: none. */
  readonly shared?: number;
}

export interface MoveOffline extends AtDestination, Pick<Move, 'verify'> {
  /** By target, with their whole chains, as a start would open them. */
  readonly chains: ReadonlyMap<string, Disk>;
  /** Of every image of them, by path; what is not there is left out. */
  readonly identities: ReadonlyMap<string, FileIdentity>;
}

export function planMoveOffline(request: MoveOffline): Plan | Refusal {
  const { record } = request;
  const obstacle = formObstacle(request);
  if (obstacle !== null) return refuse(obstacle);
  const disks: Disk[] = [];
  for (const name of request.disks) {
    const named = record.persistent === null ? null : findDisk(record.persistent, name);
    const disk = request.chains.get(named?.target ?? '');
    if (disk === undefined) return refuse(noDisk(request, name));
    const refusal = checkDisk(request, disk, disks);
    if (refusal !== null) return refuse(refusal);
    disks.push(disk);
  }
  const refusal = checkFolder(request, disks);
  if (refusal !== null) return refuse(refusal);
  const ways = disks.map((disk) => wayOf(request, disk));
  const hold = [
    ...ways.flatMap(({ from }) => from).map((image) => heldOf(request, image)),
    ...ways.flatMap(({ from }) => heldShared(request, from)),
  ];
  const long = [
    ...ways.flatMap(({ from }) => checkSteps(request, from)),
    ...inLanes(
      request,
      ways.flatMap(({ from }) => copySteps(request, from)),
    ),
  ];
  const before: readonly Step[] = [
    { kind: 'hold-images', images: hold },
    ...long.map((step): Step => ({ ...step, hold })),
  ];
  return {
    operation: 'move',
    domain: record.uuid,
    domainName: record.name,
    steps: [
      ...before,
      {
        kind: 'arrive',
        images: hold,
        copies: ways.flatMap(({ to }) => to.map(pathOf)),
        changes: [
          ...ways.flatMap((way) => arrived(record, way)),
          // Stock clients read the definition anew.
          {
            change: 'event',
            event: {
              type: 'lifecycle',
              id: -1,
              change: { event: 'defined', detail: 'updated' },
            },
          },
        ],
      },
      { kind: 'let-go-images' },
    ],
    commitAt: before.length + 1,
    offline: { ways },
  };
}

const pathOf = ({ source }: Image): string => present(localPath(source), 'a move is of files');

/**
 * Unlike with a guest that runs, internal snapshots go along, for whole files are copied; and `cache='unsafe'` is no
 * matter, for what the last QEMU left in the page cache is made durable first.
 */
function checkDisk(request: MoveOffline, disk: Disk, before: readonly Disk[]): Error | null {
  const bad = badDisk(request, disk);
  const obstacle = diskObstacle(request, disk, before);
  if (obstacle !== null) return obstacle;
  const images = imagesOf(disk);
  const paths = destinationsOf(disk, request);
  if (paths === null || images.some(({ source }) => source.type !== 'file'))
    return bad(
      'an image of its chain is not a file, and of a domain that is shut off only files move; start it first',
    );
  for (const path of images.map(pathOf)) {
    const seen = request.files.get(path);
    const unfit = imageObstacle(path, request.identities.has(path) ? seen : undefined);
    if (unfit !== null) return bad(unfit);
  }
  return checkDestinations(request, disk, paths, before);
}

function wayOf(request: MoveOffline, disk: Disk): OfflineWay {
  const from = imagesOf(disk).map((image): Image => ({ ...image, index: null }));
  const shared = sharedOf(request, from);
  return {
    target: disk.target,
    from,
    to: copiesOf(from, request).map(({ path, format }): Image => ({
      source: { type: 'file', path },
      format,
      index: null,
    })),
    ...(shared === 0 ? {} : { shared }),
  };
}

function heldOf({ identities }: MoveOffline, image: Image): HeldImage {
  const path = pathOf(image);
  return { path, file: present(identities.get(path), 'checked before') };
}

/** From now on the definition names the copies, and what stays behind is a point in time. */
function arrived(record: DomainRecord, { target, from, to }: OfflineWay): readonly Change[] {
  const moved = to.map((image, i) => ({
    path: pathOf(present(from[i], 'a copy is of an image')),
    image,
  }));
  const was = present(from[0], 'a chain is never empty').source;
  return [
    { change: 'chain', target, images: to, was },
    ...staleRoles(record, target, from, to),
    { change: 'moved-images', target, moved },
  ];
}

/** Law 13 while it goes on: half a copy is nobody's image. */
export const rolesOfOffline = (
  { domain, domainName, offline }: Plan,
  sinceSeconds: number,
): readonly ImageRole[] =>
  (offline?.ways ?? []).flatMap(({ target, from, to, shared = 0 }) =>
    to.slice(0, to.length - shared).map((image) => ({
      path: pathOf(image),
      role: 'unfinished' as const,
      domain,
      domainName,
      target,
      live: pathOf(present(from[0], 'a chain is never empty')),
      sinceSeconds,
    })),
  );
