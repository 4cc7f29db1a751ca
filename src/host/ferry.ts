// The host as the HTTP API and the `ferry` command see it.

import { hostname } from 'node:os';
import { localPath, showSource } from '../block/layer.js';
import type { Image } from '../block/layer.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import type { DomainRecord } from '../domain/record.js';
import { windowOf } from '../domain/undo-window.js';
import { mirrorsOf } from '../plan/mirror-end.js';
import { NotFoundError, StateError, messageOf } from '../std/errors.js';
import { doctor } from './doctor/doctor.js';
import { blockJobAbort, blockJobInfo } from './blockjob-verbs.js';
import type { EventLog } from './event-log.js';
import type {
  DiskView,
  DomainSummary,
  FerryHost,
  ImageView,
  OperationView,
  Role,
  SnapshotView,
} from './ferry-host.js';
import { gcList, gcRemove } from './gc/gc.js';
import type { Host } from './host.js';
import {
  createDomain,
  defineDomain,
  destroyDomain,
  signalDomain,
  startDomain,
  undefineDomain,
} from './domain-verbs.js';
import { problemText } from './keeper.js';
import { MovePlans, applyMove, makeMovePlan, startMove } from './move-verbs.js';
import { paceOperation } from './pace-verbs.js';
import { pivotOperation } from './pivot-verbs.js';
import { operationRecord } from './operation-record.js';
import { operationView } from './operations.js';
import { takeBack } from './owed.js';
import { rotateMove } from './rotate.js';
import { sealDomain } from './seal.js';
import { keepSource } from './source-verbs.js';
import { closeWindow, undoMove } from './undo-verbs.js';
import { resolveOperation } from './resolve-verbs.js';
import { createSnapshot, deleteSnapshot, layerPath } from './snapshot-verbs.js';
import { domainXml } from './xml.js';

type DomainVerbs =
  | 'version'
  | 'listDomains'
  | 'showDomain'
  | 'define'
  | 'createXml'
  | 'start'
  | 'seal'
  | 'shutdown'
  | 'destroy'
  | 'undefine'
  | 'dumpXml';
type OperationVerbs =
  | 'startMove'
  | 'planMove'
  | 'plan'
  | 'applyPlan'
  | 'operations'
  | 'operation'
  | 'showOperation'
  | 'operationRecord'
  | 'waitOperation'
  | 'cancelOperation'
  | 'rotateOperation'
  | 'paceOperation'
  | 'pivotOperation'
  | 'keepSource'
  | 'undoOperation'
  | 'resolveOperation';

export function ferryHost(host: Host, log: EventLog, version: string): FerryHost {
  return {
    ...domainVerbs(host, version),
    ...diskVerbs(host),
    ...operationVerbs(host),
    events: (after, listener) => log.follow(after, listener),
  };
}

function domainVerbs(host: Host, version: string): Pick<FerryHost, DomainVerbs> {
  const uuidOf = (name: string): string => host.resolve(name).uuid;
  const summary = (record: DomainRecord): DomainSummary => summaryOf(host, record);
  const { major, minor, micro } = host.emulator.version;
  return {
    version: () => ({
      blockferry: version,
      qemu: `${major}.${minor}.${micro}`,
      hostname: hostname(),
    }),
    listDomains: () => host.known.all().map(summary),
    showDomain: (name) => summary(host.resolve(name)),
    define: async (xml) => summary(await defineDomain(host, xml)),
    createXml: async (xml, how) =>
      summary(await createDomain(host, xml, { ...how, resetNvram: false, mirrors: 'now' })),
    start: async (name, { paused, mirrorLater }) =>
      summary(
        await startDomain(host, uuidOf(name), {
          paused,
          resetNvram: false,
          mirrors: mirrorLater ? 'later' : 'now',
        }),
      ),
    async seal(name, { timeoutSeconds }) {
      const record = host.resolve(name);
      const before = summary(record);
      await sealDomain(host, record.uuid, timeoutSeconds * 1000);
      const after = host.known.find(record.uuid);
      // A transient one is gone.
      return after === null ? { ...before, id: null, state: 'shutoff' } : summary(after);
    },
    shutdown: (name) => signalDomain(host, uuidOf(name), 'shutdown'),
    destroy: (name) => destroyDomain(host, uuidOf(name)),
    undefine: (name, how) => undefineDomain(host, uuidOf(name), how),
    dumpXml: (name, { inactive }) => domainXml(host.resolve(name), inactive),
  };
}

