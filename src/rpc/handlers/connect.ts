// Connections and the node: open, features, versions, capabilities, the domains there are.

import { RequestError } from '../../std/errors.js';
import { array, bool, i32, optional, u64 } from '../../xdr/codec.js';
import type { DomainFacts } from '../../host/libvirt-host.js';
import { procedure, type FlagsOf } from '../procedure.js';
import { chars } from '../../xdr/codec.js';
import { cpuModel, domain, domainList, nameList, string, MAX_LIST, uuid } from '../wire.js';

/** REMOTE_AUTH_NONE. Access is the sockets' modes: Node can neither read peer credentials nor pass descriptors. */
const AUTH_NONE = 0;

/**
 * The features a client may ask for (VIR_DRV_FEATURE_*) that we have: typed parameters with strings, keepalive,
 * event callbacks with ids, close callback. All others, and those of newer clients, are answered no.
 */
const features = {
  typedParameterStrings: 9,
  keepalive: 10,
  eventCallbacks: 14,
  closeCallback: 15,
} as const;
const supported: ReadonlySet<number> = new Set(Object.values(features));

/** virConnectListAllDomainsFlags. */
export const domainFilters = {
  active: 1,
  inactive: 2,
  persistent: 4,
  transient: 8,
  running: 16,
  paused: 32,
  shutoff: 64,
  otherState: 128,
  managedSave: 256,
  noManagedSave: 512,
  autostart: 1024,
  noAutostart: 2048,
  hasSnapshot: 4096,
  noSnapshot: 8192,
  hasCheckpoint: 16384,
  noCheckpoint: 32768,
} as const;

type DomainFilter = keyof typeof domainFilters;

/** A domain is listed when, of each group that has a flag set, one that is set holds. */
const filterGroups: readonly Partial<Record<DomainFilter, (facts: DomainFacts) => boolean>>[] = [
  { active: isActive, inactive: (facts) => !isActive(facts) },
  { persistent: (facts) => facts.persistent, transient: (facts) => !facts.persistent },
  {
    running: ({ state }) => state.state === 'running',
    paused: ({ state }) => state.state === 'paused',
    shutoff: ({ state }) => state.state === 'shutoff',
    otherState: ({ state }) => !['running', 'paused', 'shutoff'].includes(state.state),
  },
  { managedSave: () => false, noManagedSave: () => true },
  { autostart: (facts) => facts.autostart, noAutostart: (facts) => !facts.autostart },
  { hasSnapshot: (facts) => facts.hasSnapshots, noSnapshot: (facts) => !facts.hasSnapshots },
  { hasCheckpoint: () => false, noCheckpoint: () => true },
];

export function isActive(facts: DomainFacts): boolean {
  return facts.ref.id !== -1;
}

/** Whether virConnectListAllDomains lists this domain. */
export function listed(facts: DomainFacts, flags: FlagsOf<typeof domainFilters>): boolean {
  return filterGroups.every((group) => {
    const asked = Object.entries(group).filter(([name]) => flags[name as DomainFilter]); // keys of the group
    return asked.length === 0 || asked.some(([, holds]) => holds(facts));
  });
}

/** The scheme decides: a client that wants another hypervisor's driver must not find this one. */
function refuseForeignUri(name: string | null): void {
  if (name === null || name === '' || name.startsWith('qemu:')) return;
  throw new RequestError('INVALID_ARG', `no connection driver available for ${name}`, {
    from: 'none',
  });
}

