// `ferry move`: what has to be looked at before it can be planned, and the plan that a person sees before anything happens.

import { findDisk } from '../domain/definition.js';
import type { DomainRecord, LiveRecord } from '../domain/record.js';
import type { Move } from '../plan/move.js';
import { planMove, sizesIn } from '../plan/move.js';
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
import { lookAtDestination } from './move-look.js';
import { lookOffline } from './move-offline.js';
import { checkReady } from './move-ready.js';
import { checkOfflinePlace, lookFull, placeOf, whyFull } from './move-full.js';

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
  let sizes: ReadonlyMap<string, bigint> = new Map();
  const started = await host.begin(uuid, async (known) => {
    const record = known ?? host.known.domain(uuid);
    host.context.images.expectCopy();
    if (record.live !== null) await host.watchers.opening(uuid);
    const looked = await lookAround(host, record, request);
    ({ sizes } = looked);
    const changed = world === null ? null : changesOf(record, world, await looked.world());
    return changed === null ? looked.plan() : refuse(changed);
  });
  host.watchers.weighed(started.operation, sizes);
  return started;
}

/** What was seen before a move, of a domain that runs or of one that is shut off. */
export interface LookedAt {
  /** What each image takes on its storage, by path. */
  readonly sizes: ReadonlyMap<string, bigint>;
  readonly plan: () => Plan | Refusal;
  readonly world: () => Promise<World>;
  readonly describe: (hash: string) => Promise<MovePlan>;
}

/** @throws what stands in the way of any operation on these disks. */
async function lookAround(host: Host, record: DomainRecord, asked: MoveRequest): Promise<LookedAt> {
  const fate = fateOf(asked);
  const refused = checkFate(record.name, fate, asked.verify) ?? windowObstacle(record, fate, asked);
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
  const place = placeOf(record, asked);
  const { live } = record;
  if (live === null) {
    checkOfflinePlace(record, asked, place);
    return await lookOffline(host, record, asked);
  }
  const why = whyFull(record, asked, place);
  if (why !== null) return await lookFull(host, record, asked, { live, place, why });
  const move = await lookOnline(host, record, live, asked);
  return {
    sizes: sizesIn(move.files),
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
  await checkReady(host, record, request);
  const disks = request.disks.flatMap((name) => findDisk(live.definition, name) ?? []);
  const seen = await look(host, disks.flatMap(layersOf), 'header');
  const { overlayDir } = request;
  return {
    record,
    disks: request.disks,
    ...(await lookAtDestination(host, request, disks, seen)),
    overlayFolder: overlayDir === null ? null : await host.context.images.stat(overlayDir),
    sizes: await sizesOf(host, record.uuid, live),
    rotateBytes: request.rotateBytes,
    bytesPerSecond: request.bytesPerSecond,
    verify: request.verify,
    pivot: request.pivot,
    quiesce: request.quiesce,
    trim: request.trim,
    undoSeconds: request.undoSeconds,
  };
}
