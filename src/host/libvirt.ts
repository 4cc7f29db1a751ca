// The host in libvirt's nouns: what the RPC door is given. Translates; the verbs stand elsewhere.

import { statSync } from 'node:fs';
import { cpus, hostname, totalmem } from 'node:os';
import { localPath } from '../block/layer.js';
import { printCapabilities, printDomainCapabilities } from '../domain/capabilities.js';
import { findDisk } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import type { DomainRecord } from '../domain/record.js';
import { printXml } from '../xml/print.js';
import type { JsonObject, JsonValue } from '../qapi/json.js';
import { isObject, parseJson, stringifyJson } from '../qapi/json.js';
import { CommandError } from '../qmp/monitor.js';
import { NotFoundError, RequestError, StateError, SystemError } from '../std/errors.js';
import { blockJobAbort, blockJobInfo, blockJobSetSpeed } from './blockjob-verbs.js';
import type { Told } from './context.js';
import { diskStats, sumOfStats } from './disk-stats.js';
import {
  createDomain,
  defineDomain,
  destroyDomain,
  resumeDomain,
  setAutostart,
  signalDomain,
  startDomain,
  suspendDomain,
  undefineDomain,
} from './domain-verbs.js';
import type { Undefine } from './domain-verbs.js';
import { canonicalMachine, hasKvm } from './emulator.js';
import { sizesOf } from './look.js';
import type { Host } from './host.js';
import type {
  DomainFacts,
  DomainRef,
  DomainVerbs,
  EmulatorChoice,
  HostEvent,
  LibvirtHost,
  NodeInfo,
  NodeVerbs,
  UndefineOptions,
  SnapshotVerbs,
} from './libvirt-host.js';
import { cpuTimeNs } from './process.js';
import { createSnapshot, deleteSnapshot, snapshotXml } from './snapshot-verbs.js';
import { domainXml } from './xml.js';

/** The libvirt whose behaviour this is; clients gate features on it. */
const LIBRARY_VERSION = 9_000_000n;

export function libvirtHost(host: Host): LibvirtHost {
  return {
    ...nodeVerbs(host),
    ...lookups(host),
    ...domainVerbs(host),
    ...blockVerbs(host),
    ...snapshotVerbs(host),
    ...eventVerbs(host),
  };
}

function nodeVerbs(host: Host): NodeVerbs {
  const { major, minor, micro } = host.emulator.version;
  return {
    hostname: () => hostname(),
    uri: () => 'qemu:///system',
    versions: () => ({
      library: LIBRARY_VERSION,
      hypervisor: BigInt(major * 1_000_000 + minor * 1000 + micro),
    }),
    capabilities: () => capabilities(host),
    domainCapabilities: (choice) => domainCapabilities(host, choice),
    nodeInfo,
    maxVcpus: () => MAX_VCPUS,
  };
}

/** What QEMU's `pc` machine takes. */
const MAX_VCPUS = 255;

function nodeInfo(): NodeInfo {
  const all = cpus();
  return {
    model: 'x86_64',
    memoryKiB: BigInt(Math.floor(totalmem() / 1024)),
    cpus: all.length,
    mhz: all[0]?.speed ?? 0,
    numaNodes: 1,
    socketsPerNode: 1,
    coresPerSocket: all.length,
    threadsPerCore: 1,
  };
}

function capabilities(host: Host): string {
  const { emulator } = host;
  return printCapabilities({
    hostUuid: host.uuid,
    arch: 'x86_64',
    cpuModel: null,
    cpus: { sockets: 1, cores: cpus().length, threads: 1 },
    memoryKib: Math.floor(totalmem() / 1024),
    emulator: emulator.binary,
    machines: emulator.machines,
    kvm: hasKvm(emulator),
  });
}

function domainCapabilities(host: Host, choice: EmulatorChoice): string {
  const { emulator } = host;
  if (choice.emulator !== null && choice.emulator !== emulator.binary) {
    throw new RequestError(
      'INVALID_ARG',
      `unsupported emulator binary '${choice.emulator}'; this host runs ${emulator.binary}`,
    );
  }
  if (choice.arch !== null && choice.arch !== 'x86_64')
    throw new RequestError('INVALID_ARG', `unknown architecture '${choice.arch}'`);
  const machine = canonicalMachine(emulator, choice.machine ?? 'pc');
  if (machine === null)
    throw new RequestError(
      'INVALID_ARG',
      `the machine '${choice.machine}' is not supported by emulator '${emulator.binary}'`,
    );
  const virtType = choice.virtType ?? (hasKvm(emulator) ? 'kvm' : 'qemu');
  if (virtType !== 'kvm' && virtType !== 'qemu')
    throw new RequestError('INVALID_ARG', `unknown virttype: ${virtType}`);
  return printDomainCapabilities({
    emulator: emulator.binary,
    arch: 'x86_64',
    machine,
    virtType,
    maxVcpus: MAX_VCPUS,
  });
}

