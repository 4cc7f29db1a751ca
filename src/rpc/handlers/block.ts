// A domain's disks: sizes, counters, block jobs.

import { RequestError } from '../../std/errors.js';
import { array, bool, i32, i64, u64 } from '../../xdr/codec.js';
import type { BlockStats } from '../../host/libvirt-host.js';
import { procedure } from '../procedure.js';
import { blockJobTypes, domain, string, typedParameter, type TypedParameter } from '../wire.js';

const BYTES_PER_MIB = 1n << 20n;
/** The most MiB/s whose bytes fit a signed 64-bit integer. */
const MAX_MIB_PER_SECOND = 8_796_093_022_207n;
/** VIR_TYPED_PARAM_STRING_OKAY: the client can take strings; none of these parameters is one. */
const typedFlags = { stringOkay: 4 } as const;

/** virDomainBlockStats' `errs` when errors are not counted. */
const NOT_COUNTED = -1n;

/** virDomainBlockStatsFlags' names, in libvirt's order. */
const statNames: readonly (readonly [field: string, of: keyof BlockStats])[] = [
  ['wr_bytes', 'writeBytes'],
  ['wr_operations', 'writeRequests'],
  ['rd_bytes', 'readBytes'],
  ['rd_operations', 'readRequests'],
  ['flush_operations', 'flushRequests'],
  ['wr_total_times', 'writeNs'],
  ['rd_total_times', 'readNs'],
  ['flush_total_times', 'flushNs'],
];

function statParameters(stats: BlockStats): readonly TypedParameter[] {
  return statNames.map(([field, of]) => ({ field, value: { type: 'llong', value: stats[of] } }));
}

/** Each call has a unit of its own: MiB/s, or bytes/s with its BANDWIDTH_BYTES flag. */
export function bytesPerSecond(bandwidth: bigint, flags: { readonly bytes: boolean }): bigint {
  if (flags.bytes) return bandwidth;
  if (bandwidth > MAX_MIB_PER_SECOND) {
    throw new RequestError('OVERFLOW', `bandwidth must be less than ${MAX_MIB_PER_SECOND}`);
  }
  return bandwidth * BYTES_PER_MIB;
}

/** MiB/s, rounded up: a limit below one MiB/s must not read as no limit. */
function mibPerSecond(bytes: bigint): bigint {
  return (bytes + BYTES_PER_MIB - 1n) / BYTES_PER_MIB;
}

export const blockProcedures = [
  procedure({
    number: 64,
    name: 'virDomainBlockStats',
    access: 'read',
    args: { domain, disk: string },
    result: { readRequests: i64, readBytes: i64, writeRequests: i64, writeBytes: i64, errors: i64 },
    async call({ host }, args) {
      const stats = await host.blockStats(args.domain.uuid, args.disk);
      return { ...stats, errors: NOT_COUNTED };
    },
  }),
  procedure({
    number: 194,
    name: 'virDomainGetBlockInfo',
    access: 'read',
    args: { domain, disk: string },
    flags: {},
    result: { allocationBytes: u64, capacityBytes: u64, physicalBytes: u64 },
    call: ({ host }, args) => host.blockInfo(args.domain.uuid, args.disk),
  }),
  procedure({
    number: 243,
    name: 'virDomainBlockStatsFlags',
    access: 'read',
    args: { domain, disk: string, max: i32 },
    flags: typedFlags,
    result: { parameters: array(typedParameter, 16), count: i32 },
    async call({ host }, args) {
      const parameters = statParameters(await host.blockStats(args.domain.uuid, args.disk));
      // The first call asks how many there are; the second must not be given more than it has room for.
      if (args.max <= 0) return { parameters: [], count: parameters.length };
      return { parameters: parameters.slice(0, args.max), count: 0 };
    },
  }),
  procedure({
    number: 238,
    name: 'virDomainGetBlockJobInfo',
    access: 'read',
    args: { domain, disk: string },
    flags: { bytes: 1 },
    result: { found: bool, type: i32, bandwidth: u64, current: u64, end: u64 },
    async call({ host }, args, flags) {
      const job = await host.blockJobInfo(args.domain.uuid, args.disk);
      if (job === null) return { found: false, type: 0, bandwidth: 0n, current: 0n, end: 0n };
      const limit = job.bandwidthBytesPerSecond;
      const { current, end } = job;
      const bandwidth = flags.bytes ? limit : mibPerSecond(limit);
      return { found: true, type: blockJobTypes[job.type], bandwidth, current, end };
    },
  }),
  procedure({
    number: 237,
    name: 'virDomainBlockJobAbort',
    access: 'write',
    args: { domain, disk: string },
    flags: { async: 1, pivot: 2 },
    result: {},
    call: ({ host }, args, flags) => host.blockJobAbort(args.domain.uuid, args.disk, flags),
  }),
  procedure({
    number: 239,
    name: 'virDomainBlockJobSetSpeed',
    access: 'write',
    args: { domain, disk: string, bandwidth: u64 },
    flags: { bytes: 1 },
    result: {},
    call({ host }, args, flags) {
      const limit = bytesPerSecond(args.bandwidth, flags);
      return host.blockJobSetSpeed(args.domain.uuid, args.disk, limit);
    },
  }),
];
