// What `ferry plan move` says: the chain before and after, what is copied, room, time, pauses, risks, the way back. And the
// world that it holds for: `ferry apply` asks whether it is still the same.

import { createHash } from 'node:crypto';
import { posix } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type { FileIdentity, VerifyMode } from '../block/copy.js';
import { localPath, showSource } from '../block/layer.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import { findDisk } from '../domain/definition.js';
import type { DomainRecord, LiveRecord } from '../domain/record.js';
import type { SourceFate } from '../domain/source-fate.js';
import { keptText, spanText } from '../domain/source-fate.js';
import { readBackOf } from '../image/verify.js';
import { encode } from '../journal/codec.js';
import type { QemuVersion } from '../plan/known-bugs.js';
import { risksOfQemu } from '../plan/known-bugs.js';
import type { Move } from '../plan/move.js';
import { showPivot } from '../plan/pivot-when.js';
import { copyBytesOf, roomBytesOf } from '../plan/move.js';
import type { Placing } from '../plan/move-places.js';
import { clusterOf, conversionOf, copiesOf } from '../plan/move-places.js';
import { layersOf } from '../plan/refuse.js';
import { sharedOf } from '../plan/share-base.js';
import { hasCommand } from '../qmp/monitor.js';
import { present } from '../std/assert.js';
import { StateError } from '../std/errors.js';
import { diskStats } from './disk-stats.js';
import type { MoveRequest } from './ferry-host.js';
import type { Host } from './host.js';
import type { MovePlan, PlannedDisk, Room } from './move-plan-view.js';

export type { MovePlan, Room } from './move-plan-view.js';

/** What a plan holds for, as `what it is` → `how it was`. */
export type World = ReadonlyMap<string, string>;

/** The life of QEMU of a domain that has none. */
export const shutOff = 'shut off';

/** Everything that the plan depends on and that others may change meanwhile. The guest's writing is no change. */
export async function worldOf(host: Host, live: LiveRecord, move: Move): Promise<World> {
  const { images } = host.context;
  const world = new Map([['life of QEMU', `id ${live.id}`]]);
  const folder = await images.identity(move.to);
  world.set(`folder ${move.to}`, folder === null ? 'not there' : `inode ${folder.inode}`);
  const { overlayDir } = move.form;
  if (overlayDir !== null) {
    const found = await images.identity(overlayDir);
    world.set(`folder ${overlayDir}`, found === null ? 'not there' : `inode ${found.inode}`);
  }
  for (const [path, file] of move.there) world.set(`image ${path}`, showIdentity(file, false));
  for (const disk of disksOf(live, move)) {
    const layers = layersOf(disk);
    const chain = layers.map(({ source, format }) => `${showSource(source)} (${format})`);
    world.set(`chain of ${disk.target}`, chain.join(' over '));
    world.set(`size of ${disk.target}`, `${move.sizes.get(disk.target)?.sizeBytes ?? '?'} bytes`);
    for (const [i, layer] of layers.entries()) {
      const path = localPath(layer.source);
      if (path === null) continue;
      world.set(`image ${path}`, showIdentity(await images.identity(path), i === 0));
    }
  }
  return world;
}

/** The guest writes to the active image: size and time of that one say nothing. */
export function showIdentity(found: FileIdentity | null, isActive: boolean): string {
  if (found === null) return 'not there';
  const { inode, sizeBytes, mtimeNs } = found;
  const written = new Date(Number(mtimeNs / 1_000_000n)).toISOString();
  return isActive ? `inode ${inode}` : `inode ${inode}, ${sizeBytes} bytes, written ${written}`;
}

/** Short enough to be typed, long enough that two plans do not meet. */
export const hashOf = (request: MoveRequest, world: World): string =>
  createHash('sha256')
    .update(encode([request, [...world]]))
    .digest('hex')
    .slice(0, 12);

/** Null: the world is as it was. */
export function changesOf({ name }: DomainRecord, was: World, is: World): StateError | null {
  const different = [...new Set([...was.keys(), ...is.keys()])].filter(
    (what) => was.get(what) !== is.get(what),
  );
  // Other chains are of other images: nobody has to be told twice.
  const chains = different.filter((what) => what.startsWith('chain '));
  // Of a guest that runs other things are asked than of one that is shut off.
  const wasOff = different.filter((what) => [was.get(what), is.get(what)].includes(shutOff));
  const worst = [wasOff, chains].find((some) => some.length > 0) ?? different;
  const changes = worst.map(
    (what) => `${what} was ${was.get(what) ?? 'none'}, is ${is.get(what) ?? 'none'}`,
  );
  if (changes.length === 0) return null;
  return new StateError(
    'OPERATION_INVALID',
    `move ${name}: the world has changed since it was planned: ${changes.join('; ')}. Nothing was done; make the plan anew`,
    { next: [`ferry chain ${name}`] },
  );
}