export const refOf = (record: DomainRecord): DomainRef => ({
  name: record.name,
  uuid: record.uuid,
  id: record.live?.id ?? -1,
});

const factsCache = new WeakMap<DomainRecord, DomainFacts>();

/** A record never changes, so what follows from it is worked out once. */
function factsOf(record: DomainRecord): DomainFacts {
  const cached = factsCache.get(record);
  if (cached !== undefined) return cached;
  const definition = record.live?.definition ?? record.persistent;
  if (definition === null || definition === undefined)
    throw new NotFoundError('NO_DOMAIN', `domain '${record.name}' is going`);
  const facts: DomainFacts = {
    ref: refOf(record),
    state: record.live?.state ?? record.lastState,
    persistent: record.persistent !== null,
    updated: false,
    autostart: record.autostart,
    osType: 'hvm',
    maxMemoryKiB: BigInt(definition.memoryKib),
    memoryKiB: BigInt(record.live === null ? definition.memoryKib : definition.currentMemoryKib),
    vcpus: definition.currentVcpus ?? definition.vcpus,
    maxVcpus: definition.vcpus,
    hasSnapshots: record.snapshots.length > 0,
    taints: definition.qemuArgs.length > 0 ? ['tainted: custom-argv'] : [],
  };
  factsCache.set(record, facts);
  return facts;
}

function lookups(
  host: Host,
): Pick<DomainVerbs, 'domains' | 'domainByUuid' | 'domainByName' | 'domainById'> {
  const { known } = host;
  return {
    domains: () => known.all().map(factsOf),
    domainByUuid: (uuid) => factsOf(known.domain(uuid)),
    domainByName(name) {
      const record = known.named(name);
      if (record === null)
        throw new NotFoundError('NO_DOMAIN', `no domain with matching name '${name}'`);
      return factsOf(record);
    },
    domainById(id) {
      const record = known.all().find((one) => one.live?.id === id);
      if (record === undefined)
        throw new NotFoundError('NO_DOMAIN', `no domain with matching id ${id}`);
      return factsOf(record);
    },
  };
}

type RestOfDomainVerbs = Omit<
  DomainVerbs,
  'domains' | 'domainByUuid' | 'domainByName' | 'domainById'
>;

function domainVerbs(host: Host): RestOfDomainVerbs {
  const { known } = host;
  return {
    cpuTimeNs: (uuid) => cpuTimeNs(known.domain(uuid).live?.pid ?? 0),
    domainXml: (uuid, { inactive }) => domainXml(known.domain(uuid), inactive),
    domainMetadata: (uuid, kind, namespace, affects) =>
      metadata(known.domain(uuid), kind, namespace, affects.config),
    defineDomain: async (xml) => refOf(await defineDomain(host, xml)),
    createDomain: async (xml, { paused, resetNvram }) =>
      refOf(await createDomain(host, xml, { paused, resetNvram, mirrors: 'now' })),
    startDomain: async (uuid, { paused, resetNvram }) =>
      refOf(await startDomain(host, uuid, { paused, resetNvram, mirrors: 'now' })),
    undefineDomain: (uuid, options) => undefineDomain(host, uuid, undefineHow(options)),
    shutdownDomain: (uuid) => signalDomain(host, uuid, 'shutdown'),
    rebootDomain: (uuid) => signalDomain(host, uuid, 'reboot'),
    resetDomain: (uuid) => signalDomain(host, uuid, 'reset'),
    suspendDomain: (uuid) => suspendDomain(host, uuid),
    resumeDomain: (uuid) => resumeDomain(host, uuid),
    destroyDomain: (uuid) => destroyDomain(host, uuid),
    setAutostart: (uuid, on) => setAutostart(host, uuid, on),
    monitorCommand: (uuid, command, { hmp }) => monitorCommand(host, uuid, command, hmp),
  };
}

