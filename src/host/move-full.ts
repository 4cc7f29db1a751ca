// `ferry move` by full mirrors: when that is the way, what is looked at before it is planned, and what a person is told.

import { once } from 'node:events';
import { connect } from 'node:net';
import { join, posix } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Destination } from '../block/destination.js';
import type { PathFacts } from '../block/facts.js';
import { destinationOf } from '../block/destination.js';
import type { Image, NbdHost } from '../block/layer.js';
import { localPath, showSource } from '../block/layer.js';
import { findDisk } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import type { DomainRecord, LiveRecord } from '../domain/record.js';
import type { DeviceFacts, MoveFull } from '../plan/move-full.js';
import { fullBytesOf, fullPathOf, imageAt, planMoveFull } from '../plan/move-full.js';
import { sizesIn } from '../plan/move.js';
import { showPivot } from '../plan/pivot-when.js';
import { layersOf, pathsInUse } from '../plan/refuse.js';
import { within } from '../std/deadline.js';
import { RequestError, messageOf } from '../std/errors.js';
import { filesOf } from './context.js';
import type { MoveRequest } from './ferry-host.js';
import type { Host } from './host.js';
import { look, sizesOf } from './look.js';
import type { MovePlan, World } from './move-plan.js';
import {
  pausesOf,
  ratesOf,
  risksOfGuest,
  showIdentity,
  stageOfSwitch,
  timeOf,
} from './move-plan.js';
import type { PlannedDisk } from './move-plan-view.js';
import { lookAtPlace } from './move-look.js';
import type { LookedAt } from './move-verbs.js';
import { checkReady } from './move-ready.js';

/** Where the request goes. */
export function placeOf({ name }: DomainRecord, { to }: MoveRequest): Destination {
  const found = destinationOf(to);
  if (typeof found !== 'string') return found;
  throw new RequestError('INVALID_ARG', `move ${name} to ${to}: ${found}`);
}

/** Why full mirrors are the way; null: an overlay is. */
export function whyFull(
  { name, live }: DomainRecord,
  { disks, strategy, to }: MoveRequest,
  place: Destination,
): string | null {
  const noFile =
    place.kind === 'block'
      ? 'a block device has no room for an overlay beside the copy'
      : place.kind === 'nbd'
        ? 'an overlay over NBD would have no backing there'
        : null;
  const source = disks
    .flatMap((disk) => (live === null ? [] : (findDisk(live.definition, disk) ?? [])))
    .flatMap(layersOf)
    .find((layer) => layer.source.type !== 'file');
  const none =
    source === undefined
      ? noFile
      : `${showSource(source.source)} is no file, so an overlay has no place beside it`;
  const why = noFile ?? none;
  if (strategy === 'overlay' && why !== null)
    throw new RequestError(
      'CONFIG_UNSUPPORTED',
      `move ${name} to ${to}: ${why}; leave out '--strategy overlay'`,
    );
  return strategy === 'full' ? 'it was asked for' : why;
}

/** Of a domain that is shut off files are copied, and nothing else. */
export function checkOfflinePlace(
  { name }: DomainRecord,
  { strategy, to }: MoveRequest,
  place: Destination,
): void {
  if (place.kind === 'folder' && strategy !== 'full') return;
  const what = place.kind === 'folder' ? "'--strategy full'" : 'a move to what is no file';
  throw new RequestError(
    'OPERATION_UNSUPPORTED',
    `move ${name} to ${to}: it is shut off, and ${what} is QEMU's work; start '${name}' first ('ferry start ${name} --paused' runs nothing of the guest)`,
  );
}

interface Looking {
  readonly live: LiveRecord;
  readonly place: Destination;
  readonly why: string;
}

