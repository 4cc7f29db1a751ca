// What a move finds at its destination before it is planned: the folder, its room, and what is at each path that it would
// make there or take over.

import { posix } from 'node:path';

import type { FileIdentity } from '../block/copy.js';
import type { PathFacts } from '../block/facts.js';
import type { Format, Image } from '../block/layer.js';
import { localPath } from '../block/layer.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import type { Move } from '../plan/move.js';
import type { Place, Placing } from '../plan/move-places.js';
import { clusterOf, conversionOf, copiesOf, destinationsOf, placeOf } from '../plan/move-places.js';
import type { StepOf } from '../plan/step.js';
import { StateError } from '../std/errors.js';
import type { MoveRequest } from './ferry-host.js';
import type { Host } from './host.js';
import { look } from './look.js';
import { checkReach } from './qemu-reach.js';

export type Destination = Pick<
  Move,
  | 'to'
  | 'name'
  | 'form'
  | 'stamp'
  | 'folder'
  | 'freeBytes'
  | 'spokenForBytes'
  | 'files'
  | 'there'
  | 'measured'
>;

/** `seen`: the images of `disks`, by path; they are in `files` too. */
export async function lookAtDestination(
  host: Host,
  request: MoveRequest,
  disks: readonly Disk[],
  seen: ReadonlyMap<string, PathFacts>,
): Promise<Destination> {
  const { images } = host.context;
  const placing = await placingOf(host, request, disks);
  const { to, form } = placing;
  for (const path of [to, ...(form.overlayDir === null ? [] : [form.overlayDir])])
    if (path.startsWith('/')) await checkReach(host, `move to ${path}`, path);
  const folder = to.startsWith('/') ? await images.stat(to) : null;
  const nothing = { there: new Map(), measured: new Map(), freeBytes: 0n, spokenForBytes: 0n };
  // Without the folder nothing is there; the planner says what is wrong with it.
  if (folder?.kind !== 'folder') return { ...placing, ...nothing, folder, files: seen };
  const made = disks.flatMap((disk) => pathsOf(disk, placing));
  return {
    ...placing,
    folder,
    freeBytes: await images.freeBytes(to),
    spokenForBytes: await spokenFor(host, folder.device),
    files: new Map([...(await look(host, made, 'header')), ...seen]),
    there: await thereOf(host, placing, disks),
    measured: await measuredOf(host, placing, disks, seen),
  };
}

/** The same for images that are made there other than by copies of files. */
export async function lookAtPlace(
  host: Host,
  request: MoveRequest,
  disks: readonly Disk[],
  madeAt: (place: Place) => readonly string[],
): Promise<Place & Pick<Move, 'folder' | 'freeBytes' | 'spokenForBytes' | 'files'>> {
  const { images } = host.context;
  const { to, name } = await placingOf(host, request, disks);
  const folder = to.startsWith('/') ? await images.stat(to) : null;
  if (folder?.kind !== 'folder')
    return { to, name, folder, freeBytes: 0n, spokenForBytes: 0n, files: new Map() };
  await checkReach(host, `move to ${to}`, to);
  return {
    to,
    name,
    folder,
    freeBytes: await images.freeBytes(to),
    spokenForBytes: await spokenFor(host, folder.device),
    files: await look(
      host,
      madeAt({ to, name }).map((path) => imageAt(path)),
      'header',
    ),
  };
}

async function placingOf(
  host: Host,
  request: MoveRequest,
  disks: readonly Disk[],
): Promise<Placing> {
  const { overlayDir, shareBase, flatten, format, clusterSizeBytes } = request;
  const asked = posix.normalize(request.to).replace(/(.)\/$/, '$1');
  const seen = asked.startsWith('/') ? await host.context.images.stat(asked) : null;
  const tops = disks.flatMap(({ source }) => (source === null ? [] : (localPath(source) ?? [])));
  return {
    ...placeOf(request.to, seen, tops),
    stamp: String(host.nowSeconds),
    form: {
      overlayDir: overlayDir === null ? null : posix.normalize(overlayDir),
      shareBase,
      flatten,
      format,
      clusterSizeBytes,
    },
  };
}

