// Plans the ends of mirrors: the disks go over to them (REOPEN_MIRROR, blockjob --pivot), or stay where they are
// (REMOVE_MIRROR, blockjob --abort), or only the snapshot object goes (METADATA_ONLY). Design §4, laws 3 to 5.

import type { PathFacts } from '../block/facts.js';
import type { Layer } from '../block/layer.js';
import { formatNode, localPath, sameSource, showSource } from '../block/layer.js';
import { blockdevOptions, reopenOptions } from '../block/node.js';
import type { Disk, DiskMirror } from '../domain/disk.js';
import { findDisk } from '../domain/definition.js';
import type { Change, DomainRecord, MirrorRecord, OwedMirror } from '../domain/record.js';
import type { Snapshot } from '../domain/snapshot.js';
import { assert, present } from '../std/assert.js';
import { RequestError, StateError } from '../std/errors.js';
import { checkChain, indexed, unopened } from './mirror-chain.js';
import { isRefusal, layersOf, needLive, refuse } from './refuse.js';
import { topOf } from './overlay.js';
import { abandoned, staleRoles } from './roles.js';
import type { OperationName } from './operation.js';
import type { Plan, PivotDisk, Refusal, Step } from './step.js';

/** A disk and the mirror that it has. */
export interface Mirrored {
  readonly disk: Disk;
  readonly mirror: DiskMirror;
  readonly record: MirrorRecord;
}

export interface MirrorEnd {
  readonly record: DomainRecord;
  /** What was seen at the images below mirrors that the caller made (REUSE_EXT). */
  readonly files: ReadonlyMap<string, PathFacts>;
  readonly nowSeconds: number;
}

export function mirrorsOf(record: DomainRecord): readonly Mirrored[] {
  const live = record.live;
  if (live === null) return [];
  return live.mirrors.map((mirror) => {
    const disk = present(
      live.definition.disks.find((d) => d.target === mirror.target),
      'a mirror has its disk',
    );
    return {
      disk,
      mirror: present(disk.mirror, 'a mirrored disk shows its mirror'),
      record: mirror,
    };
  });
}

/** virDomainSnapshotDelete with REOPEN_MIRROR: all mirrored disks of the snapshot go over together. */
export function planReopen(request: MirrorEnd, snapshot: Snapshot): Plan | Refusal {
  const live = needLive(request.record);
  if (isRefusal(live)) return live;
  const wanted = snapshot.disks.filter((disk) => disk.mirror !== null);
  if (wanted.length === 0)
    return refuse(invalid(`snapshot '${snapshot.name}' has no mirrored disk`));
  const mirrors: Mirrored[] = [];
  for (const { name, image } of wanted) {
    const found = mirrorsOf(request.record).find(
      (m) => m.disk.target === name && m.record.snapshot === snapshot.name,
    );
    const owed = request.record.owed.find((one) => one.record.target === name);
    if (found === undefined && owed !== undefined) return refuse(invalid(stillOwed(owed)));
    const settle = settling(request.record, snapshot);
    if (found === undefined) {
      return refuse(
        invalid(
          `disk '${name}' of snapshot '${snapshot.name}' has no mirror any more; keep the source with REMOVE_MIRROR, or forget the snapshot with METADATA_ONLY`,
          settle,
        ),
      );
    }
    const source = topOf(found.disk).source;
    if (image === null || !sameSource(source, image.source)) {
      return refuse(
        invalid(
          `disk '${name}' is no longer on the layer of snapshot '${snapshot.name}': it is on ${showSource(source)}`,
          [`ferry chain ${request.record.name} ${name}`, ...settle],
        ),
      );
    }
    mirrors.push(found);
  }
  return pivotPlan(request, mirrors, 'snapshot-delete (reopen-mirror)', [
    { change: 'delete-snapshot', name: snapshot.name },
  ]);
}

/** The ways out for a snapshot that cannot be reopened. */
const settling = ({ name }: DomainRecord, snapshot: Snapshot): readonly string[] =>
  ['--remove-mirror', '--metadata'].map(
    (way) => `ferry snapshot-delete ${name} ${snapshot.name} ${way}`,
  );

