// The verbs of a domain's life: define, undefine, create, start, stop and the small ones between.

import type { Layer } from '../block/layer.js';
import { assignDevices } from '../domain/assign.js';
import type { Definition, ParseContext } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import { imagesOf } from '../domain/disk.js';
import { parseDefinition } from '../domain/parse.js';
import type { DomainRecord, LiveRecord, RecordedChain } from '../domain/record.js';
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
import type { Plan } from '../plan/step.js';
import { FerryError, StateError } from '../std/errors.js';
import { chainsOf, checkOwed, checkRoles, resolveChains } from './chains.js';
import { filesOf } from './context.js';
import { canonicalMachine } from './emulator.js';
import type { Host } from './host.js';
import { launchPlan } from './launch.js';

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
  await host.operate(definition.uuid, (known) => {
    checkIdentity(host, definition);
    return planDefine(definition, chains, known);
  });
  return host.known.domain(definition.uuid);
}

export interface Undefine {
  readonly snapshotsMetadata: boolean;
}

export async function undefineDomain(
  host: Host,
  uuid: string,
  { snapshotsMetadata }: Undefine,
): Promise<void> {
  await host.operate(uuid, (known) => {
    const record = known ?? host.known.domain(uuid);
    if (record.persistent === null) return refuse(invalid('cannot undefine transient domain'));
    if (record.live === null && record.snapshots.length > 0 && !snapshotsMetadata) {
      return refuse(
        invalid(`cannot delete inactive domain with ${record.snapshots.length} snapshots`),
      );
    }
    return planUndefine(record);
  });
}

export interface StartHow {
  readonly paused: boolean;
}

/** A persistent domain (virDomainCreate). */
export async function startDomain(host: Host, uuid: string, how: StartHow): Promise<DomainRecord> {
  await host.operate(uuid, async (known) => {
    const record = known ?? host.known.domain(uuid);
    if (record.live !== null) return refuse(invalid('domain is already running'));
    if (record.persistent === null) return refuse(invalid('domain has no definition'));
    checkOwed(record);
    await checkSettled(host, uuid);
    return await planLaunch(host, 'start', record.persistent, record.chains, how);
  });
  return host.known.domain(uuid);
}

/** A transient domain, or a persistent one with its definition given once more (virDomainCreateXML). */
export async function createDomain(host: Host, xml: string, how: StartHow): Promise<DomainRecord> {
  const definition = parse(host, xml);
  const { uuid, name } = definition;
  checkIdentity(host, definition);
  const claimed = host.claims.get(name);
  if (claimed !== undefined && claimed !== uuid)
    throw taken(`domain '${name}' already exists with uuid ${claimed}`);
  host.claims.set(name, uuid);
  try {
    await host.operate(uuid, async (record) => {
      checkIdentity(host, definition);
      if (record?.live != null) return refuse(invalid(`domain is already active as '${name}'`));
      if (record !== null) checkOwed(record);
      await checkSettled(host, uuid);
      return await planLaunch(host, 'create', definition, [], how);
    });
  } finally {
    host.claims.delete(name);
  }
  return host.known.domain(uuid);
}

/** What an operation of its last QEMU left half-way is brought to an end first: its images are not at rest before. */
async function checkSettled(host: Host, uuid: string): Promise<void> {
  const open = await host.known.journal.openOperations();
  const found = open.find((operation) => operation.domain === uuid);
  if (found === undefined) return;
  throw new StateError(
    'OPERATION_INVALID',
    `operation ${found.id} (${found.kind}) of domain '${found.domainName}' is not settled yet; wait for it ('ferry ops wait ${found.id}')`,
    { operation: found.id, next: [`ferry ops show ${found.id}`] },
  );
}

async function planLaunch(
  host: Host,
  operation: 'start' | 'create',
  definition: Definition,
  recorded: readonly RecordedChain[],
  how: StartHow,
) {
  const { context, known } = host;
  checkRoles(known, definition.uuid, definition);
  const resolved = await resolveChains(context.images, definition, recorded);
  checkRoles(known, definition.uuid, resolved);
  const { disks, nextIndex } = withIndexes(resolved.disks);
  const launch = await launchPlan(host, { ...resolved, disks });
  const live: LiveRecord = {
    id: await known.journal.nextDomainId(),
    pid: 0,
    startTicks: 0,
    definition: launch.definition,
    state: { state: 'paused', reason: 'starting up' },
    nextIndex,
    mirrors: [],
  };
  return planStart(operation, { live, qemu: launch.qemu, nvram: launch.nvram, paused: how.paused });
}

/** `index` of every image, counting up over the disks in their order; never given twice in one life (virDomain's nodenameindex). */
function withIndexes(disks: readonly Disk[]): {
  readonly disks: readonly Disk[];
  readonly nextIndex: number;
} {
  let nextIndex = 1;
  const indexed = disks.map((disk): Disk => {
    const layers: readonly Layer[] = imagesOf(disk).map((image) => ({
      ...image,
      index: nextIndex++,
    }));
    const top = layers[0];
    return top === undefined ? disk : { ...disk, index: top.index, backing: layers.slice(1) };
  });
  return { disks: indexed, nextIndex };
}

export async function destroyDomain(host: Host, uuid: string): Promise<void> {
  await host.operate(uuid, (known) => {
    const record = known ?? host.known.domain(uuid);
    const live = needLive(record);
    if (isRefusal(live)) return live;
    return planStop(record, live, 'destroyed', {
      pidFile: filesOf(host.context.config, uuid, record.name).pidFile,
      nowSeconds: host.nowSeconds,
    });
  });
}

export async function suspendDomain(host: Host, uuid: string): Promise<void> {
  await host.operate(uuid, (known) => {
    const record = known ?? host.known.domain(uuid);
    const live = needLive(record);
    if (isRefusal(live)) return live;
    // As libvirt: suspending what is suspended is no error, and no news.
    if (live.state.state === 'paused') return noChange(record, 'suspend');
    if (live.state.state !== 'running')
      return refuse(invalid(`domain is in state '${live.state.state}' and cannot be suspended`));
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
    // ACPI knows one button: what the guest's poweroff turns into is decided when it comes (libvirt's fake reboot).
    if (verb === 'reboot') host.rebooting.add(uuid);
    else host.rebooting.delete(uuid);
    return planSignal(record, verb);
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