/** What would be made, under each name that it has meanwhile. */
function pathsOf(disk: Disk, placing: Placing): readonly Image[] {
  const paths = destinationsOf(disk, placing);
  if (paths === null) return [];
  return [
    ...copiesOf(imagesOf(disk), placing).flatMap(({ path, format }) => [
      imageAt(path, format),
      imageAt(`${path}.part`),
    ]),
    ...paths.overlays.map((path) => imageAt(path)),
  ];
}

async function thereOf(
  host: Host,
  placing: Placing,
  disks: readonly Disk[],
): Promise<ReadonlyMap<string, FileIdentity>> {
  const found = new Map<string, FileIdentity>();
  if (!placing.form.shareBase) return found;
  for (const disk of disks)
    for (const path of destinationsOf(disk, placing)?.copies.slice(1) ?? []) {
      const file = await host.context.images.identity(path);
      if (file === null) continue;
      checkNotLive(host, path);
      found.set(path, file);
    }
  return found;
}

/** A base is read and never written; whoever is on it would write to it, now or when he is started. */
function checkNotLive({ known }: Host, path: string): void {
  for (const { name, persistent, live } of known.all())
    for (const { target, source, readonly } of [
      ...(persistent?.disks ?? []),
      ...(live?.definition.disks ?? []),
    ])
      if (source !== null && localPath(source) === path && !readonly)
        throw new StateError(
          'OPERATION_INVALID',
          `share ${path}: it is the live image of disk '${target}' of domain '${name}', which writes to it; choose another folder, or copy without --share-base`,
          { next: [`ferry chain ${name}`] },
        );
}

async function measuredOf(
  host: Host,
  placing: Placing,
  disks: readonly Disk[],
  seen: ReadonlyMap<string, PathFacts>,
): Promise<ReadonlyMap<string, bigint>> {
  const { images } = host.context;
  const found = new Map<string, bigint>();
  const takes = (path: string): bigint => seen.get(path)?.info?.actualSizeBytes ?? 0n;
  for (const disk of disks) {
    const cluster = clusterOf(seen, imagesOf(disk));
    const conversion = conversionOf(imagesOf(disk), placing, cluster);
    if (conversion === null) continue;
    const { chain, below, clusterSizeBytes } = conversion;
    // Of a guest that writes just now its image may not be readable at this moment.
    const whole = await images.measure(conversion).catch(() => null);
    const read = below.length === 0 ? chain : chain.slice(0, 1);
    const taken = read.reduce((sum, { path }) => sum + takes(path), 0n);
    // A write of one small cluster may take a whole large one.
    const growth = BigInt(Math.ceil(Math.max(1, (clusterSizeBytes ?? 0) / (cluster ?? 1 << 16))));
    const atMost = below.length === 0 ? (whole ?? taken) : taken * growth;
    found.set(disk.target, whole !== null && whole < atMost ? whole : atMost);
  }
  return found;
}

/** What moves that are under way have still to write to the file system `device`. */
async function spokenFor(host: Host, device: bigint): Promise<bigint> {
  const { images } = host.context;
  let bytes = 0n;
  for (const { plan, steps, direction } of await host.known.journal.openOperations())
    for (const [i, step] of plan.steps.entries()) {
      const isAhead = direction === 'forward' && steps[i]?.mark !== 'done';
      if (step.kind !== 'copy-image' || !isAhead) continue;
      const folder = await images.stat(posix.dirname(step.to)).catch(() => null);
      if (folder?.device !== device) continue;
      const whole = await readBytesOf(host, step);
      const part = await images.info(`${step.to}.part`, 'raw').catch(() => null);
      const left = whole - (part?.actualSizeBytes ?? 0n);
      if (left > 0n) bytes += left;
    }
  return bytes;
}

/** What the images that a copy reads take on their storage. */
export async function readBytesOf(host: Host, step: StepOf<'copy-image'>): Promise<bigint> {
  const { from, format, convert } = step;
  const isAll = convert !== undefined && convert.below.length === 0;
  const read = isAll ? convert.chain : [{ path: from, format }];
  let bytes = 0n;
  for (const image of read) {
    const info = await host.context.images.info(image.path, image.format).catch(() => null);
    bytes += info?.actualSizeBytes ?? 0n;
  }
  return bytes;
}

const imageAt = (path: string, format: Format = 'raw'): Image => ({
  source: { type: 'file', path },
  format,
  index: null,
});