/** What is read at the destination to be compared: of an image that is shared, or made by qemu-img, there is no sample. */
export const readBackOfAll = (disks: readonly PlannedDisk[], verify: VerifyMode): bigint =>
  disks
    .flatMap(({ before, after }) =>
      before.map(({ actualSizeBytes }, i) => {
        const { how } = present(after[i] ?? after[0], 'a disk has an image');
        if (how === 'shared') return actualSizeBytes;
        const isSampled = verify === 'none' || how === 'copied';
        return readBackOf(actualSizeBytes, isSampled ? verify : 'full');
      }),
    )
    .reduce((sum, bytes) => sum + bytes, 0n);

/** Those that are there: when a plan is applied, others may have gone. */
const disksOf = (live: LiveRecord, move: Move): readonly Disk[] =>
  move.disks.flatMap((name) => findDisk(live.definition, name) ?? []);

export const fateOf = ({ keepSourceSeconds, deleteShared }: MoveRequest): SourceFate => ({
  keepSeconds: keepSourceSeconds,
  shared: deleteShared,
});

export async function describeMove(
  host: Host,
  hash: string,
  live: LiveRecord,
  move: Move,
  fate: SourceFate,
): Promise<MovePlan> {
  const { record, to } = move;
  const moved = disksOf(live, move);
  const disks = moved.map((disk) => plannedDisk(move, disk));
  const copyBytes = copyBytesOf(move, moved);
  const rates = await ratesOf(host, move, disks);
  const readBackBytes = readBackOfAll(disks, move.verify);
  const seconds = timeOf(copyBytes, readBackBytes, rates);
  const overlayBytes =
    seconds === null ? 0n : rates.guestBytesPerSecond * BigInt(Math.ceil(seconds.most));
  const sources = await Promise.all(
    [...new Set(disks.map(({ before }) => overlayFolderOf(move, before)))].map(
      async (folder): Promise<Room> => {
        const freeBytes = await host.context.images.freeBytes(folder);
        return { folder, freeBytes, afterBytes: freeBytes };
      },
    ),
  );
  const destination = {
    folder: to,
    freeBytes: move.freeBytes,
    spokenForBytes: move.spokenForBytes,
    afterBytes: move.freeBytes - move.spokenForBytes - roomBytesOf(move, moved),
  };
  checkRoom(record, [destination, ...sources], overlayBytes, rates.guestBytesPerSecond);
  return {
    hash,
    domain: record.uuid,
    domainName: record.name,
    to,
    pivot: showPivot(move.pivot),
    strategy: {
      name: 'mirrored-snapshot',
      why: 'what is frozen is copied as files, and only what the guest writes meanwhile is mirrored: a crash costs that much',
    },
    disks,
    copyBytes,
    verify: { how: move.verify, readBackBytes },
    destination,
    sources,
    rates,
    seconds,
    pauses: pausesOf(host),
    risks: [
      ...(await risksOfGuest(host, move, moved)),
      ...(await risksOf(host, move, disks, rates)),
    ],
    stages: stagesOf(
      record,
      disks.map(({ target }) => target),
      fate,
      move.undoSeconds,
    ),
  };
}

/** Where what the guest writes until the switch goes. */
const overlayFolderOf = ({ form }: Move, before: PlannedDisk['before']): string =>
  form.overlayDir ?? posix.dirname(present(before[0], 'a chain is never empty').path);

/** `disk` has its whole chain. */
export function plannedDisk(
  move: Pick<Move, 'files' | 'there' | 'bytesPerSecond'> & Placing,
  disk: Disk,
): PlannedDisk {
  const images = imagesOf(disk);
  const before = images.map(({ source, format }) => {
    const path = showSource(source);
    return { path, format, actualSizeBytes: move.files.get(path)?.info?.actualSizeBytes ?? 0n };
  });
  const copies = copiesOf(images, move);
  const made = copies.length - sharedOf(move, images);
  const conversion = conversionOf(images, move, clusterOf(move.files, images));
  const isOne = conversion !== null && conversion.below.length === 0 && images.length > 1;
  const converted = conversion === null ? 'copied' : isOne ? 'flattened' : 'converted';
  return {
    target: disk.target,
    before,
    after: copies.map((copy, i) => ({
      ...copy,
      how: i >= made ? 'shared' : i === 0 ? converted : 'copied',
    })),
  };
}