function summaryOf(host: Host, record: DomainRecord): DomainSummary {
  const { state, reason } = record.live?.state ?? record.lastState;
  const definition = record.live?.definition ?? record.persistent;
  return {
    name: record.name,
    uuid: record.uuid,
    id: record.live?.id ?? null,
    state,
    reason,
    persistent: record.persistent !== null,
    autostart: record.autostart,
    disks: definition?.disks.map((disk) => disk.target) ?? [],
    operations: host.operations
      .all()
      .filter((operation) => operation.domain === record.uuid && operation.endedAtMs === null)
      .map((operation) => operation.id),
    owed: owedText(record),
  };
}

/** What of its mirrors is to be taken up again, in one line. */
function owedText({ owed, live }: DomainRecord): string | null {
  if (owed.length === 0) return null;
  const mirrors = owed.map(
    ({ record, image }) => `the mirror of ${record.target} on ${showSource(image.source)}`,
  );
  const when = live === null ? 'at its next start' : 'once its destination is back';
  return `${mirrors.join(' and ')} ended with its QEMU and ${mirrors.length === 1 ? 'is' : 'are'} taken up again ${when}; the source is complete`;
}

type DiskVerbs =
  | 'chain'
  | 'doctor'
  | 'gcList'
  | 'gcRemove'
  | 'createSnapshot'
  | 'listSnapshots'
  | 'deleteSnapshot'
  | 'blockJob'
  | 'endBlockJob';

function diskVerbs(host: Host): Pick<FerryHost, DiskVerbs> {
  const uuidOf = (name: string): string => host.resolve(name).uuid;
  return {
    chain: (name) => chainOf(host, host.resolve(name)),
    doctor: (name) => doctor(host, name),
    gcList: () => gcList(host),
    gcRemove: (paths) => gcRemove(host, paths),
    async createSnapshot(name, xml, flags) {
      const uuid = uuidOf(name);
      const made = await createSnapshot(host, uuid, xml, {
        redefine: false,
        current: false,
        halt: false,
        quiesce: false,
        live: false,
        validate: false,
        ...flags,
      });
      return (
        snapshotsOf(host.known.domain(uuid)).find((view) => view.name === made) ?? unkept(made)
      );
    },
    listSnapshots: (name) => snapshotsOf(host.resolve(name)),
    async deleteSnapshot(name, snapshot, mode) {
      await deleteSnapshot(host, uuidOf(name), snapshot, {
        children: false,
        childrenOnly: false,
        metadataOnly: mode === 'metadata',
        reopenMirror: mode === 'reopen-mirror',
        removeMirror: mode === 'remove-mirror',
      });
    },
    async blockJob(name, disk) {
      const info = await blockJobInfo(host, uuidOf(name), disk);
      if (info === null) return null;
      const { current, end, type, bandwidthBytesPerSecond } = info;
      return {
        target: disk,
        type,
        ready: current === end && end > 0n,
        copiedBytes: current,
        totalBytes: end,
        bandwidthBytesPerSecond,
      };
    },
    endBlockJob: (name, disk, how) =>
      blockJobAbort(host, uuidOf(name), disk, { async: false, pivot: how === 'pivot' }),
  };
}

/** NO_METADATA: a name, and nothing that keeps it. */
const unkept = (name: string): SnapshotView => ({
  name,
  parent: null,
  current: false,
  state: 'disk-snapshot',
  creationTimeSeconds: 0,
  description: null,
  disks: [],
});

