// What QEMU tells: the replies of queries and the enumerations in them. A hand-kept part of QAPI, from 7.2 to
// 10.0; members that a later QEMU added are optional. `types.ts` says which command replies what.

import type { JsonObject } from './json.js';

export type JobStatus =
  | 'undefined'
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';
export type JobType =
  | 'commit'
  | 'stream'
  | 'mirror'
  | 'backup'
  | 'create'
  | 'amend'
  | 'snapshot-load'
  | 'snapshot-save'
  | 'snapshot-delete';
export type RunState =
  | 'debug'
  | 'inmigrate'
  | 'internal-error'
  | 'io-error'
  | 'paused'
  | 'postmigrate'
  | 'prelaunch'
  | 'finish-migrate'
  | 'restore-vm'
  | 'running'
  | 'save-vm'
  | 'shutdown'
  | 'suspended'
  | 'watchdog'
  | 'guest-panicked'
  | 'colo';
export type IoStatus = 'ok' | 'failed' | 'nospace';
export type MirrorSyncMode = 'top' | 'full' | 'none' | 'incremental' | 'bitmap';
export type MirrorCopyMode = 'background' | 'write-blocking';
export type OnError = 'report' | 'ignore' | 'enospc' | 'stop' | 'auto';

export interface VersionInfo {
  readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number };
  readonly package: string;
}

export interface StatusInfo {
  readonly running: boolean;
  readonly status: RunState;
  /** Until 8.2. */
  readonly singlestep?: boolean;
}

/** One entry of `query-jobs`. */
export interface JobInfo {
  readonly id: string;
  readonly type: JobType;
  readonly status: JobStatus;
  readonly 'current-progress': bigint;
  readonly 'total-progress': bigint;
  /** Only on a job that failed or was cancelled, once it is aborting or concluded. */
  readonly error?: string;
}

/** One entry of `query-block-jobs`; `device` is the job id. */
export interface BlockJobInfo {
  readonly type: string;
  readonly device: string;
  readonly len: bigint;
  readonly offset: bigint;
  readonly busy: boolean;
  readonly paused: boolean;
  readonly speed: bigint;
  readonly 'io-status': IoStatus;
  readonly ready: boolean;
  readonly status: JobStatus;
  readonly 'auto-finalize': boolean;
  readonly 'auto-dismiss': boolean;
  readonly error?: string;
  /** Mirrors, from 8.2: whether guest writes reach the target before they are acknowledged. */
  readonly 'actively-synced'?: boolean;
}

export interface ImageInfo {
  readonly filename: string;
  readonly format: string;
  readonly 'dirty-flag'?: boolean;
  readonly 'actual-size'?: bigint;
  readonly 'virtual-size': bigint;
  readonly 'cluster-size'?: bigint;
  readonly encrypted?: boolean;
  readonly compressed?: boolean;
  readonly 'backing-filename'?: string;
  readonly 'full-backing-filename'?: string;
  readonly 'backing-filename-format'?: string;
  readonly 'backing-image'?: ImageInfo;
  readonly 'format-specific'?: JsonObject;
}

export interface BlockDirtyInfo {
  readonly name?: string;
  readonly count: bigint;
  readonly granularity: number;
  readonly recording: boolean;
  readonly busy: boolean;
  readonly persistent: boolean;
  readonly inconsistent?: boolean;
}

/** A node, as `query-named-block-nodes` and `query-block` tell of it. */
export interface BlockDeviceInfo {
  /** Not an identity: becomes a `json:` text once options differ from the header. */
  readonly file: string;
  readonly 'node-name'?: string;
  readonly ro: boolean;
  readonly drv: string;
  readonly backing_file?: string;
  readonly backing_file_depth: number;
  readonly encrypted: boolean;
  readonly detect_zeroes: 'off' | 'on' | 'unmap';
  readonly bps: bigint;
  readonly bps_rd: bigint;
  readonly bps_wr: bigint;
  readonly iops: bigint;
  readonly iops_rd: bigint;
  readonly iops_wr: bigint;
  readonly bps_max?: bigint;
  readonly bps_rd_max?: bigint;
  readonly bps_wr_max?: bigint;
  readonly iops_max?: bigint;
  readonly iops_rd_max?: bigint;
  readonly iops_wr_max?: bigint;
  readonly iops_size?: bigint;
  readonly image: ImageInfo;
  readonly cache: {
    readonly writeback: boolean;
    readonly direct: boolean;
    readonly 'no-flush': boolean;
  };
  readonly write_threshold: bigint;
  readonly 'dirty-bitmaps'?: readonly BlockDirtyInfo[];
  readonly group?: string;
  /** From 10.0. */
  readonly active?: boolean;
}