export async function lookFull(
  host: Host,
  record: DomainRecord,
  request: MoveRequest,
  { live, place, why }: Looking,
): Promise<LookedAt> {
  checkForm(record, request);
  await checkReady(host, record, request);
  const disks = request.disks.flatMap((name) => findDisk(live.definition, name) ?? []);
  const seen = await look(host, disks.flatMap(layersOf), 'header');
  const { files, ...there } =
    place.kind === 'folder'
      ? await lookAtPlace(host, request, disks, (where) =>
          disks.map((disk) => fullPathOf(record, disk, where)),
        )
      : { ...nowhere, to: request.to };
  const move: MoveFull = {
    record,
    disks: request.disks,
    destination: place,
    ...there,
    device: place.kind === 'block' ? await lookAtDevice(host, place.path) : null,
    files: new Map([...files, ...seen]),
    sizes: await sizesOf(host, record.uuid, live),
    bytesPerSecond: request.bytesPerSecond,
    pivot: request.pivot,
    quiesce: request.quiesce,
    trim: request.trim,
    fuseAt: {
      prefix: filesOf(host.context.config, record.uuid, record.name).fusePrefix,
      logFile: filesOf(host.context.config, record.uuid, record.name).logFile,
    },
    tlsCreds: await credsOf(host, record, request),
    exportUsedBy: place.kind === 'nbd' ? exportUser(host, place) : null,
  };
  return {
    sizes: sizesIn(move.files),
    plan: () => planMoveFull(move),
    world: async () => await worldOf(host, live, move, disks),
    describe: async (hash) => await describe(host, hash, move, { disks, why }),
  };
}

/** What QEMU's `tls-creds-x509` of a client asks of its folder. */
async function credsOf(
  host: Host,
  { name }: DomainRecord,
  { tlsCreds, to }: MoveRequest,
): Promise<string | null> {
  if (tlsCreds === null) return null;
  const file = join(tlsCreds, 'ca-cert.pem');
  if ((await host.context.images.stat(file))?.readable === true) return tlsCreds;
  throw new RequestError(
    'INVALID_ARG',
    `move ${name} to ${to}: ferryd finds no ${file} that it can read; the folder of '--tls-creds' holds ca-cert.pem, and client-cert.pem with client-key.pem if the server asks for them`,
  );
}

function exportUser(
  host: Host,
  { name, host: server }: Extract<Destination, { readonly kind: 'nbd' }>,
): string | null {
  const is = ({ source }: Image): boolean =>
    source.type === 'network' && source.name === name && isDeepStrictEqual(source.host, server);
  for (const record of host.known.all()) {
    const disks = [record.live?.definition, record.persistent].flatMap((one) => one?.disks ?? []);
    const images = disks.flatMap((disk) => [
      ...imagesOf(disk),
      ...(disk.mirror === null ? [] : [disk.mirror.image]),
    ]);
    if (images.some(is)) return `domain '${record.name}' has this export; name one that nobody has`;
  }
  return null;
}

const nowhere = {
  name: null,
  folder: null,
  freeBytes: 0n,
  spokenForBytes: 0n,
  files: new Map<string, PathFacts>(),
} as const;

/** What acts on copies of files is refused, lest somebody believes that it was done. */
function checkForm({ name }: DomainRecord, request: MoveRequest): void {
  const { overlayDir, shareBase, clusterSizeBytes, format, keepSourceSeconds, undoSeconds } =
    request;
  const bad = (text: string): RequestError =>
    new RequestError('INVALID_ARG', `move ${name} to ${request.to}: by full mirrors, ${text}`);
  const asked = [
    ...(overlayDir === null ? [] : ['--overlay-dir']),
    ...(shareBase ? ['--share-base'] : []),
    ...(clusterSizeBytes === null ? [] : ['--cluster-size']),
    ...(format === null ? [] : ['--format']),
  ];
  if (asked.length > 0) throw bad(`there is nothing for ${asked.join(' and ')} to act on`);
  if (keepSourceSeconds !== null)
    throw bad(
      'nothing is read back at the destination, so the source is not deleted; leave out --delete-source and --keep-source',
    );
  if (undoSeconds !== null)
    throw bad(
      'the chain becomes one image, so there is no frozen layer that both sides share; move without --undo-window',
    );
}