/** virDomainSnapshotDelete with REMOVE_MIRROR: the guest stays on the source. */
export function planRemove(request: MirrorEnd, snapshot: Snapshot): Plan | Refusal {
  const forget: Change = { change: 'delete-snapshot', name: snapshot.name };
  if (snapshot.disks.every((disk) => disk.mirror === null)) {
    return refuse(invalid(`snapshot '${snapshot.name}' has no mirrored disk`));
  }
  const owed = request.record.owed.filter((one) => one.record.snapshot === snapshot.name);
  const settled = owed.map(({ record }): Change => ({
    change: 'settle-owed',
    target: record.target,
  }));
  if (request.record.live === null)
    return settleOwed(request.record, 'snapshot-delete (remove-mirror)', owed, [forget]);
  const mirrors = mirrorsOf(request.record).filter((m) => m.record.snapshot === snapshot.name);
  return dropPlan(request, mirrors, 'force', 'snapshot-delete (remove-mirror)', [
    ...settled,
    forget,
  ]);
}

/** virDomainSnapshotDelete with METADATA_ONLY: the object is forgotten, its mirrors go on as copy jobs. */
export function planForget(record: DomainRecord, snapshot: Snapshot): Plan | Refusal {
  const forget: Change = { change: 'delete-snapshot', name: snapshot.name };
  const owned = [
    ...mirrorsOf(record).map((mirrored) => mirrored.record),
    ...record.owed.map((owed) => owed.record),
  ].filter((mirror) => mirror.snapshot === snapshot.name);
  const changes: readonly Change[] = [
    ...owned.map(({ target }) => ({ change: 'mirror-owner' as const, target, snapshot: null })),
    forget,
  ];
  return {
    operation: 'snapshot-delete (metadata)',
    domain: record.uuid,
    domainName: record.name,
    steps: [{ kind: 'record', changes }],
    commitAt: 0,
  };
}

/** Mirrors that ended with their QEMU: the source is complete, so there is only something to forget. */
function settleOwed(
  record: DomainRecord,
  operation: OperationName,
  settled: readonly OwedMirror[],
  also: readonly Change[],
): Plan {
  const changes: readonly Change[] = [
    ...settled.map((owed) => ({ change: 'settle-owed' as const, target: owed.record.target })),
    ...also,
  ];
  return {
    operation,
    domain: record.uuid,
    domainName: record.name,
    steps: [{ kind: 'record', changes }],
    commitAt: 0,
  };
}

export interface BlockJobEnd extends MirrorEnd {
  /** Source path or target, as the client said it. */
  readonly path: string;
  readonly pivot: boolean;
}

/** virDomainBlockJobAbort for the copy of one disk. */
export function planBlockJobEnd(request: BlockJobEnd): Plan | Refusal {
  const owed = owedOn(request.record, request.path);
  if (owed !== null && !request.pivot) {
    if (owed.record.move) return refuse(belongsToMove(owed.record.target));
    return settleOwed(request.record, 'blockjob (abort)', [owed], []);
  }
  const live = needLive(request.record);
  if (isRefusal(live)) return live;
  const disk = findDisk(live.definition, request.path);
  if (disk === null)
    return refuse(new RequestError('INVALID_ARG', `disk '${request.path}' not found in domain`));
  if (owed !== null) return refuse(invalid(stillOwed(owed)));
  const all = mirrorsOf(request.record);
  const found = all.find((m) => m.disk.target === disk.target);
  if (found === undefined)
    return refuse(
      new RequestError('INVALID_ARG', `disk ${disk.target} does not have an active block job`),
    );
  if (found.record.move) {
    return refuse(belongsToMove(disk.target));
  }
  if (found.mirror.ready === 'abort' || found.mirror.ready === 'pivot') {
    return refuse(invalid(`block job on disk '${disk.target}' is still being ended`));
  }
  if (!request.pivot)
    return dropPlan(
      request,
      [found],
      found.mirror.ready === 'yes' ? 'seal' : 'force',
      'blockjob (abort)',
      [],
    );
  const together =
    found.record.snapshot === null
      ? []
      : all.filter((m) => m.record.snapshot === found.record.snapshot);
  const others = together.filter((m) => m !== found).map((m) => m.disk.target);
  if (others.length > 0) {
    const reopen = `ferry snapshot-delete ${request.record.name} ${found.record.snapshot} --reopen-mirror`;
    return refuse(
      invalid(
        `disk '${disk.target}' is mirrored together with ${others.join(', ')} by snapshot '${found.record.snapshot}'; ` +
          `they switch together: delete the snapshot with REOPEN_MIRROR ('${reopen}')`,
        [reopen],
      ),
    );
  }
  const forget: readonly Change[] =
    found.record.snapshot === null
      ? []
      : [{ change: 'delete-snapshot', name: found.record.snapshot }];
  return pivotPlan(request, [found], 'blockjob (pivot)', forget);
}

