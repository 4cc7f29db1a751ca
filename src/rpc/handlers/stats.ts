// virConnectGetAllDomainStats: one call for a monitoring client, instead of six a domain.

import { stateNumbers } from '../../domain/state.js';
import { array, struct, u32 } from '../../xdr/codec.js';
import type { Awaitable, DiskStats, DomainFacts, LibvirtHost } from '../../host/libvirt-host.js';
import { parseFlags, procedure } from '../procedure.js';
import { domain, domainList, MAX_LIST, typedParameter, type TypedParameter } from '../wire.js';
import { domainFilters, isActive, listed } from './connect.js';

/** virDomainStatsTypes that we have. Others are left out, or refused when the client asks to enforce them. */
const groups = { state: 1, cpuTotal: 2, balloon: 4, vcpu: 8, block: 32 } as const;
type Group = keyof typeof groups;

/** virConnectGetAllDomainStatsFlags: the filters of a list, and three more bits. */
const statsFlags = {
  ...domainFilters,
  nowait: 2 ** 29,
  backing: 2 ** 30,
  enforce: 2 ** 31,
} as const;

const int = (field: string, value: number): TypedParameter => ({
  field,
  value: { type: 'int', value },
});
const uint = (field: string, value: number): TypedParameter => ({
  field,
  value: { type: 'uint', value },
});
const ullong = (field: string, value: bigint): TypedParameter => ({
  field,
  value: { type: 'ullong', value },
});
const text = (field: string, value: string): TypedParameter => ({
  field,
  value: { type: 'string', value },
});

/** Field names are documented at virConnectGetAllDomainStats. */
const collectors: {
  readonly [G in Group]: (
    host: LibvirtHost,
    facts: DomainFacts,
  ) => Awaitable<readonly TypedParameter[]>;
} = {
  state(_, facts) {
    const { state, reason } = stateNumbers(facts.state);
    return [int('state.state', state), int('state.reason', reason)];
  },
  cpuTotal: (host, facts) =>
    isActive(facts) ? [ullong('cpu.time', host.cpuTimeNs(facts.ref.uuid))] : [],
  balloon: (_, facts) => [
    ...(isActive(facts) ? [ullong('balloon.current', facts.memoryKiB)] : []),
    ullong('balloon.maximum', facts.maxMemoryKiB),
  ],
  vcpu: (_, facts) => [uint('vcpu.current', facts.vcpus), uint('vcpu.maximum', facts.maxVcpus)],
  async block(host, facts) {
    const disks = await host.diskStats(facts.ref.uuid);
    return [uint('block.count', disks.length), ...disks.flatMap(diskParameters)];
  },
};

function diskParameters(disk: DiskStats, at: number): readonly TypedParameter[] {
  const { stats, info } = disk;
  const prefix = `block.${at}`;
  return [
    text(`${prefix}.name`, disk.target),
    ...(disk.path === null ? [] : [text(`${prefix}.path`, disk.path)]),
    ...(disk.index === null ? [] : [uint(`${prefix}.backingIndex`, disk.index)]),
    ullong(`${prefix}.rd.reqs`, stats.readRequests),
    ullong(`${prefix}.rd.bytes`, stats.readBytes),
    ullong(`${prefix}.rd.times`, stats.readNs),
    ullong(`${prefix}.wr.reqs`, stats.writeRequests),
    ullong(`${prefix}.wr.bytes`, stats.writeBytes),
    ullong(`${prefix}.wr.times`, stats.writeNs),
    ullong(`${prefix}.fl.reqs`, stats.flushRequests),
    ullong(`${prefix}.fl.times`, stats.flushNs),
    ullong(`${prefix}.allocation`, info.allocationBytes),
    ullong(`${prefix}.capacity`, info.capacityBytes),
    ullong(`${prefix}.physical`, info.physicalBytes),
  ];
}

async function collect(
  host: LibvirtHost,
  facts: DomainFacts,
  wanted: number,
): Promise<TypedParameter[]> {
  const parameters: TypedParameter[] = [];
  for (const [group, bit] of Object.entries(groups)) {
    if (wanted !== 0 && (wanted & bit) === 0) continue; // 0 asks for everything there is
    parameters.push(...(await collectors[group as Group](host, facts))); // a key of `groups`
  }
  return parameters;
}

export const statsProcedures = [
  procedure({
    number: 344,
    name: 'virConnectGetAllDomainStats',
    access: 'read',
    args: { domains: domainList, stats: u32 },
    flags: statsFlags,
    result: {
      stats: array(struct({ domain, parameters: array(typedParameter, 262_144) }), MAX_LIST),
    },
    async call({ host }, args, flags) {
      if (flags.enforce) parseFlags(args.stats, groups, 'virConnectGetAllDomainStats');
      const named = args.domains.map(({ uuid }) => host.domainByUuid(uuid));
      const all = named.length > 0 ? named : host.domains();
      const stats = all
        .filter((facts) => listed(facts, flags))
        .map(async (facts) => ({
          domain: facts.ref,
          parameters: await collect(host, facts, args.stats),
        }));
      return { stats: await Promise.all(stats) };
    },
  }),
];