async function lookAtDevice(host: Host, path: string): Promise<DeviceFacts> {
  const { images } = host.context;
  const file = await images.stat(path);
  if (file?.kind !== 'block') return { file, sizeBytes: 0n, usedBy: null };
  const { sizeBytes, number, heldBy } = await images.device(path);
  if (heldBy !== null) return { file, sizeBytes, usedBy: `${heldBy}; free it first` };
  for (const record of host.known.all())
    for (const other of pathsInUse(record)) {
      const isDevice = (await images.stat(other).catch(() => null))?.kind === 'block';
      // By whatever name it is called there.
      if (!isDevice || (await images.device(other)).number !== number) continue;
      const usedBy = `domain '${record.name}' has it as ${other}; name a device that nobody has`;
      return { file, sizeBytes, usedBy };
    }
  return { file, sizeBytes, usedBy: null };
}

async function worldOf(
  host: Host,
  live: LiveRecord,
  { destination, device, sizes, to }: MoveFull,
  disks: readonly Disk[],
): Promise<World> {
  const { images } = host.context;
  const world = new Map([['life of QEMU', `id ${live.id}`]]);
  if (destination.kind === 'folder') {
    const folder = await images.identity(to);
    world.set(`folder ${to}`, folder === null ? 'not there' : `inode ${folder.inode}`);
  }
  if (device !== null)
    world.set(`device ${to}`, `${device.sizeBytes} bytes, ${device.usedBy ?? 'nobody has it'}`);
  for (const disk of disks) {
    const layers = layersOf(disk);
    const chain = layers.map(({ source, format }) => `${showSource(source)} (${format})`);
    world.set(`chain of ${disk.target}`, chain.join(' over '));
    world.set(`size of ${disk.target}`, `${sizes.get(disk.target)?.sizeBytes ?? '?'} bytes`);
    for (const [i, { source }] of layers.entries()) {
      const path = localPath(source);
      if (path === null) continue;
      const isWritten = i === 0 || source.type === 'block';
      world.set(`image ${path}`, showIdentity(await images.identity(path), isWritten));
    }
  }
  return world;
}

interface Described {
  readonly disks: readonly Disk[];
  readonly why: string;
}

async function describe(
  host: Host,
  hash: string,
  move: MoveFull,
  { disks: moved, why }: Described,
): Promise<MovePlan> {
  const { record, to, freeBytes, spokenForBytes, device } = move;
  const disks = moved.map((disk) => plannedDisk(move, disk));
  const copyBytes = fullBytesOf(move, moved);
  const rates = await ratesOf(host, move, disks);
  const diskBytes = moved.reduce((sum, { target }) => sum + sizeOf(move, target), 0n);
  return {
    hash,
    domain: record.uuid,
    domainName: record.name,
    to,
    pivot: showPivot(move.pivot),
    strategy: {
      name: 'full-mirror',
      why: `${why}: QEMU copies all of each disk into one image and keeps it in step until the switch`,
    },
    disks,
    copyBytes,
    verify: { how: 'none', readBackBytes: 0n },
    destination:
      move.destination.kind === 'nbd'
        ? { folder: to, freeBytes: null, spokenForBytes: 0n, afterBytes: null }
        : device === null
          ? {
              folder: to,
              freeBytes,
              spokenForBytes,
              afterBytes: freeBytes - spokenForBytes - copyBytes,
            }
          : {
              folder: to,
              freeBytes: device.sizeBytes,
              spokenForBytes: 0n,
              afterBytes: device.sizeBytes - diskBytes,
            },
    // Nothing is put on them.
    sources: [],
    rates,
    seconds: timeOf(copyBytes, 0n, rates),
    pauses: pausesOf(host),
    risks: [...(await risksOfGuest(host, move, moved)), ...risksOf(move, moved, rates)],
    stages: stagesOf(move, moved),
  };
}

const sizeOf = ({ sizes }: MoveFull, target: string): bigint => sizes.get(target)?.sizeBytes ?? 0n;