function undefineHow({ snapshotsMetadata, nvram, keepNvram }: UndefineOptions): Undefine {
  if (nvram && keepNvram) {
    throw new RequestError(
      'INVALID_ARG',
      "Flags 'VIR_DOMAIN_UNDEFINE_NVRAM' and 'VIR_DOMAIN_UNDEFINE_KEEP_NVRAM' are mutually exclusive",
    );
  }
  return { snapshotsMetadata, nvram: nvram ? 'remove' : keepNvram ? 'keep' : null };
}

function metadata(
  record: DomainRecord,
  kind: 'description' | 'title' | 'element',
  namespace: string | null,
  config: boolean,
): string {
  const definition =
    (config ? record.persistent : null) ?? record.live?.definition ?? record.persistent;
  const none = (what: string): NotFoundError =>
    new NotFoundError('NO_DOMAIN_METADATA', `Requested metadata element is not present: ${what}`, {
      from: 'domain',
    });
  if (kind !== 'element') {
    const text = definition?.[kind] ?? null;
    if (text === null) throw none(kind);
    return text;
  }
  const found = definition?.metadata?.children.find(
    (child) =>
      typeof child !== 'string' &&
      Object.entries(child.attributes).some(
        ([name, value]) => name.startsWith('xmlns') && value === namespace,
      ),
  );
  if (found === undefined || typeof found === 'string') throw none(namespace ?? '');
  return printXml(found);
}

async function monitorCommand(
  host: Host,
  uuid: string,
  command: string,
  hmp: boolean,
): Promise<string> {
  const monitor = await liveMonitor(host, uuid);
  if (hmp) return await monitor.execute('human-monitor-command', { 'command-line': command });
  const { execute, args } = parseCommand(command);
  try {
    return stringifyJson({ return: await monitor.executeRaw(execute, args), id: PASSED_ID });
  } catch (error) {
    // QEMU's refusal is an answer here, as libvirt passes it.
    if (error instanceof CommandError && error.reply !== null)
      return stringifyJson({ id: PASSED_ID, error: error.reply });
    throw error;
  } finally {
    // It may have changed anything.
    void host.look(uuid);
  }
}

const PASSED_ID = 'ferry-passed';

function parseCommand(text: string): { readonly execute: string; readonly args: JsonObject } {
  const bad = (why: string): RequestError =>
    new RequestError(
      'INVALID_ARG',
      `qemu-monitor-command: ${why}: ${text.slice(0, 100)}; give {"execute": …}, or use --hmp for the human monitor`,
    );
  let parsed: JsonValue;
  try {
    parsed = parseJson(text);
  } catch {
    // A bare command name is what virsh --pretty users type.
    if (/^[a-z_-]+$/i.test(text)) return { execute: text, args: {} };
    throw bad('not JSON');
  }
  if (!isObject(parsed) || typeof parsed['execute'] !== 'string')
    throw bad('no command to execute');
  const args = parsed['arguments'] ?? {};
  if (!isObject(args)) throw bad('its arguments are no object');
  return { execute: parsed['execute'], args };
}

async function liveMonitor(host: Host, uuid: string) {
  const record = host.known.domain(uuid);
  const monitor = record.live === null ? null : await host.guestOf(uuid).monitor();
  if (monitor === null)
    throw new StateError('OPERATION_INVALID', 'domain is not running', { from: 'domain' });
  return monitor;
}

/** The disk that a client named, in what runs or else in what was defined. */
export function diskOf(record: DomainRecord, path: string): Disk {
  const definition = record.live?.definition ?? record.persistent;
  const disk = definition == null ? null : findDisk(definition, path);
  if (disk === null)
    throw new RequestError('INVALID_ARG', `invalid path ${path} not assigned to domain`);
  return disk;
}

function blockVerbs(
  host: Host,
): Pick<
  LibvirtHost,
  'blockInfo' | 'blockStats' | 'diskStats' | 'blockJobInfo' | 'blockJobAbort' | 'blockJobSetSpeed'