/** A device with a disk, as `query-block` tells of it. */
export interface BlockInfo {
  /** The `id` of a -drive; empty for -blockdev guests, so key on `qdev`. */
  readonly device: string;
  /** The device's id or QOM path. */
  readonly qdev?: string;
  readonly type: string;
  readonly removable: boolean;
  readonly locked: boolean;
  readonly inserted?: BlockDeviceInfo;
  readonly tray_open?: boolean;
  readonly 'io-status'?: IoStatus;
}

export interface LatencyHistogram {
  readonly boundaries: readonly bigint[];
  readonly bins: readonly bigint[];
}

export interface BlockDeviceStats {
  readonly rd_bytes: bigint;
  readonly wr_bytes: bigint;
  readonly unmap_bytes: bigint;
  readonly rd_operations: bigint;
  readonly wr_operations: bigint;
  readonly flush_operations: bigint;
  readonly unmap_operations: bigint;
  readonly rd_total_time_ns: bigint;
  readonly wr_total_time_ns: bigint;
  readonly flush_total_time_ns: bigint;
  readonly unmap_total_time_ns: bigint;
  readonly wr_highest_offset: bigint;
  readonly idle_time_ns?: bigint;
  readonly failed_rd_operations: bigint;
  readonly failed_wr_operations: bigint;
  readonly failed_flush_operations: bigint;
  readonly invalid_rd_operations: bigint;
  readonly invalid_wr_operations: bigint;
  readonly account_invalid: boolean;
  readonly account_failed: boolean;
  readonly rd_latency_histogram?: LatencyHistogram;
  readonly wr_latency_histogram?: LatencyHistogram;
  readonly flush_latency_histogram?: LatencyHistogram;
}

export interface BlockStats {
  readonly device?: string;
  readonly qdev?: string;
  readonly 'node-name'?: string;
  readonly stats: BlockDeviceStats;
  readonly parent?: BlockStats;
  readonly backing?: BlockStats;
}

export interface BlockGraph {
  readonly nodes: readonly {
    readonly id: number;
    readonly type: 'block-backend' | 'block-job' | 'block-driver';
    readonly name: string;
  }[];
  readonly edges: readonly {
    readonly parent: number;
    readonly child: number;
    readonly name: string;
    readonly perm: readonly string[];
    readonly 'shared-perm': readonly string[];
  }[];
}

export interface CpuInfo {
  readonly 'cpu-index': number;
  readonly 'qom-path': string;
  readonly 'thread-id': number;
  readonly target: string;
}
export interface MachineInfo {
  readonly name: string;
  readonly alias?: string;
  readonly 'is-default'?: boolean;
  readonly 'cpu-max': number;
  readonly 'hotpluggable-cpus': boolean;
  readonly 'numa-mem-supported': boolean;
  readonly deprecated: boolean;
  readonly 'default-cpu-type'?: string;
  readonly 'default-ram-id'?: string;
}
export interface CpuDefinition {
  readonly name: string;
  readonly 'migration-safe'?: boolean;
  readonly static: boolean;
  readonly 'unavailable-features'?: readonly string[];
  readonly typename: string;
  readonly 'alias-of'?: string;
  readonly deprecated: boolean;
}
export interface CommandLineOption {
  readonly option: string;
  readonly parameters: readonly {
    readonly name: string;
    readonly type: string;
    readonly help?: string;
  }[];
}
export interface ChardevInfo {
  readonly label: string;
  readonly filename: string;
  readonly 'frontend-open': boolean;
}