function plannedDisk(move: MoveFull, disk: Disk): PlannedDisk {
  const { source, format } = imageAt(move, disk);
  const before = layersOf(disk).map((layer) => {
    const path = showSource(layer.source);
    const actualSizeBytes = move.files.get(path)?.info?.actualSizeBytes ?? 0n;
    return { path, format: layer.format, actualSizeBytes };
  });
  const how = before.length === 1 ? 'copied' : 'flattened';
  return { target: disk.target, before, after: [{ path: showSource(source), format, how }] };
}

function risksOf(
  move: MoveFull,
  disks: readonly Disk[],
  { guestBytesPerSecond: guest, writeBytesPerSecond: write }: MovePlan['rates'],
): readonly string[] {
  const { record, device, destination } = move;
  const longer = device === null ? 0n : device.sizeBytes - sizeOf(move, disks[0]?.target ?? '');
  const snapshots = record.snapshots.filter((one) =>
    one.disks.some(
      ({ name, image }) => image !== null && disks.some((disk) => disk.target === name),
    ),
  );
  return [
    'a death of QEMU before the switch makes the copy start over at the next start of the domain: nothing of it is trusted then',
    'bitmaps of backups are not taken along: begin them anew after the move',
    ...(record.persistent === null
      ? ['the domain is transient: that next start is its creation on its source']
      : []),
    ...(destination.kind === 'folder'
      ? []
      : [
          `whatever ${move.to} holds is void from the first moment on, also if the move is taken back`,
        ]),
    ...(longer > 0n
      ? [
          `the device is ${longer} bytes longer than the disk: from its next start on the guest sees a larger disk`,
        ]
      : []),
    ...(snapshots.length === 0
      ? []
      : [
          `the chain becomes one image: snapshot ${snapshots.map(({ name }) => name).join(', ')} stays as it is, about images of the source`,
        ]),
    ...(write !== null && guest * 2n > write
      ? [
          `the guest writes ${guest} bytes a second where the destination takes ${write}: the mirror may not catch up before the guest writes less`,
        ]
      : []),
  ];
}

function stagesOf({ record: { name } }: MoveFull, disks: readonly Disk[]): MovePlan['stages'] {
  const targets = disks.map(({ target }) => target);
  return [
    {
      stage: 'until the switch',
      wayBack: `the guest is on the source, which is as it always was; 'ferry ops cancel N' ends the copy`,
    },
    stageOfSwitch(targets),
    {
      stage: 'after the switch',
      wayBack: `none: the old images are a copy of that moment. They are kept, and 'ferry chain ${name}' shows them as stale`,
    },
  ];
}

const GREETING_TIMEOUT_MS = 3000;

/** Resolves when whoever listens there says something, as an NBD server does at once (its protocol's NBDMAGIC). */
async function greeted(host: NbdHost): Promise<void> {
  const at =
    host.transport === 'unix' ? { path: host.socket } : { host: host.name, port: host.port };
  const socket = connect(at);
  try {
    await within(once(socket, 'data'), GREETING_TIMEOUT_MS, 'its NBD server');
  } finally {
    socket.destroy();
  }
}

/** What keeps the target of such a mirror from being made anew; null: nothing. */
export async function fullObstacle(
  host: Host,
  image: Image,
  sizeBytes: bigint,
): Promise<string | null> {
  const { images } = host.context;
  const path = localPath(image.source);
  try {
    if (image.source.type === 'network') await greeted(image.source.host);
    if (path === null) return null;
    if (image.source.type === 'block') {
      const found = await images.device(path);
      if (found.heldBy !== null) return `${path}: ${found.heldBy}`;
      return found.sizeBytes < sizeBytes ? `${path} has only ${found.sizeBytes} bytes` : null;
    }
    const folder = await images.stat(posix.dirname(path));
    if (folder?.kind !== 'folder') return `${posix.dirname(path)} is not there`;
    const file = await images.stat(path);
    if (file === null) return `${path} is not there`;
    return file.writable ? null : `${path} cannot be written to`;
  } catch (error) {
    return messageOf(error);
  }
}