/** The mirror that is owed to a disk, which is named by its target or by its image. */
function owedOn(record: DomainRecord, path: string): OwedMirror | null {
  const definition = record.live?.definition ?? record.persistent;
  const target = definition === null ? null : (findDisk(definition, path)?.target ?? null);
  return record.owed.find((owed) => owed.record.target === target) ?? null;
}

const belongsToMove = (target: string): StateError =>
  invalid(
    `block job on disk '${target}' belongs to a move, which ends it itself; 'ferry ops' shows its number, 'ferry ops cancel N' stops it`,
    ['ferry ops'],
  );

const stillOwed = ({ record, image }: OwedMirror): string =>
  `the mirror of disk '${record.target}' ended with its QEMU and is taken up again once ${showSource(image.source)} is back; until then the disk stays on its source`;

/** A mirror whose job failed or was ended behind our back: the guest is on the source, and everybody is told. */
export function planLost(
  request: MirrorEnd,
  lost: readonly (Mirrored & { readonly error: string })[],
): Plan {
  const base = dropPlan(request, lost, 'force', 'mirror lost', []);
  const told = lost.flatMap(({ disk, mirror, error }): readonly Change[] => {
    const path = localPath(topOf(disk).source);
    const details = JSON.stringify({
      disk: disk.target,
      source: path,
      mirror: localPath(mirror.image.source),
      live: path,
      reason: error,
    });
    return [
      {
        change: 'event',
        event: { type: 'block-job', path, target: disk.target, job: 'copy', status: 'failed' },
      },
      { change: 'event', event: { type: 'monitor', event: 'MIRROR_DROPPED', details } },
    ];
  });
  const known = base.steps.at(-1)?.changes?.filter((change) => change.change !== 'event') ?? [];
  return {
    ...base,
    steps: [...base.steps.slice(0, -1), { kind: 'record', changes: [...known, ...told] }],
  };
}

/** Law 4 over `mirrors`; `also` becomes known with the switch. */
function pivotPlan(
  request: MirrorEnd,
  mirrors: readonly Mirrored[],
  operation: OperationName,
  also: readonly Change[],
): Plan | Refusal {
  const unready = mirrors.find(({ mirror }) => mirror.ready !== 'yes');
  if (unready !== undefined && unready.record.problem !== null) {
    return refuse(
      invalid(
        `the mirror of disk '${unready.disk.target}' stands still (${unready.record.problem}) and is not in step; make ${showSource(unready.mirror.image.source)} writable, it goes on by itself`,
      ),
    );
  }
  if (unready !== undefined) {
    return refuse(
      new StateError(
        'BLOCK_COPY_ACTIVE',
        `block job '${unready.mirror.jobId}' not ready for pivot yet`,
        {
          next: [`virsh blockjob ${request.record.name} ${unready.disk.target}`],
        },
      ),
    );
  }
  for (const mirrored of mirrors) {
    const refusal = checkChain(request, mirrored);
    if (refusal !== null) return refuse(refusal);
  }
  const open = mirrors.flatMap(openBelow);
  const pivot: Step = {
    kind: 'pivot',
    disks: mirrors.map(pivotDisk),
    changes: [
      ...mirrors.flatMap((m) => switched(request, m)),
      ...also,
      ...mirrors.map((m) => ended(m, 'completed')),
    ],
  };
  return {
    operation,
    domain: request.record.uuid,
    domainName: request.record.name,
    steps: [
      ...open,
      pivot,
      { kind: 'resume-guest', when: 'if-running' },
      { kind: 'dismiss-jobs', jobIds: mirrors.map(({ mirror }) => mirror.jobId) },
      ...mirrors.flatMap(closeFormer),
    ],
    commitAt: open.length + 1,
  };
}

