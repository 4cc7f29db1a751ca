// Reading one domain: state, information, XML, counts.

import { stateNumbers } from '../../domain/state.js';
import { RequestError, StateError } from '../../std/errors.js';
import { array, bool, chars, i32, optional, u32, u64 } from '../../xdr/codec.js';
import type { DomainFacts } from '../../host/libvirt-host.js';
import { procedure } from '../procedure.js';
import { domain, metadataKinds, nameOf, string } from '../wire.js';
import { isActive } from './connect.js';

/** virDomainModificationImpact. */
const affects = { live: 1, config: 2 } as const;
const vcpuFlags = { ...affects, maximum: 4, guest: 8 } as const;
/** VIR_DOMAIN_MESSAGE_*. */
const messageFlags = { deprecation: 1, tainting: 2 } as const;

/** libvirt's virDomainObjUpdateModificationImpact. */
function refuseMissingDefinition(
  facts: DomainFacts,
  flags: { live: boolean; config: boolean },
): void {
  if (flags.live && !isActive(facts)) {
    throw new StateError('OPERATION_INVALID', 'domain is not running');
  }
  if (flags.config && !facts.persistent) {
    throw new StateError(
      'OPERATION_INVALID',
      'transient domains do not have any persistent config',
    );
  }
}

export const domainProcedures = [
  procedure({
    number: 14,
    name: 'virDomainGetXMLDesc',
    access: 'read',
    args: { domain },
    flags: { secure: 1, inactive: 2, updateCpu: 4, migratable: 8 },
    writeFlags: ['secure', 'migratable'],
    result: { xml: string },
    call({ host }, args, flags) {
      return { xml: host.domainXml(args.domain.uuid, flags) };
    },
  }),
  procedure({
    number: 15,
    name: 'virDomainGetAutostart',
    access: 'read',
    args: { domain },
    result: { autostart: bool },
    call({ host }, args) {
      const { autostart } = host.domainByUuid(args.domain.uuid);
      return { autostart };
    },
  }),
  procedure({
    number: 16,
    name: 'virDomainGetInfo',
    access: 'read',
    args: { domain },
    result: { state: u32, maxMemoryKiB: u64, memoryKiB: u64, vcpus: u32, cpuTimeNs: u64 },
    call({ host }, args) {
      const facts = host.domainByUuid(args.domain.uuid);
      const cpuTimeNs = host.cpuTimeNs(args.domain.uuid);
      const { maxMemoryKiB, memoryKiB, vcpus } = facts;
      return { state: stateNumbers(facts.state).state, maxMemoryKiB, memoryKiB, vcpus, cpuTimeNs };
    },
  }),
  procedure({
    number: 17,
    name: 'virDomainGetMaxMemory',
    access: 'read',
    args: { domain },
    result: { memoryKiB: u64 },
    call({ host }, args) {
      return { memoryKiB: host.domainByUuid(args.domain.uuid).maxMemoryKiB };
    },
  }),
  procedure({
    number: 18,
    name: 'virDomainGetMaxVcpus',
    access: 'read',
    args: { domain },
    result: { vcpus: i32 },
    call({ host }, args) {
      return { vcpus: host.domainByUuid(args.domain.uuid).maxVcpus };
    },
  }),
  procedure({
    number: 19,
    name: 'virDomainGetOSType',
    access: 'read',
    args: { domain },
    result: { type: string },
    call({ host }, args) {
      return { type: host.domainByUuid(args.domain.uuid).osType };
    },
  }),
  procedure({
    number: 121,
    name: 'virDomainGetSecurityLabel',
    access: 'read',
    args: { domain },
    result: { label: chars(4097), enforcing: bool },
    call({ host }, args) {
      host.domainByUuid(args.domain.uuid);
      return { label: '', enforcing: false };
    },
  }),
  procedure({
    number: 150,
    name: 'virDomainIsActive',
    access: 'read',
    args: { domain },
    result: { active: bool },
    call({ host }, args) {
      return { active: isActive(host.domainByUuid(args.domain.uuid)) };
    },
  }),
  procedure({
    number: 151,
    name: 'virDomainIsPersistent',
    access: 'read',
    args: { domain },
    result: { persistent: bool },
    call({ host }, args) {
      const { persistent } = host.domainByUuid(args.domain.uuid);
      return { persistent };
    },
  }),
  procedure({
    number: 183,
    name: 'virDomainHasManagedSaveImage',
    access: 'read',
    args: { domain },
    flags: {},
    result: { has: bool },
    call({ host }, args) {
      host.domainByUuid(args.domain.uuid);
      return { has: false };
    },
  }),
  procedure({
    number: 200,
    name: 'virDomainGetVcpusFlags',
    access: 'read',
    args: { domain },
    flags: vcpuFlags,
    writeFlags: ['guest'],
    result: { vcpus: i32 },
    call({ host }, args, flags) {
      const facts = host.domainByUuid(args.domain.uuid);
      refuseMissingDefinition(facts, flags);
      if (flags.guest) {
        throw new RequestError('ARGUMENT_UNSUPPORTED', 'QEMU guest agent is not configured');
      }
      return { vcpus: flags.maximum ? facts.maxVcpus : facts.vcpus };
    },
  }),
  procedure({
    number: 202,
    name: 'virDomainIsUpdated',
    access: 'read',
    args: { domain },
    result: { updated: bool },
    call({ host }, args) {
      const { updated } = host.domainByUuid(args.domain.uuid);
      return { updated };
    },
  }),
  procedure({
    number: 212,
    name: 'virDomainGetState',
    access: 'read',
    args: { domain },
    flags: {},
    result: { state: i32, reason: i32 },
    call({ host }, args) {
      return stateNumbers(host.domainByUuid(args.domain.uuid).state);
    },
  }),
  procedure({
    number: 265,
    name: 'virDomainGetMetadata',
    access: 'read',
    args: { domain, kind: i32, namespace: optional(string) },
    flags: affects,
    result: { metadata: string },
    async call({ host }, args, flags) {
      const kind = nameOf(metadataKinds, args.kind, 'metadata type');
      const { uuid } = args.domain;
      return { metadata: await host.domainMetadata(uuid, kind, args.namespace, flags) };
    },
  }),
  procedure({
    number: 426,
    name: 'virDomainGetMessages',
    access: 'read',
    args: { domain },
    flags: messageFlags,
    result: { messages: array(string, 2048) },
    call({ host }, args, flags) {
      const { taints } = host.domainByUuid(args.domain.uuid);
      const wanted = flags.tainting || !flags.deprecation; // no flag: all of them
      return { messages: wanted ? taints : [] };
    },
  }),
];
