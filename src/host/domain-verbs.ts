// The verbs of a domain's life: define, undefine, create, start, stop and the small ones between.

import type { UndoWindow } from '../domain/undo-window.js';
import { assignDevices } from '../domain/assign.js';
import type { Definition, ParseContext } from '../domain/definition.js';
import { parseDefinition } from '../domain/parse.js';
import type { DomainRecord, LiveRecord } from '../domain/record.js';
import { withKnownCreds } from '../domain/tls-creds.js';
import {
  planAutostart,
  planDefine,
  planResume,
  planSignal,
  planStart,
  planStop,
  planSuspend,
  planUndefine,
} from '../plan/lifecycle.js';
import { isRefusal, needLive, refuse } from '../plan/refuse.js';
import type { OperationRecord } from '../journal/journal.js';
import type { Plan } from '../plan/step.js';
import { FerryError, StateError, messageOf } from '../std/errors.js';
import { chainsOf, checkRoles, resolveChains } from './chains.js';
import { filesOf } from './context.js';
import { accelObstacle, canonicalMachine } from './emulator.js';
import type { Host } from './host.js';
import { launchPlan } from './launch.js';
import { checkForeignOffline, checkRedefined, heldText, isOpenOffline } from './offline.js';
import type { MirrorsAtStart } from './owed.js';
import { openMoves, resumeMoves, rolesOfMoves, takeMovesBack, takeUp } from './owed.js';
import { checkTargets } from './targets.js';

/** Facts of this host that a definition is completed with. */
export function parseContext(host: Host): ParseContext {
  const { config } = host.context;
  return {
    newUuid: config.newUuid,
    newMac: () => newMac(config.newUuid()),
    emulator: config.emulator,
    canonicalMachine: (machine) => canonicalMachine(host.emulator, machine),
  };
}

const parse = (host: Host, xml: string): Definition =>
  assignDevices(parseDefinition(xml, parseContext(host)));

/**
 * A transient domain that ended in the middle of a move and is created again, without a UUID of its own, on the live
 * image of that move, is that domain: the move goes on (law 13).
 */
async function parseTransient(host: Host, xml: string): Promise<Definition> {
  let hasOwnUuid = true;
  const context = parseContext(host);
  const newUuid = (): string => {
    hasOwnUuid = false;
    return context.newUuid();
  };
  const definition = assignDevices(parseDefinition(xml, { ...context, newUuid }));
  if (hasOwnUuid || host.known.named(definition.name) !== null) return definition;
  const move = (await openMoves(host)).find(
    ({ plan }) => plan.domainName === definition.name && host.known.find(plan.domain) === null,
  );
  return move === undefined ? definition : { ...definition, uuid: move.plan.domain };
}

/** QEMU's own prefix, as libvirt uses it (virDomainNetGenerateMAC). */
const newMac = (uuid: string): string =>
  `52:54:00:${uuid.slice(0, 2)}:${uuid.slice(2, 4)}:${uuid.slice(4, 6)}`;

/** Name and uuid each belong to one domain (virDomainObjListAddLocked). */
function checkIdentity(host: Host, definition: Definition): void {
  const byUuid = host.known.find(definition.uuid);
  if (byUuid !== null && byUuid.name !== definition.name) {
    throw taken(`domain '${byUuid.name}' is already defined with uuid ${definition.uuid}`);
  }
  const named = host.known.named(definition.name);
  if (named !== null && named.uuid !== definition.uuid) {
    throw taken(`domain '${definition.name}' already exists with uuid ${named.uuid}`);
  }
}

/** VIR_ERR_OPERATION_FAILED for a request: nothing ran, but the number is libvirt's. */
class NameTakenError extends FerryError {
  constructor(message: string) {
    super('OPERATION_FAILED', message, { from: 'domain' });
  }
}
const taken = (text: string): NameTakenError => new NameTakenError(text);

export async function defineDomain(host: Host, xml: string): Promise<DomainRecord> {
  const definition = parse(host, xml);
  checkIdentity(host, definition);
  const chains = await chainsOf(host.context.images, definition);
  await host.operate(definition.uuid, async (known) => {
    checkIdentity(host, definition);
    await checkRedefined(host, definition.uuid, definition);
    return planDefine(withKnownCreds(definition, known), chains, known);
  });
  return host.known.domain(definition.uuid);
}

export interface Undefine {
  readonly snapshotsMetadata: boolean;
  /** What becomes of the UEFI variables; null: not said, which is refused where there are some. */
  readonly nvram: 'remove' | 'keep' | null;
}