> {
  const { known } = host;
  return {
    blockInfo: (uuid, path) => blockInfo(host, known.domain(uuid), path),
    blockStats: async (uuid, path) => {
      if (known.domain(uuid).live === null)
        throw new StateError('OPERATION_INVALID', 'domain is not running', { from: 'domain' });
      const all = await diskStats(host, uuid);
      if (path === '') return sumOfStats(all);
      const target = diskOf(known.domain(uuid), path).target;
      return sumOfStats(all.filter((one) => one.target === target));
    },
    diskStats: (uuid) => diskStats(host, uuid),
    blockJobInfo: (uuid, path) => blockJobInfo(host, uuid, path),
    blockJobAbort: (uuid, path, options) => blockJobAbort(host, uuid, path, options),
    blockJobSetSpeed: (uuid, path, bytesPerSecond) =>
      blockJobSetSpeed(host, uuid, path, bytesPerSecond),
  };
}

async function blockInfo(host: Host, record: DomainRecord, path: string) {
  const disk = diskOf(record, path);
  if (disk.source?.type === 'network' && record.live !== null) {
    // What its server has written of it nobody tells.
    const bytes = (await sizesOf(host, record.uuid, record.live)).get(disk.target)?.sizeBytes ?? 0n;
    return { capacityBytes: bytes, allocationBytes: bytes, physicalBytes: bytes };
  }
  const file = disk.source === null ? null : localPath(disk.source);
  if (file === null)
    throw new RequestError(
      'INVALID_ARG',
      `disk '${disk.target}' does not currently have a source assigned`,
    );
  const info = await host.context.images.info(file, disk.format);
  if (info === null) throw new SystemError(`cannot stat file '${file}': No such file or directory`);
  const { size, blocks } = statSync(file);
  return {
    capacityBytes: info.virtualSizeBytes,
    allocationBytes: BigInt(blocks) * 512n,
    physicalBytes: BigInt(size),
  };
}

function snapshotVerbs(host: Host): SnapshotVerbs {
  const { known } = host;
  return {
    snapshots: (uuid) => {
      const record = known.domain(uuid);
      return record.snapshots.map((snapshot) => ({
        name: snapshot.name,
        parent: snapshot.parent,
        current: record.currentSnapshot === snapshot.name,
        state:
          snapshot.state === 'disk-snapshot'
            ? 'disk-only'
            : snapshot.state === 'shutoff'
              ? 'inactive'
              : 'active',
        location: 'external',
      }));
    },
    snapshotXml: (uuid, name) => snapshotXml(host, uuid, name),
    createSnapshot: (uuid, xml, options) => createSnapshot(host, uuid, xml, options),
    deleteSnapshot: (uuid, name, options) => deleteSnapshot(host, uuid, name, options),
  };
}

function eventVerbs(host: Host): Pick<LibvirtHost, 'subscribe'> {
  return {
    subscribe(listener) {
      const told = host.known.onTold((news) => eventsOf(news).forEach(listener));
      const qemu = host.onQemuEvent((uuid, event) => {
        const record = host.known.find(uuid);
        if (record === null) return;
        const { seconds, microseconds } = event.timestamp;
        listener({
          domain: refOf(record),
          kind: 'monitor',
          event: event.event,
          seconds: BigInt(seconds),
          micros: microseconds,
          details: JSON.stringify(event.data, withBigints),
        });
      });
      return () => {
        told();
        qemu();
      };
    },
  };
}

const withBigints = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' ? Number(value) : value;

/** The events among the changes of one commit, as clients see them. */
export function eventsOf({ before, after, domain, changes }: Told): readonly HostEvent[] {
  const record = after ?? before;
  const name = record?.name ?? domain;
  const id = after?.live?.id ?? before?.live?.id ?? -1;
  return changes.flatMap(({ change }): readonly HostEvent[] => {
    if (change.change !== 'event') return [];
    const { event } = change;
    const ref = (shownId: number): DomainRef => ({ name, uuid: domain, id: shownId });
    switch (event.type) {
      case 'lifecycle':
        return [{ domain: ref(event.id), kind: 'lifecycle', ...event.change }];
      case 'reboot':
        return [{ domain: ref(id), kind: 'reboot' }];
      case 'block-job':
        return [
          {
            domain: ref(id),
            kind: 'block-job',
            path: event.path,
            target: event.target,
            type: event.job,
            status: event.status,
          },
        ];
      case 'monitor': {
        const nowMs = Date.now();
        const at = { seconds: BigInt(Math.floor(nowMs / 1000)), micros: (nowMs % 1000) * 1000 };
        return [
          { domain: ref(id), kind: 'monitor', event: event.event, ...at, details: event.details },
        ];
      }
    }
  });
}
