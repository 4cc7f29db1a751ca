// Changing what a domain is: define, start, stop, suspend, forget.

import { bool } from '../../xdr/codec.js';
import type { Awaitable, LibvirtHost } from '../../host/libvirt-host.js';
import { procedure, type Procedure } from '../procedure.js';
import { domain, string } from '../wire.js';

/**
 * virDomainCreateFlags. There are no saved images whose restore `bypassCache` or `forceBoot` could change, so
 * these two ask for nothing. AUTODESTROY (2) is refused: no guest of ours dies with a connection.
 */
const startFlags = { paused: 1, bypassCache: 4, forceBoot: 8, resetNvram: 32 } as const;
const createFlags = { ...startFlags, validate: 16 } as const;

/** virDomainUndefineFlagsValues. */
const undefineFlags = {
  managedSave: 1,
  snapshotsMetadata: 2,
  nvram: 4,
  keepNvram: 8,
  checkpointsMetadata: 16,
  tpm: 32,
  keepTpm: 64,
} as const;

const undefinePlainly = {
  managedSave: false,
  snapshotsMetadata: false,
  nvram: false,
  keepNvram: false,
  checkpointsMetadata: false,
  tpm: false,
  keepTpm: false,
} as const;

/** How a guest may be asked: only by ACPI, which is also what no flag means. */
const acpiOnly = { acpi: 1 } as const;

/** A change that needs the domain and nothing else, without a flags word. */
function change(
  number: number,
  name: string,
  make: (host: LibvirtHost, uuid: string) => Awaitable<void>,
): Procedure {
  return procedure({
    number,
    name,
    access: 'write',
    args: { domain },
    result: {},
    call: ({ host }, args) => make(host, args.domain.uuid),
  });
}

/** The same with a flags word, of which `flags` are allowed but change nothing. */
function changeWithFlags(
  number: number,
  name: string,
  flags: Readonly<Record<string, number>>,
  make: (host: LibvirtHost, uuid: string) => Awaitable<void>,
): Procedure {
  return procedure({
    number,
    name,
    access: 'write',
    args: { domain },
    flags,
    result: {},
    call: ({ host }, args) => make(host, args.domain.uuid),
  });
}

export const lifecycleProcedures = [
  change(12, 'virDomainDestroy', (host, uuid) => host.destroyDomain(uuid, { graceful: false })),
  change(28, 'virDomainResume', (host, uuid) => host.resumeDomain(uuid)),
  change(33, 'virDomainShutdown', (host, uuid) => host.shutdownDomain(uuid)),
  change(34, 'virDomainSuspend', (host, uuid) => host.suspendDomain(uuid)),
  change(35, 'virDomainUndefine', (host, uuid) => host.undefineDomain(uuid, undefinePlainly)),
  changeWithFlags(27, 'virDomainReboot', acpiOnly, (host, uuid) => host.rebootDomain(uuid)),
  changeWithFlags(245, 'virDomainReset', {}, (host, uuid) => host.resetDomain(uuid)),
  changeWithFlags(258, 'virDomainShutdownFlags', acpiOnly, (host, uuid) =>
    host.shutdownDomain(uuid),
  ),
  procedure({
    number: 9,
    name: 'virDomainCreate',
    access: 'write',
    args: { domain },
    result: {},
    async call({ host }, args) {
      await host.startDomain(args.domain.uuid, { paused: false, resetNvram: false });
    },
  }),
  procedure({
    number: 196,
    name: 'virDomainCreateWithFlags',
    access: 'write',
    args: { domain },
    flags: startFlags,
    result: { domain },
    async call({ host }, args, { paused, resetNvram }) {
      return { domain: await host.startDomain(args.domain.uuid, { paused, resetNvram }) };
    },
  }),
  procedure({
    number: 10,
    name: 'virDomainCreateXML',
    access: 'write',
    args: { xml: string },
    flags: createFlags,
    result: { domain },
    async call({ host }, { xml }, { paused, resetNvram, validate }) {
      return { domain: await host.createDomain(xml, { paused, resetNvram, validate }) };
    },
  }),
  procedure({
    number: 11,
    name: 'virDomainDefineXML',
    access: 'write',
    args: { xml: string },
    result: { domain },
    call: async ({ host }, { xml }) => ({
      domain: await host.defineDomain(xml, { validate: false }),
    }),
  }),
  procedure({
    number: 350,
    name: 'virDomainDefineXMLFlags',
    access: 'write',
    args: { xml: string },
    flags: { validate: 1 },
    result: { domain },
    call: async ({ host }, { xml }, flags) => ({ domain: await host.defineDomain(xml, flags) }),
  }),
  procedure({
    number: 29,
    name: 'virDomainSetAutostart',
    access: 'write',
    args: { domain, autostart: bool },
    result: {},
    call: ({ host }, args) => host.setAutostart(args.domain.uuid, args.autostart),
  }),
  procedure({
    number: 231,
    name: 'virDomainUndefineFlags',
    access: 'write',
    args: { domain },
    flags: undefineFlags,
    result: {},
    call: ({ host }, args, flags) => host.undefineDomain(args.domain.uuid, flags),
  }),
  procedure({
    number: 234,
    name: 'virDomainDestroyFlags',
    access: 'write',
    args: { domain },
    flags: { graceful: 1 },
    result: {},
    call: ({ host }, args, flags) => host.destroyDomain(args.domain.uuid, flags),
  }),
];
