// `ferry move`: what has to be looked at before it can be planned, and the plan that a person sees before anything happens.

import { posix } from 'node:path';
import type { Image } from '../block/layer.js';
import { findDisk } from '../domain/definition.js';
import type { DomainRecord, LiveRecord } from '../domain/record.js';
import type { Move } from '../plan/move.js';
import { destinationsOf, planMove } from '../plan/move.js';
import { isRefusal, layersOf, refuse } from '../plan/refuse.js';
import { checkFate, withFate } from '../plan/source.js';
import type { Plan, Refusal } from '../plan/step.js';
import { windowObstacle } from '../plan/undo-window.js';
import { NotFoundError } from '../std/errors.js';
import type { MoveRequest } from './ferry-host.js';
import { checkNoneWaits } from './domain-verbs.js';
import type { Host, Started } from './host.js';
import { look, sizesOf } from './look.js';
import type { MovePlan, World } from './move-plan.js';
import { changesOf, describeMove, fateOf, hashOf, worldOf } from './move-plan.js';
import { lookOffline } from './move-offline.js';
import { checkAgent } from './agent-check.js';
import { checkPivot } from './pivot-verbs.js';
import { checkTargets } from './targets.js';

/** How many plans are kept; the oldest go first. */
const KEPT = 100;

/** Plans that somebody may apply. Kept while ferryd runs: a later one has not seen the world that they are about. */
export class MovePlans {
  private readonly byHash = new Map<string, Planned>();

  keep(hash: string, planned: Planned): void {
    this.byHash.delete(hash);
    this.byHash.set(hash, planned);
    for (const old of [...this.byHash.keys()].slice(0, -KEPT)) this.byHash.delete(old);
  }

  get(hash: string): Planned {
    const found = this.byHash.get(hash);
    if (found !== undefined) return found;
    throw new NotFoundError(
      'NO_OPERATION',
      `no plan ${hash}; plans are kept while ferryd runs, make it anew`,
      { next: ['ferry plan move --help'] },
    );
  }
}

interface Planned {
  readonly uuid: string;
  readonly request: MoveRequest;
  readonly world: World;
  readonly described: MovePlan;
}

/** Resolves when the move is journaled; `ended` when it is over. */
export async function startMove(host: Host, uuid: string, request: MoveRequest): Promise<Started> {
  return await begin(host, { uuid, request, world: null });
}

/** @throws StateError naming what is not as it was when the plan was made. */
export async function applyMove(host: Host, plans: MovePlans, hash: string): Promise<Started> {
  return await begin(host, plans.get(hash));
}

/** Changes nothing, but for a file without a name that the destination's speed is measured with. */
export async function makeMovePlan(
  host: Host,
  plans: MovePlans,
  uuid: string,
  request: MoveRequest,
): Promise<MovePlan> {
  const looked = await lookAround(host, host.known.domain(uuid), request);
  const plan = looked.plan();
  if (isRefusal(plan)) throw plan.refusal;
  const world = await looked.world();
  const hash = hashOf(request, world);
  const described = await looked.describe(hash);
  plans.keep(hash, { uuid, request, world, described });
  return described;
}

async function begin(
  host: Host,
  { uuid, request, world }: Pick<Planned, 'uuid' | 'request'> & { readonly world: World | null },
): Promise<Started> {
  return await host.begin(uuid, async (known) => {
    const record = known ?? host.known.domain(uuid);
    if (record.live !== null) await host.watchers.opening(uuid);
    const looked = await lookAround(host, record, request);
    const changed = world === null ? null : changesOf(record, world, await looked.world());
    return changed === null ? looked.plan() : refuse(changed);
  });
}

/** What was seen before a move, of a domain that runs or of one that is shut off. */
export interface LookedAt {
  readonly plan: () => Plan | Refusal;
  readonly world: () => Promise<World>;
  readonly describe: (hash: string) => Promise<MovePlan>;
}