export async function undefineDomain(
  host: Host,
  uuid: string,
  { snapshotsMetadata, nvram }: Undefine,
): Promise<void> {
  // With it ends what waits for its next start, which will not come.
  if (snapshotsMetadata && host.known.domain(uuid).live === null) await takeMovesBack(host, uuid);
  await host.operate(uuid, async (known) => {
    const record = known ?? host.known.domain(uuid);
    if (record.persistent === null) return refuse(invalid('cannot undefine transient domain'));
    await checkRedefined(host, uuid, null);
    const [window] = record.windows ?? [];
    if (window !== undefined) return refuse(wayBackOpen(window));
    if (record.live === null && record.snapshots.length > 0 && !snapshotsMetadata) {
      return refuse(
        invalid(`cannot delete inactive domain with ${record.snapshots.length} snapshots`),
      );
    }
    if (record.live === null && record.owed.length > 0 && !snapshotsMetadata) {
      const disks = record.owed.map((owed) => owed.record.target).join(', ');
      return refuse(
        invalid(
          `cannot delete inactive domain whose mirror of ${disks} is to be taken up again; --snapshots-metadata gives it up`,
        ),
      );
    }
    const variables = nvramOf(host, record.persistent);
    if (variables === null || (await host.context.images.stat(variables)) === null)
      return planUndefine(record, null);
    if (nvram === null)
      return refuse(
        invalid(
          `cannot undefine domain with nvram; say --nvram to remove ${variables}, or --keep-nvram`,
        ),
      );
    return planUndefine(record, nvram === 'remove' ? variables : null);
  });
}

/** A domain that ends with its QEMU would leave it to nobody. */
function wayBackOpen({ operation }: UndoWindow): StateError {
  const next = [`ferry undo ${operation} --close`, `ferry undo ${operation}`];
  return new StateError(
    'OPERATION_INVALID',
    `cannot undefine a domain while the way back of operation ${operation} is open; close it ('${next[0]}') or go it ('${next[1]}') first`,
    { next },
  );
}

const nvramOf = (host: Host, { os, uuid, name }: Definition): string | null =>
  os.nvram === null ? null : (os.nvram.path ?? filesOf(host.context.config, uuid, name).nvram);

export interface StartHow {
  readonly paused: boolean;
  readonly mirrors: MirrorsAtStart;
  /** UEFI variables anew from their template. */
  readonly resetNvram: boolean;
}

/** A persistent domain (virDomainCreate). */
export async function startDomain(host: Host, uuid: string, how: StartHow): Promise<DomainRecord> {
  await settleWaiting(host, uuid);
  await host.operate(uuid, async (known) => {
    const record = known ?? host.known.domain(uuid);
    if (record.live !== null) return refuse(invalid('domain is already running'));
    if (record.persistent === null) return refuse(invalid('domain has no definition'));
    await checkSettled(host, uuid);
    return await planLaunch(host, 'start', record.persistent, record, how);
  });
  await resumeMoves(host, uuid);
  return host.known.domain(uuid);
}

/** A transient domain, or a persistent one with its definition given once more (virDomainCreateXML). */
export async function createDomain(host: Host, xml: string, how: StartHow): Promise<DomainRecord> {
  const definition = await parseTransient(host, xml);
  const { uuid, name } = definition;
  checkIdentity(host, definition);
  const claimed = host.claims.get(name);
  if (claimed !== undefined && claimed !== uuid)
    throw taken(`domain '${name}' already exists with uuid ${claimed}`);
  host.claims.set(name, uuid);
  try {
    await settleWaiting(host, uuid);
    await host.operate(uuid, async (record) => {
      checkIdentity(host, definition);
      if (record?.live != null) return refuse(invalid(`domain is already active as '${name}'`));
      await checkSettled(host, uuid);
      return await planLaunch(host, 'create', definition, record, how);
    });
  } finally {
    host.claims.delete(name);
  }
  await resumeMoves(host, uuid);
  return host.known.domain(uuid);
}

const openOf = async (host: Host, uuid: string): Promise<readonly OperationRecord[]> =>
  (await host.known.journal.openOperations()).filter(({ domain }) => domain === uuid);

/** One that waits for a person gets another try before its domain starts: with its QEMU gone the cause often is, too. */
async function settleWaiting(host: Host, uuid: string): Promise<void> {
  if (host.known.find(uuid)?.live != null) return;
  for (const operation of await openOf(host, uuid)) {
    if (operation.attention === null || host.running.has(operation.id)) continue;
    // A start does not wait until a whole disk is copied; what it is refused with says what to do.
    if (operation.plan.offline !== undefined) continue;
    await host.resumeOperation(operation).catch((error: unknown) => {
      // If it is open still, the start that follows is refused and says why.
      host.log.warn({ operation: operation.id, error: messageOf(error) }, 'went on before a start');
    });
  }
}

/** What an operation of its last QEMU left half-way is brought to an end first: its images are not at rest before. */
async function checkSettled(host: Host, uuid: string): Promise<void> {
  const waiting = new Set((await openMoves(host)).map(({ operation }) => operation));
  const found = (await openOf(host, uuid)).find(({ id }) => !waiting.has(id));
  if (found !== undefined) throw unsettled(found);
}

