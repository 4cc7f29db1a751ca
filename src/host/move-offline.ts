// `ferry move` of a domain that is shut off: what is looked at before it is planned, and what a person is told of it.

import { posix } from 'node:path';
import type { FileIdentity } from '../block/copy.js';
import { localPath, showSource } from '../block/layer.js';
import { findDisk } from '../domain/definition.js';
import type { Definition } from '../domain/definition.js';
import { imagesOf } from '../domain/disk.js';
import type { DomainRecord } from '../domain/record.js';
import type { SourceFate } from '../domain/source-fate.js';
import { keptText } from '../domain/source-fate.js';
import { copyBytesOf, destinationsOf } from '../plan/move.js';
import type { MoveOffline } from '../plan/move-offline.js';
import { planMoveOffline } from '../plan/move-offline.js';
import { present } from '../std/assert.js';
import { StateError } from '../std/errors.js';
import { checkRoles, resolveChains } from './chains.js';
import type { MoveRequest } from './ferry-host.js';
import type { Host } from './host.js';
import { look } from './look.js';
import type { World } from './move-plan.js';
import { fateOf, readBackOfAll, showIdentity, shutOff, timeOf } from './move-plan.js';
import type { MovePlan, PlannedDisk } from './move-plan-view.js';
import type { Destination, LookedAt } from './move-verbs.js';
import { checkNothingOpen } from './offline.js';
import { rolesOfMoves } from './owed.js';

/** What makes sense only while a guest runs is refused, lest somebody believes that it was done. */
function checkAsked({ name }: DomainRecord, { pivot, quiesce, trim }: MoveRequest): void {
  const asked = [
    ...(pivot.how === 'auto' ? [] : ['--pivot']),
    ...(quiesce ? ['--quiesce'] : []),
    ...(trim ? ['--trim'] : []),
  ];
  if (asked.length === 0) return;
  throw new StateError(
    'OPERATION_INVALID',
    `move ${name}: it is shut off, so there is nothing for ${asked.join(' and ')} to act on; leave it out, or start '${name}' first`,
  );
}

/** @throws what a start of the domain would be refused with, as far as these disks go, or what is open of it. */
export async function lookOffline(
  host: Host,
  record: DomainRecord,
  request: MoveRequest,
  lookAtDestination: (paths: readonly string[]) => Promise<Destination>,
): Promise<LookedAt> {
  checkAsked(record, request);
  await checkNothingOpen(host, record);
  const { persistent } = record;
  if (persistent === null) throw new StateError('OPERATION_INVALID', 'domain has no definition');
  const wanted = request.disks.flatMap((name) => findDisk(persistent, name)?.target ?? []);
  const definition = await resolved(host, record, {
    ...persistent,
    disks: persistent.disks.filter(({ target }) => wanted.includes(target)),
  });
  const images = definition.disks.flatMap(imagesOf);
  const stamp = String(host.nowSeconds);
  const made = definition.disks.flatMap(
    (disk) => destinationsOf(disk, request.to, stamp)?.copies ?? [],
  );
  const { files, ...destination } = await lookAtDestination(made);
  const move: MoveOffline = {
    record,
    disks: request.disks,
    chains: new Map(definition.disks.map((disk) => [disk.target, disk])),
    identities: await identitiesOf(
      host,
      images.flatMap(({ source }) => localPath(source) ?? []),
    ),
    ...destination,
    files: new Map([...files, ...(await look(host, images, 'header'))]),
    stamp,
    bytesPerSecond: request.bytesPerSecond,
    verify: request.verify,
  };
  return {
    plan: () => planMoveOffline(move),
    world: async () => await worldOf(host, move),
    describe: async (hash) => await describe(host, hash, move, fateOf(request)),
  };
}

/** The chains as a start would open them (laws 7 and 13): only of these disks, whatever is wrong with the others. */
async function resolved(
  host: Host,
  { chains }: DomainRecord,
  definition: Definition,
): Promise<Definition> {
  const { known, images } = host.context;
  const asked = { known, images, roles: [...known.roles(), ...(await rolesOfMoves(host))] };
  const found = await resolveChains(images, definition, chains);
  await checkRoles(asked, found);
  return found;
}