type Rates = MovePlan['rates'];

const SAMPLE_MS = 1000;

export async function ratesOf(
  host: Host,
  move: Pick<Move, 'record' | 'to' | 'bytesPerSecond'>,
  disks: readonly PlannedDisk[],
): Promise<Rates> {
  const { images } = host.context;
  const targets = new Set(disks.map(({ target }) => target));
  const written = async (): Promise<bigint> =>
    (await diskStats(host, move.record.uuid))
      .filter(({ target }) => targets.has(target))
      .reduce((sum, { stats }) => sum + stats.writeBytes, 0n);
  const begin = performance.now();
  const before = await written();
  const all = disks.flatMap((disk) => disk.before);
  const largest = all.toSorted((a, b) => Number(b.actualSizeBytes - a.actualSizeBytes))[0];
  await host.watchers.opening(move.record.uuid);
  await delay(SAMPLE_MS);
  await host.watchers.stillCalm(move.record.uuid);
  const grown = (await written()) - before;
  const guest = BigInt(Math.round(Number(grown) / ((performance.now() - begin) / 1000)));
  // After the guest was looked at: they take bandwidth from it.
  const read = largest === undefined ? null : await images.readRate(largest.path).catch(() => null);
  const write = await images.writeRate(move.to);
  return {
    readBytesPerSecond: read,
    writeBytesPerSecond: write,
    limitBytesPerSecond: move.bytesPerSecond,
    guestBytesPerSecond: guest,
  };
}

/** Taking part in what others do with the storages. */
const SHARE = 3;
/** Snapshot, catching up, pivot and merge, on a host that is busy. */
const REST_SECONDS = 5;

export function timeOf(
  copyBytes: bigint,
  readBackBytes: bigint,
  rates: Rates,
): MovePlan['seconds'] {
  const read = rates.readBytesPerSecond;
  const write = rates.writeBytesPerSecond;
  const limit = rates.limitBytesPerSecond;
  if (read === null || write === null) return null;
  const slowest = (...rates_: readonly bigint[]): bigint =>
    [...rates_, ...(limit === null ? [] : [limit])].reduce((a, b) => (a < b ? a : b));
  const rate = slowest(read, write);
  // A storage gives at least as fast as it takes; it cannot be asked before anything of the copy is there.
  const seconds = secondsFor(copyBytes, rate) + secondsFor(readBackBytes, slowest(write));
  return { least: seconds, most: seconds * (limit === rate ? 1.5 : SHARE) + REST_SECONDS };
}

const secondsFor = (bytes: bigint, bytesPerSecond: bigint): number =>
  Number(bytes) / Number(bytesPerSecond > 0n ? bytesPerSecond : 1n);

function checkRoom(
  { name }: DomainRecord,
  rooms: readonly Room[],
  overlayBytes: bigint,
  guest: bigint,
): void {
  const short = rooms.find(({ afterBytes }) => afterBytes < overlayBytes);
  if (short === undefined) return;
  throw new StateError(
    'OPERATION_INVALID',
    `plan move ${name}: the guest writes ${guest} bytes a second, so up to ${overlayBytes} may come together until the move is over, and ${short.afterBytes} will be free in ${short.folder}; make room there, or move when the guest writes less`,
  );
}

/** Of the moves that this host remembers. */
export function pausesOf(host: Host): MovePlan['pauses'] {
  const byWhat = new Map<string, number[]>();
  for (const { kind, outcome, pauses } of host.operations.all()) {
    if (kind !== 'move' || outcome !== 'committed') continue;
    for (const { what, ms } of pauses) byWhat.set(what, [...(byWhat.get(what) ?? []), ms]);
  }
  return [...byWhat].map(([what, all]) => ({
    what,
    leastMs: Math.min(...all),
    mostMs: Math.max(...all),
  }));
}

/** What its QEMU and its disks bring with them, whichever way they move. */
export async function risksOfGuest(
  host: Host,
  move: Pick<Move, 'record' | 'trim'>,
  disks: readonly Disk[],
): Promise<readonly string[]> {
  const known = risksOfQemu(await versionOf(host, move.record.uuid), disks);
  return [...known, ...untrimmed(move, disks)];
}