/** What waits for a person has its disks half-way: nothing is built on top of that. */
export async function checkNoneWaits(host: Host, uuid: string): Promise<void> {
  const found = (await openOf(host, uuid)).find(({ attention }) => attention !== null);
  if (found !== undefined) throw unsettled(found);
}

function unsettled(operation: OperationRecord): StateError {
  const { id, kind, domainName, attention } = operation;
  const what = `operation ${id} (${kind}) of domain '${domainName}'`;
  return new StateError(
    'OPERATION_INVALID',
    attention === null
      ? isOpenOffline(operation)
        ? heldText(operation)
        : `${what} is not settled yet; wait for it ('ferry ops wait ${id}')`
      : `${what} is half done and waits for a person: ${attention}; mend that, then 'ferry ops resolve ${id} --forward', or '--back'`,
    { operation: id, next: [`ferry ops show ${id}`] },
  );
}

async function planLaunch(
  host: Host,
  operation: 'start' | 'create',
  definition: Definition,
  record: DomainRecord | null,
  how: StartHow,
) {
  const { context, known } = host;
  const obstacle = accelObstacle(host.emulator, definition.type);
  if (obstacle !== null) return refuse(obstacle);
  const roles = [...known.roles(), ...(await rolesOfMoves(host))];
  await checkRoles({ known, images: context.images, roles }, definition);
  // One given anew brings its own chain; what is recorded is of the definition that we have.
  const recorded = operation === 'start' ? (record?.chains ?? []) : [];
  const resolved = await resolveChains(context.images, definition, recorded);
  await checkRoles({ known, images: context.images, roles }, resolved);
  await checkForeignOffline(host, resolved);
  const taken = await takeUp(host, record, resolved, how.mirrors);
  const { disks, nextIndex, attach, open, told } = taken;
  const launch = await launchPlan(host, { ...resolved, disks });
  const live: LiveRecord = {
    id: await known.journal.nextDomainId(),
    pid: 0,
    startTicks: 0,
    rebooting: false,
    definition: launch.definition,
    state: { state: 'paused', reason: 'starting up' },
    nextIndex,
    mirrors: [],
  };
  return planStart(operation, {
    live,
    qemu: launch.qemu,
    nvram: launch.nvram === null ? null : { ...launch.nvram, reset: how.resetNvram },
    paused: how.paused,
    attach,
    open,
    told,
    lastState: record?.lastState ?? { state: 'shutoff', reason: 'unknown' },
    nowSeconds: host.nowSeconds,
  });
}

export async function destroyDomain(host: Host, uuid: string): Promise<void> {
  await host.operate(uuid, (known) => {
    const record = known ?? host.known.domain(uuid);
    const live = needLive(record);
    if (isRefusal(live)) return live;
    return planStop(record, live, 'destroyed', {
      pidFile: filesOf(host.context.config, uuid, record.name).pidFile,
      nowSeconds: host.nowSeconds,
      sealMs: null,
    });
  });
}

export async function suspendDomain(host: Host, uuid: string): Promise<void> {
  await host.operate(uuid, async (known) => {
    const record = known ?? host.known.domain(uuid);
    const live = needLive(record);
    if (isRefusal(live)) return live;
    // As libvirt: suspending what is suspended is no error, and no news.
    if (live.state.state === 'paused') return noChange(record, 'suspend');
    if (live.state.state !== 'running')
      return refuse(invalid(`domain is in state '${live.state.state}' and cannot be suspended`));
    await checkTargets(host.context.images, record, 'suspend');
    return planSuspend(record, live);
  });
}

export async function resumeDomain(host: Host, uuid: string): Promise<void> {
  await host.operate(uuid, (known) => {
    const record = known ?? host.known.domain(uuid);
    const live = needLive(record);
    if (isRefusal(live)) return live;
    if (live.state.state === 'running') return refuse(invalid('domain is already running'));
    if (live.state.state !== 'paused')
      return refuse(invalid(`domain is in state '${live.state.state}' and cannot be resumed`));
    return planResume(record, live);
  });
}

const noChange = (record: DomainRecord, operation: 'suspend'): Plan => ({
  operation,
  domain: record.uuid,
  domainName: record.name,
  steps: [],
  commitAt: 0,
});

export async function signalDomain(
  host: Host,
  uuid: string,
  verb: 'shutdown' | 'reboot' | 'reset',
): Promise<void> {
  await host.operate(uuid, (known) => {
    const record = known ?? host.known.domain(uuid);
    const live = needLive(record);
    if (isRefusal(live)) return live;
    return planSignal(record, live, verb);
  });
}

export async function setAutostart(host: Host, uuid: string, on: boolean): Promise<void> {
  await host.operate(uuid, (known) => {
    const record = known ?? host.known.domain(uuid);
    if (record.persistent === null)
      return refuse(invalid('cannot set autostart for transient domain'));
    return planAutostart(record, on);
  });
}

const invalid = (text: string): StateError => new StateError('OPERATION_INVALID', text);