function snapshotsOf(record: DomainRecord): readonly SnapshotView[] {
  return record.snapshots.map((snapshot) => ({
    name: snapshot.name,
    parent: snapshot.parent,
    current: record.currentSnapshot === snapshot.name,
    state: snapshot.state,
    creationTimeSeconds: snapshot.creationTimeSeconds,
    description: snapshot.description,
    disks: snapshot.disks.map(({ name, image, mirror }) => ({
      target: name,
      source: layerPath(image),
      mirror: layerPath(mirror),
    })),
  }));
}

async function chainOf(host: Host, record: DomainRecord): Promise<readonly DiskView[]> {
  const definition = record.live?.definition ?? record.persistent;
  await host.ages.look(record.uuid);
  return await Promise.all((definition?.disks ?? []).map((disk) => diskView(host, record, disk)));
}

async function diskView(host: Host, record: DomainRecord, disk: Disk): Promise<DiskView> {
  const recorded = record.chains.find((chain) => chain.target === disk.target)?.images;
  const images = disk.backing === null && recorded !== undefined ? recorded : imagesOf(disk);
  const roles = host.known
    .roles()
    .filter((role) => role.domain === record.uuid && role.target === disk.target);
  return {
    target: disk.target,
    device: disk.device,
    readonly: disk.readonly,
    chain: await Promise.all(
      images.map((image, i) => imageView(host, image, i === 0 ? 'live' : 'sealed')),
    ),
    mirror: await mirrorView(host, record, disk),
    former: roles.map((role) => ({
      path: role.path,
      role: role.role,
      sinceSeconds: role.sinceSeconds,
      older: role.role === 'stale' ? host.ages.of(role) : null,
    })),
  };
}

async function imageView(host: Host, image: Image, role: Role): Promise<ImageView> {
  const path = localPath(image.source);
  const view = { path: showSource(image.source), format: image.format, index: image.index, role };
  if (path === null)
    return { ...view, virtualSizeBytes: null, actualSizeBytes: null, problem: null };
  try {
    const info = await host.context.images.info(path, image.format);
    if (info === null)
      return { ...view, virtualSizeBytes: null, actualSizeBytes: null, problem: 'no such file' };
    return {
      ...view,
      virtualSizeBytes: info.virtualSizeBytes,
      actualSizeBytes: info.actualSizeBytes,
      problem: null,
    };
  } catch (error) {
    return { ...view, virtualSizeBytes: null, actualSizeBytes: null, problem: messageOf(error) };
  }
}

const mirrorStates = { no: 'copying', yes: 'ready', abort: 'aborting', pivot: 'pivoting' } as const;

async function mirrorView(
  host: Host,
  record: DomainRecord,
  disk: Disk,
): Promise<DiskView['mirror']> {
  const found = mirrorsOf(record).find((mirrored) => mirrored.disk.target === disk.target);
  if (found === undefined) return null;
  const info = await blockJobInfo(host, record.uuid, disk.target);
  const move = host.operations
    .all()
    .find(
      ({ plan, domain, endedAtMs }) =>
        domain === record.uuid &&
        endedAtMs === null &&
        plan.move?.ways.some(({ target }) => target === disk.target) === true,
    );
  const window = windowOf(record, disk.target);
  return {
    state: mirrorStates[found.mirror.ready],
    problem: found.record.problem === null ? null : problemText[found.record.problem],
    copiedBytes: info?.current ?? 0n,
    totalBytes: info?.end ?? 0n,
    chain: await Promise.all(
      [found.mirror.image, ...found.mirror.backing].map((image, i) =>
        imageView(host, image, i === 0 ? 'mirror' : 'sealed'),
      ),
    ),
    owner: {
      snapshot: found.record.snapshot,
      made: found.record.made,
      move: found.record.move ? (move?.id ?? null) : null,
    },
    wayBack:
      window === null
        ? null
        : { operation: window.operation, until: new Date(window.untilMs).toISOString() },
  };
}