/** A discard of the guest ends at its disk unless that passes it on. */
function untrimmed({ trim }: Pick<Move, 'trim'>, disks: readonly Disk[]): readonly string[] {
  const deaf = disks.filter(({ driver }) => trim && driver.discard !== 'unmap');
  return deaf.map(
    ({ target }) => `--trim gives nothing back of ${target}: its <driver> has no discard='unmap'`,
  );
}

/** Of the process that runs: what is installed may be newer. */
async function versionOf(host: Host, uuid: string): Promise<QemuVersion> {
  const monitor = await host.guestOf(uuid).monitor();
  return monitor?.version.qemu ?? host.emulator.version;
}

/** What its form brings with it. */
export function formRisks(disks: readonly PlannedDisk[]): readonly string[] {
  const made = disks.filter(({ after }) =>
    after.some(({ how }) => how === 'converted' || how === 'flattened'),
  );
  if (made.length === 0) return [];
  return [
    `qemu-img makes the image of ${made.map(({ target }) => target).join(', ')}: when ferryd dies meanwhile that begins anew, and bitmaps of backups are not taken along`,
  ];
}

async function risksOf(
  host: Host,
  { record: { uuid, persistent }, folder, pivot, form, undoSeconds }: Move,
  disks: readonly PlannedDisk[],
  { guestBytesPerSecond: guest, writeBytesPerSecond: write }: Rates,
): Promise<readonly string[]> {
  const monitor = await host.guestOf(uuid).monitor();
  const canForce = monitor !== null && hasCommand(monitor.schema, 'block-job-change');
  const { major, minor, micro } = await versionOf(host, uuid);
  const stats = await Promise.all(
    disks.flatMap(({ before }) => before.map(({ path }) => host.context.images.stat(path))),
  );
  const here = stats.some((file) => file !== null && file.device === folder?.device);
  return [
    ...(here
      ? ['the destination is on the same file system as the source: it fails with it, and fills it']
      : []),
    ...formRisks(disks),
    ...(form.overlayDir === null
      ? []
      : [
          `taking it back before the switch brings what the guest wrote since from ${form.overlayDir} down into its image, which needs that much room there`,
        ]),
    ...(write !== null && guest * 2n > write
      ? [
          `the guest writes ${guest} bytes a second where the destination takes ${write}: the mirror may not catch up before the guest writes less`,
        ]
      : []),
    ...(pivot.how === 'auto'
      ? []
      : [
          `while it waits for its pivot (${showPivot(pivot)}), what the guest writes takes room on both sides: ${guest} bytes a second now`,
        ]),
    ...(undoSeconds === null
      ? []
      : [
          `for ${spanText(undoSeconds)} after the switch, what the guest writes goes to both sides and takes room on both: ${guest} bytes a second now`,
        ]),
    ...(canForce
      ? []
      : [
          `QEMU ${major}.${minor}.${micro} cannot make a running mirror write-blocking (block-job-change), so a guest that writes faster than the destination is not slowed down`,
        ]),
    ...(persistent === null
      ? [
          'the domain is transient: when its QEMU dies, the move goes on only if it is created again on its live image',
        ]
      : []),
  ];
}

export const stageOfSwitch = (targets: readonly string[]): MovePlan['stages'][number] => ({
  stage: 'at the switch',
  wayBack:
    targets.length === 1
      ? 'a switch that fails leaves the guest on the source'
      : `all of ${targets.join(', ')} switch or none: if one fails, the guest is on the source with all of them`,
});

const stagesOf = (
  { name }: DomainRecord,
  targets: readonly string[],
  fate: SourceFate,
  undoSeconds: number | null,
): MovePlan['stages'] => [
  {
    stage: 'until the switch',
    wayBack: `the guest is on the source; 'ferry ops cancel N' takes back what was done, and a crash costs what changed`,
  },
  stageOfSwitch(targets),
  ...(undoSeconds === null
    ? []
    : [
        {
          stage: `for ${spanText(undoSeconds)} after the switch`,
          wayBack: `'ferry undo N', in one pause: a mirror brings what the guest writes to the old side too; 'ferry undo N --close' ends that`,
        },
      ]),
  {
    stage: undoSeconds === null ? 'after the switch' : 'after that',
    wayBack: `none: the old images are a copy of that moment. They are kept ${keptText(fate, undoSeconds === null ? 'the switch' : 'the end of the window')}; 'ferry chain ${name}' shows them as stale, and how much older they are`,
  },
];