export const connectProcedures = [
  procedure({
    number: 1,
    name: 'virConnectOpen',
    access: 'read',
    beforeOpen: true,
    args: { name: optional(string) },
    flags: { readOnly: 1, noAliases: 2 },
    result: {},
    call(session, { name }, flags) {
      refuseForeignUri(name);
      session.open(flags.readOnly ? 'read-only' : 'read-write');
    },
  }),
  procedure({
    number: 2,
    name: 'virConnectClose',
    access: 'read',
    beforeOpen: true,
    args: {},
    result: {},
    call: (session) => session.close(),
  }),
  procedure({
    number: 66,
    name: 'authList',
    access: 'read',
    beforeOpen: true,
    args: {},
    result: { types: array(i32, 20) },
    call: () => ({ types: [AUTH_NONE] }),
  }),
  procedure({
    number: 60,
    name: 'virConnectSupportsFeature',
    access: 'read',
    beforeOpen: true,
    args: { feature: i32 },
    result: { supported: bool },
    call(session, { feature }) {
      if (feature === features.keepalive) session.startKeepalive();
      return { supported: supported.has(feature) };
    },
  }),
  procedure({
    number: 360,
    name: 'virConnectRegisterCloseCallback',
    access: 'read',
    args: {},
    result: {},
    call(session) {
      session.wantsCloseReason = true;
    },
  }),
  procedure({
    number: 361,
    name: 'virConnectUnregisterCloseCallback',
    access: 'read',
    args: {},
    result: {},
    call(session) {
      session.wantsCloseReason = false;
    },
  }),
  procedure({
    number: 3,
    name: 'virConnectGetType',
    access: 'read',
    args: {},
    result: { type: string },
    // Exactly this: virt-install and virt-manager take their QEMU paths by it.
    call: () => ({ type: 'QEMU' }),
  }),
  procedure({
    number: 4,
    name: 'virConnectGetVersion',
    access: 'read',
    args: {},
    result: { version: u64 },
    call: async ({ host }) => ({ version: (await host.versions()).hypervisor }),
  }),
  procedure({
    number: 157,
    name: 'virConnectGetLibVersion',
    access: 'read',
    args: {},
    result: { version: u64 },
    call: async ({ host }) => ({ version: (await host.versions()).library }),
  }),
  procedure({
    number: 59,
    name: 'virConnectGetHostname',
    access: 'read',
    args: {},
    result: { hostname: string },
    call: async ({ host }) => ({ hostname: await host.hostname() }),
  }),
  procedure({
    number: 110,
    name: 'virConnectGetURI',
    access: 'read',
    args: {},
    result: { uri: string },
    call: async ({ host }) => ({ uri: await host.uri() }),
  }),
  procedure({
    number: 149,
    name: 'virConnectIsSecure',
    access: 'read',
    args: {},
    result: { secure: bool },
    call: () => ({ secure: true }), // a local socket: nobody else can listen in
  }),
  procedure({
    number: 5,
    name: 'virConnectGetMaxVcpus',
    access: 'read',
    args: { type: optional(string) },
    result: { vcpus: i32 },
    call: async ({ host }, { type }) => ({ vcpus: await host.maxVcpus(type) }),
  }),
  procedure({
    number: 6,
    name: 'virNodeGetInfo',
    access: 'read',
    args: {},
    result: {
      model: cpuModel,
      memoryKiB: u64,
      cpus: i32,
      mhz: i32,
      numaNodes: i32,
      socketsPerNode: i32,
      coresPerSocket: i32,
      threadsPerCore: i32,
    },
    call: ({ host }) => host.nodeInfo(),
  }),
  procedure({
    number: 7,
    name: 'virConnectGetCapabilities',
    access: 'read',
    args: {},
    result: { capabilities: string },
    call: async ({ host }) => ({ capabilities: await host.capabilities() }),
  }),
  procedure({
    number: 342,
    name: 'virConnectGetDomainCapabilities',
    access: 'write', // as in libvirt: it may run an emulator that the client names
    args: {
      emulator: optional(string),
      arch: optional(string),
      machine: optional(string),
      virtType: optional(string),
    },
    flags: {},
    result: { capabilities: string },
    call: async ({ host }, choice) => ({ capabilities: await host.domainCapabilities(choice) }),
  }),
  procedure({
    number: 122,
    name: 'virNodeGetSecurityModel',
    access: 'read',
    args: {},
    result: { model: chars(257), doi: chars(257) },
    call: () => ({ model: '', doi: '' }), // no security driver: virsh leaves the lines out
  }),
  procedure({
    number: 273,
    name: 'virConnectListAllDomains',
    access: 'read',
    args: { needResults: bool },
    flags: domainFilters,
    result: { domains: domainList, count: i32 },
    call({ host }, { needResults }, flags) {
      const found = host.domains().filter((facts) => listed(facts, flags));
      return { domains: needResults ? found.map(({ ref }) => ref) : [], count: found.length };
    },
  }),
  procedure({
    number: 51,
    name: 'virConnectNumOfDomains',
    access: 'read',
    args: {},
    result: { count: i32 },
    call: ({ host }) => ({ count: host.domains().filter(isActive).length }),
  }),
  procedure({
    number: 37,
    name: 'virConnectListDomains',
    access: 'read',
    args: { max: i32 },
    result: { ids: array(i32, MAX_LIST) },
    call({ host }, { max }) {
      const active = host.domains().filter(isActive);
      return { ids: active.slice(0, Math.max(0, max)).map(({ ref }) => ref.id) };
    },
  }),
  procedure({
    number: 25,
    name: 'virConnectNumOfDefinedDomains',
    access: 'read',
    args: {},
    result: { count: i32 },
    call({ host }) {
      return { count: host.domains().filter((facts) => !isActive(facts)).length };
    },
  }),
  procedure({
    number: 21,
    name: 'virConnectListDefinedDomains',
    access: 'read',
    args: { max: i32 },
    result: { names: nameList },
    call({ host }, { max }) {
      const inactive = host.domains().filter((facts) => !isActive(facts));
      return { names: inactive.slice(0, Math.max(0, max)).map(({ ref }) => ref.name) };
    },
  }),
  procedure({
    number: 22,
    name: 'virDomainLookupByID',
    access: 'read',
    args: { id: i32 },
    result: { domain },
    call: ({ host }, { id }) => ({ domain: host.domainById(id).ref }),
  }),
  procedure({
    number: 23,
    name: 'virDomainLookupByName',
    access: 'read',
    args: { name: string },
    result: { domain },
    call: ({ host }, { name }) => ({ domain: host.domainByName(name).ref }),
  }),
  procedure({
    number: 24,
    name: 'virDomainLookupByUUID',
    access: 'read',
    args: { uuid },
    result: { domain },
    call: ({ host }, args) => ({ domain: host.domainByUuid(args.uuid).ref }),
  }),
];