function operationVerbs(host: Host): Pick<FerryHost, OperationVerbs> {
  const view = (id: number): OperationView => operationView(host, host.operations.get(id));
  const plans = new MovePlans();
  const begun = async ({ operation }: { readonly operation: number }): Promise<OperationView> => {
    await host.operations.refresh(operation);
    return view(operation);
  };
  return {
    startMove: async (name, request) =>
      await begun(await startMove(host, host.resolve(name).uuid, request)),
    planMove: async (name, request) =>
      await makeMovePlan(host, plans, host.resolve(name).uuid, request),
    plan: (hash) => plans.get(hash).described,
    applyPlan: async (hash) => await begun(await applyMove(host, plans, hash)),
    operations({ domain, all }) {
      const uuid = domain === null ? null : host.resolve(domain).uuid;
      return host.operations
        .all()
        .filter((one) => (uuid === null || one.domain === uuid) && (all || one.endedAtMs === null))
        .map((one) => operationView(host, one));
    },
    operation: view,
    async showOperation(id) {
      await host.ages.look(host.operations.get(id).domain);
      return view(id);
    },
    async operationRecord(id) {
      const { journal } = host.known;
      // The journal has more of them than are kept at hand.
      return await operationRecord(
        journal,
        (await journal.operation(id)) ?? host.operations.get(id),
      );
    },
    waitOperation: (id, signal) => waitOperation(host, id, signal),
    cancelOperation: (id) => cancelOperation(host, id),
    paceOperation: (id, change) => paceOperation(host, id, change),
    pivotOperation: (id) => pivotOperation(host, id),
    keepSource: (id, keepSeconds) => keepSource(host, id, keepSeconds),
    undoOperation: async (id, { close }) =>
      await begun({ operation: close ? await closeWindow(host, id) : await undoMove(host, id) }),
    rotateOperation: (id) => rotateMove(host, id),
    async resolveOperation(id, answer) {
      await resolveOperation(host, id, answer);
      return view(id);
    },
  };
}

async function waitOperation(host: Host, id: number, signal: AbortSignal): Promise<OperationView> {
  const running = host.running.get(id);
  if (running !== undefined) {
    const gone = new Promise<null>((resolve) =>
      signal.addEventListener('abort', () => resolve(null)),
    );
    await Promise.race([running.settled, gone]);
    await host.operations.refresh(id);
  }
  const interruption = host.interrupted.errorOf(id);
  if (interruption !== null) throw interruption;
  const record = host.operations.get(id);
  if (record.outcome === 'rolled-back') {
    throw new StateError(
      'OPERATION_ABORTED',
      `${record.kind} ${record.domainName}: ${record.reason ?? 'undone'}; ${
        record.plan.undo === undefined
          ? 'everything is as it was'
          : 'the guest stays where it is, and the way back is closed'
      }`,
      {
        operation: id,
        next: [`ferry ops show ${id}`],
      },
    );
  }
  return operationView(host, record);
}

async function cancelOperation(host: Host, id: number): Promise<void> {
  await host.operations.refresh(id);
  const running = host.running.get(id);
  const record = host.operations.get(id);
  if (record.endedAtMs !== null)
    throw new StateError(
      'OPERATION_INVALID',
      `cancel operation ${id}: it has ended (${record.outcome})`,
    );
  // Its end is told by `ops wait`.
  if (running === undefined && record.waiting !== null) return void takeBack(host, record);
  if (running === undefined)
    throw new NotFoundError(
      'NO_OPERATION',
      `cancel operation ${id}: it does not run; 'ferry ops show ${id}' says what it waits for`,
    );
  const commit = record.steps[record.commitAt - 1]?.mark;
  if (record.commitAt === 0 || commit === 'done') {
    throw new StateError(
      'OPERATION_INVALID',
      `cancel operation ${id}: it is past its commit step and will be finished`,
      { operation: id },
    );
  }
  running.abort.abort();
}