/** @throws what stands in the way of any operation on these disks. */
async function lookAround(host: Host, record: DomainRecord, asked: MoveRequest): Promise<LookedAt> {
  const fate = fateOf(asked);
  const refused =
    checkFate(record.name, fate, asked.verify) ?? windowObstacle(record, fate, asked.undoSeconds);
  if (refused !== null) throw refused;
  const looked = await lookAtDisks(host, record, asked);
  return { ...looked, plan: () => withFate(looked.plan(), fate) };
}

async function lookAtDisks(
  host: Host,
  record: DomainRecord,
  asked: MoveRequest,
): Promise<LookedAt> {
  await checkNoneWaits(host, record.uuid);
  const request = { ...asked, to: posix.normalize(asked.to).replace(/(.)\/$/, '$1') };
  const { live } = record;
  if (live === null)
    return await lookOffline(
      host,
      record,
      request,
      async (paths) => await lookAtDestination(host, request.to, paths),
    );
  const move = await lookOnline(host, record, live, request);
  return {
    plan: () => planMove(move),
    world: async () => await worldOf(host, live, move),
    describe: async (hash) => await describeMove(host, hash, live, move, fateOf(asked)),
  };
}

async function lookOnline(
  host: Host,
  record: DomainRecord,
  live: LiveRecord,
  request: MoveRequest,
): Promise<Move> {
  checkPivot(host, request.pivot);
  for (const asked of ['quiesce', 'trim'] as const)
    if (request[asked]) await checkAgent(host, record, `--${asked}`);
  await checkTargets(host.context.images, record, 'move');
  const { to } = request;
  const stamp = String(host.nowSeconds);
  const disks = request.disks.flatMap((name) => findDisk(live.definition, name) ?? []);
  const seen = await look(host, disks.flatMap(layersOf), 'header');
  const made = disks.flatMap((disk) => {
    const paths = destinationsOf(disk, to, stamp);
    return paths === null ? [] : [...paths.copies, ...paths.overlays];
  });
  const { files, ...destination } = await lookAtDestination(host, to, made);
  return {
    record,
    disks: request.disks,
    ...destination,
    files: new Map([...files, ...seen]),
    sizes: await sizesOf(host, record.uuid, live),
    stamp,
    rotateBytes: request.rotateBytes,
    bytesPerSecond: request.bytesPerSecond,
    verify: request.verify,
    pivot: request.pivot,
    quiesce: request.quiesce,
    trim: request.trim,
    undoSeconds: request.undoSeconds,
  };
}

/** The folder, and what is at the paths that would be made in it, or beside the source. */
export type Destination = Pick<Move, 'to' | 'folder' | 'freeBytes' | 'spokenForBytes' | 'files'>;

async function lookAtDestination(
  host: Host,
  to: string,
  made: readonly string[],
): Promise<Destination> {
  const { images } = host.context;
  const folder = to.startsWith('/') ? await images.stat(to) : null;
  // Without the folder nothing is there; the planner says what is wrong with it.
  if (folder?.kind !== 'folder')
    return { to, folder, freeBytes: 0n, spokenForBytes: 0n, files: new Map() };
  const paths = made.flatMap((path) => [path, `${path}.part`]);
  return {
    to,
    folder,
    freeBytes: await images.freeBytes(to),
    spokenForBytes: await spokenFor(host, folder.device),
    files: await look(host, paths.map(fileAt), 'header'),
  };
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
      const [whole, part] = [
        await images.info(step.from, step.format).catch(() => null),
        await images.info(`${step.to}.part`, 'raw').catch(() => null),
      ];
      const left = (whole?.actualSizeBytes ?? 0n) - (part?.actualSizeBytes ?? 0n);
      if (left > 0n) bytes += left;
    }
  return bytes;
}

const fileAt = (path: string): Image => ({
  source: { type: 'file', path },
  format: 'raw',
  index: null,
});