/** Base first, each over the one below by name. */
function openBelow(mirrored: Mirrored): readonly Step[] {
  const below = indexed(mirrored.mirror.backing);
  const missing = new Set(unopened(mirrored).map((layer) => layer.index));
  const steps = below.map((layer, i): Step | null => {
    if (!missing.has(layer.index)) return null;
    const next = below[i + 1];
    return {
      kind: 'open-node',
      options: blockdevOptions(layer, {
        driver: mirrored.disk.driver,
        readOnly: true,
        backing: next === undefined ? null : formatNode(next),
      }),
    };
  });
  return steps.filter((step) => step !== null).toReversed();
}

function pivotDisk(mirrored: Mirrored): PivotDisk {
  const { disk, mirror } = mirrored;
  const image = indexed([mirror.image])[0];
  const base = indexed(mirror.backing)[0];
  assert(image !== undefined && base !== undefined, 'a mirror is an image over others');
  // The mirror was opened over the source's former top, the second image of the chain.
  const former = present(layersOf(disk)[1], 'a mirror stands over a base');
  const swingTo = (backing: Layer) =>
    base.index === former.index
      ? null
      : reopenOptions(image, {
          driver: disk.driver,
          readOnly: false,
          backing: formatNode(backing),
        });
  return {
    target: disk.target,
    jobId: mirror.jobId,
    job: 'copy',
    from: formatNode(topOf(disk)),
    to: formatNode(image),
    path: localPath(image.source),
    swing: swingTo(base),
    swingBack: swingTo(former),
    header: null,
    offline: null,
  };
}

function switched(request: MirrorEnd, { disk, mirror }: Mirrored): readonly Change[] {
  const images = [mirror.image, ...mirror.backing];
  return [
    { change: 'chain', target: disk.target, images, was: topOf(disk).source },
    { change: 'mirror-end', target: disk.target },
    ...staleRoles(request.record, disk.target, layersOf(disk), images),
  ];
}

/** Told after the switch, so the path is the new one (spec: semantics 2.6). */
function ended({ disk, mirror }: Mirrored, status: 'completed' | 'canceled'): Change {
  const source = status === 'completed' ? mirror.image.source : topOf(disk).source;
  return {
    change: 'event',
    event: { type: 'block-job', path: localPath(source), target: disk.target, job: 'copy', status },
  };
}

/** Everything of the former chain that the new one does not use, top first: a node in use cannot be closed. */
function closeFormer({ disk, mirror }: Mirrored): readonly Step[] {
  const kept = new Set(mirror.backing.map((image) => image.index));
  const former = layersOf(disk);
  return former.flatMap((layer, i): readonly Step[] => {
    if (kept.has(layer.index)) return [];
    const next = former[i + 1];
    return [
      {
        kind: 'close-node',
        options: blockdevOptions(layer, {
          driver: disk.driver,
          readOnly: i > 0,
          backing: next === undefined ? null : formatNode(next),
        }),
      },
    ];
  });
}

/** Ends mirrors without switching. A sealed one (soft cancel of a READY copy) is left an exact point in time. */
function dropPlan(
  request: MirrorEnd,
  mirrors: readonly Mirrored[],
  how: 'force' | 'seal',
  operation: OperationName,
  also: readonly Change[],
): Plan {
  const changes: readonly Change[] = [
    ...mirrors.flatMap((m) => [
      { change: 'mirror-end' as const, target: m.disk.target },
      ...abandoned(request, m),
    ]),
    ...also,
    ...mirrors.map((m) => ended(m, 'canceled')),
  ];
  const close = mirrors.map(({ disk, mirror }): Step => {
    const layer = present(indexed([mirror.image])[0], 'a mirror is an image');
    return {
      kind: 'close-node',
      options: blockdevOptions(layer, {
        driver: disk.driver,
        readOnly: false,
        backing: formatNode(present(layersOf(disk)[1], 'a mirror stands over a base')),
      }),
    };
  });
  return {
    operation,
    domain: request.record.uuid,
    domainName: request.record.name,
    steps: [
      ...mirrors.map(({ mirror }): Step => ({
        kind: how === 'seal' ? 'seal-job' : 'cancel-job',
        jobId: mirror.jobId,
      })),
      ...close,
      { kind: 'record', changes },
    ],
    commitAt: 0,
  };
}

const invalid = (text: string, next: readonly string[] = []): StateError =>
  new StateError('OPERATION_INVALID', text, { next });