async function identitiesOf(
  host: Host,
  paths: readonly string[],
): Promise<ReadonlyMap<string, FileIdentity>> {
  const found = new Map<string, FileIdentity>();
  for (const path of paths) {
    const file = await host.context.images.identity(path);
    if (file !== null) found.set(path, file);
  }
  return found;
}

async function worldOf(host: Host, { to, chains, identities }: MoveOffline): Promise<World> {
  const world = new Map([['life of QEMU', shutOff]]);
  const folder = await host.context.images.identity(to);
  world.set(`folder ${to}`, folder === null ? 'not there' : `inode ${folder.inode}`);
  for (const disk of chains.values()) {
    const layers = imagesOf(disk);
    const chain = layers.map(({ source, format }) => `${showSource(source)} (${format})`);
    world.set(`chain of ${disk.target}`, chain.join(' over '));
    for (const path of layers.flatMap(({ source }) => localPath(source) ?? []))
      world.set(`image ${path}`, showIdentity(identities.get(path) ?? null, false));
  }
  return world;
}

async function describe(
  host: Host,
  hash: string,
  move: MoveOffline,
  fate: SourceFate,
): Promise<MovePlan> {
  const { record, to, freeBytes, spokenForBytes, bytesPerSecond } = move;
  const disks = plannedDisks(move);
  const all = disks.flatMap(({ before }) => before);
  const copyBytes = copyBytesOf(move, [...move.chains.values()]);
  const readBackBytes = readBackOfAll(disks, move.verify);
  const { images } = host.context;
  const largest = all.toSorted((a, b) => Number(b.actualSizeBytes - a.actualSizeBytes))[0];
  const rates = {
    readBytesPerSecond:
      largest === undefined ? null : await images.readRate(largest.path).catch(() => null),
    writeBytesPerSecond: await images.writeRate(to),
    limitBytesPerSecond: bytesPerSecond,
    guestBytesPerSecond: 0n,
  };
  const folders = [...new Set(all.map(({ path }) => posix.dirname(path)))];
  return {
    hash,
    domain: record.uuid,
    domainName: record.name,
    to,
    strategy: {
      name: 'offline-copy',
      why: 'the domain is shut off: its images are held against writers and copied whole, and then its definition names the copies',
    },
    disks,
    copyBytes,
    destination: {
      folder: to,
      freeBytes,
      spokenForBytes,
      afterBytes: freeBytes - spokenForBytes - copyBytes,
    },
    sources: await Promise.all(
      folders.map(async (folder) => {
        const free = await images.freeBytes(folder);
        return { folder, freeBytes: free, afterBytes: free };
      }),
    ),
    rates,
    seconds: timeOf(copyBytes, readBackBytes, rates),
    verify: { how: move.verify, readBackBytes },
    pivot: 'auto',
    pauses: [],
    risks: await risksOf(host, move, all),
    stages: stagesOf(record, fate),
  };
}

const plannedDisks = (move: MoveOffline): readonly PlannedDisk[] =>
  [...move.chains.values()].map((disk) => {
    const { copies } = present(destinationsOf(disk, move.to, move.stamp), 'the planner looked');
    const before = imagesOf(disk).map(({ source, format }) => {
      const path = showSource(source);
      return { path, format, actualSizeBytes: move.files.get(path)?.info?.actualSizeBytes ?? 0n };
    });
    const after = before.map(({ format }, i) => ({ path: present(copies[i], 'one each'), format }));
    return { target: disk.target, before, after };
  });

async function risksOf(
  host: Host,
  { record: { name }, folder }: MoveOffline,
  images: readonly { readonly path: string }[],
): Promise<readonly string[]> {
  const stats = await Promise.all(images.map(({ path }) => host.context.images.stat(path)));
  const here = stats.some((file) => file !== null && file.device === folder?.device);
  return [
    ...(here
      ? ['the destination is on the same file system as the source: it fails with it, and fills it']
      : []),
    `'ferry start ${name}' is refused until the move has ended or is cancelled`,
  ];
}

const stagesOf = ({ name }: DomainRecord, fate: SourceFate): MovePlan['stages'] => [
  {
    stage: 'until all is copied',
    wayBack: `the definition names the source; 'ferry cancel N' removes the copies, and a crash costs what was copied last`,
  },
  {
    stage: 'after that',
    wayBack: `none: the old images hold the same until '${name}' is started. They are kept ${keptText(fate)}; 'ferry chain ${name}' shows them as stale`,
  },
];
