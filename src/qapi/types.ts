// The commands and events that this project uses, as TypeScript: arguments, replies, data, by name.
// A hand-kept part of QAPI, from 7.2 to 10.0. Sizes, offsets and 64-bit counters are bigint, always;
// `widths.test.ts` proves that these declarations and `wideNames` of json.ts are equal.

import type { BlockdevCreateOptions, BlockdevOptions } from './blockdev.js';
import type { JsonObject, JsonValue } from './json.js';
import type {
  BlockDeviceInfo,
  BlockGraph,
  BlockInfo,
  BlockJobInfo,
  BlockStats,
  ChardevInfo,
  CommandLineOption,
  CpuDefinition,
  CpuInfo,
  JobInfo,
  JobStatus,
  JobType,
  MachineInfo,
  MirrorCopyMode,
  MirrorSyncMode,
  OnError,
  StatusInfo,
  VersionInfo,
} from './replies.js';

/** No members. */
export type Nothing = Readonly<Record<never, never>>;

interface Bitmap {
  readonly node: string;
  readonly name: string;
}
interface BitmapToAdd extends Bitmap {
  readonly granularity?: number;
  readonly persistent?: boolean;
  readonly disabled?: boolean;
}
interface BitmapMerge {
  readonly node: string;
  readonly target: string;
  readonly bitmaps: readonly (string | Bitmap)[];
}
interface SnapshotArgs {
  readonly node: string;
  readonly overlay: string;
}

export type TransactionAction =
  | { readonly type: 'blockdev-snapshot'; readonly data: SnapshotArgs }
  | { readonly type: 'block-dirty-bitmap-add'; readonly data: BitmapToAdd }
  | {
      readonly type:
        | 'block-dirty-bitmap-remove'
        | 'block-dirty-bitmap-clear'
        | 'block-dirty-bitmap-enable'
        | 'block-dirty-bitmap-disable';
      readonly data: Bitmap;
    }
  | { readonly type: 'block-dirty-bitmap-merge'; readonly data: BitmapMerge }
  | { readonly type: 'abort'; readonly data: Nothing };

interface JobEndings {
  readonly 'job-id'?: string;
  readonly speed?: bigint;
  readonly 'filter-node-name'?: string;
  readonly 'auto-finalize'?: boolean;
  readonly 'auto-dismiss'?: boolean;
}
export interface MirrorArgs extends JobEndings {
  readonly device: string;
  readonly target: string;
  readonly replaces?: string;
  readonly sync: MirrorSyncMode;
  readonly granularity?: number;
  readonly 'buf-size'?: bigint;
  readonly 'on-source-error'?: OnError;
  readonly 'on-target-error'?: OnError;
  readonly 'copy-mode'?: MirrorCopyMode;
}
export interface CommitArgs extends JobEndings {
  readonly device: string;
  readonly 'base-node'?: string;
  readonly 'top-node'?: string;
  readonly 'backing-file'?: string;
  readonly 'on-error'?: OnError;
}
export interface StreamArgs extends JobEndings {
  readonly device: string;
  readonly 'base-node'?: string;
  readonly bottom?: string;
  readonly 'backing-file'?: string;
  readonly 'on-error'?: OnError;
}

export type ThrottleArgs = {
  readonly [K in 'bps' | 'bps_rd' | 'bps_wr' | 'iops' | 'iops_rd' | 'iops_wr']: bigint;
} & {
  readonly [
    K in
      | 'bps_max'
      | 'bps_rd_max'
      | 'bps_wr_max'
      | 'iops_max'
      | 'iops_rd_max'
      | 'iops_wr_max'
      | 'iops_size'
  ]?: bigint;
} & { readonly device?: string; readonly id?: string; readonly group?: string };

export type YankInstance =
  | { readonly type: 'block-node'; readonly 'node-name': string }
  | { readonly type: 'chardev'; readonly id: string }
  | { readonly type: 'migration' };

/** A command with arguments and nothing to say. */
interface Does<A> {
  readonly args: A;
  readonly reply: Nothing;
}
interface Answers<A, R> {
  readonly args: A;
  readonly reply: R;
}
type Id = { readonly id: string };
type Device = { readonly device: string };

export interface Commands {
  balloon: Does<{ readonly value: bigint }>;
  'block-commit': Does<CommitArgs>;
  'block-dirty-bitmap-add': Does<BitmapToAdd>;
  'block-dirty-bitmap-remove': Does<Bitmap>;
  'block-job-cancel': Does<Device & { readonly force?: boolean }>;
  'block-job-change': Does<Id & { readonly type: 'mirror'; readonly 'copy-mode': MirrorCopyMode }>;
  'block-job-complete': Does<Device>;
  'block-job-pause': Does<Device>;
  'block-job-resume': Does<Device>;
  'block-job-set-speed': Does<Device & { readonly speed: bigint }>;
  'block-latency-histogram-set': Does<
    Id & {
      readonly [
        K in 'boundaries' | 'boundaries-read' | 'boundaries-write' | 'boundaries-flush'
      ]?: readonly bigint[];
    }
  >;
  'block-set-write-threshold': Does<{
    readonly 'node-name': string;
    readonly 'write-threshold': bigint;
  }>;
  'block-stream': Does<StreamArgs>;
  block_resize: Does<{
    readonly device?: string;
    readonly 'node-name'?: string;
    readonly size: bigint;
  }>;
  block_set_io_throttle: Does<ThrottleArgs>;
  'blockdev-add': Does<BlockdevOptions>;
  'blockdev-create': Does<{ readonly 'job-id': string; readonly options: BlockdevCreateOptions }>;
  'blockdev-del': Does<{ readonly 'node-name': string }>;
  'blockdev-mirror': Does<MirrorArgs>;
  'blockdev-reopen': Does<{ readonly options: readonly BlockdevOptions[] }>;
  'blockdev-snapshot': Does<SnapshotArgs>;
  'change-backing-file': Does<
    Device & { readonly 'image-node-name': string; readonly 'backing-file': string }
  >;
  'chardev-add': Answers<Id & { readonly backend: JsonObject }, { readonly pty?: string }>;
  'chardev-remove': Does<Id>;
  cont: Does<Nothing>;
  device_add: Does<{ readonly driver: string; readonly id?: string } & JsonObject>;
  device_del: Does<Id>;
  eject: Does<{ readonly id: string; readonly force?: boolean }>;
  'human-monitor-command': Answers<
    { readonly 'command-line': string; readonly 'cpu-index'?: number },
    string
  >;
  'inject-nmi': Does<Nothing>;
  'job-cancel': Does<Id>;
  'job-complete': Does<Id>;
  'job-dismiss': Does<Id>;
  'job-finalize': Does<Id>;
  'job-pause': Does<Id>;
  'job-resume': Does<Id>;
  'object-add': Does<{ readonly 'qom-type': string; readonly id: string } & JsonObject>;
  'object-del': Does<Id>;
  qmp_capabilities: Does<{ readonly enable?: readonly 'oob'[] }>;
  'qom-get': Answers<{ readonly path: string; readonly property: string }, JsonValue>;
  'qom-set': Does<{ readonly path: string; readonly property: string; readonly value: JsonValue }>;
  'query-balloon': Answers<Nothing, { readonly actual: bigint }>;
  'query-block': Answers<Nothing, readonly BlockInfo[]>;
  'query-block-jobs': Answers<Nothing, readonly BlockJobInfo[]>;
  'query-blockstats': Answers<{ readonly 'query-nodes'?: boolean }, readonly BlockStats[]>;
  'query-chardev': Answers<Nothing, readonly ChardevInfo[]>;
  'query-command-line-options': Answers<{ readonly option?: string }, readonly CommandLineOption[]>;
  'query-cpu-definitions': Answers<Nothing, readonly CpuDefinition[]>;
  'query-cpus-fast': Answers<Nothing, readonly CpuInfo[]>;
  'query-jobs': Answers<Nothing, readonly JobInfo[]>;
  'query-kvm': Answers<Nothing, { readonly enabled: boolean; readonly present: boolean }>;
  'query-machines': Answers<Nothing, readonly MachineInfo[]>;
  'query-named-block-nodes': Answers<{ readonly flat?: boolean }, readonly BlockDeviceInfo[]>;
  /** Read it with `parseSchema`. */
  'query-qmp-schema': Answers<Nothing, readonly JsonObject[]>;
  'query-status': Answers<Nothing, StatusInfo>;
  'query-target': Answers<Nothing, { readonly arch: string }>;
  'query-version': Answers<Nothing, VersionInfo>;
  'query-yank': Answers<Nothing, readonly YankInstance[]>;
  quit: Does<Nothing>;
  'send-key': Does<{
    readonly keys: readonly { readonly type: 'number' | 'qcode'; readonly data: string | number }[];
    readonly 'hold-time'?: number;
  }>;
  'set-action': Does<{
    readonly reboot?: 'reset' | 'shutdown';
    readonly shutdown?: 'poweroff' | 'pause';
    readonly panic?: 'pause' | 'shutdown' | 'exit-failure' | 'none';
    readonly watchdog?:
      | 'reset'
      | 'shutdown'
      | 'poweroff'
      | 'pause'
      | 'debug'
      | 'none'
      | 'inject-nmi';
  }>;
  stop: Does<Nothing>;
  system_powerdown: Does<Nothing>;
  system_reset: Does<Nothing>;
  system_wakeup: Does<Nothing>;
  transaction: Does<{ readonly actions: readonly TransactionAction[] }>;
  'x-debug-query-block-graph': Answers<Nothing, BlockGraph>;
  yank: Does<{ readonly instances: readonly YankInstance[] }>;
}

export type CommandName = keyof Commands;
export type ArgsOf<C extends CommandName> = Commands[C]['args'];
export type ReplyOf<C extends CommandName> = Commands[C]['reply'];

interface JobEnd {
  readonly type: JobType;
  readonly device: string;
  readonly len: bigint;
  readonly offset: bigint;
  readonly speed: bigint;
}
interface GuestReset {
  readonly guest: boolean;
  readonly reason: string;
}
interface Panicked {
  readonly action: 'pause' | 'poweroff' | 'run';
  readonly info?: JsonObject;
}

/** Event names and their `data`. */
export interface Events {
  BALLOON_CHANGE: { readonly actual: bigint };
  BLOCK_IMAGE_CORRUPTED: {
    readonly device: string;
    readonly 'node-name'?: string;
    readonly msg: string;
    readonly offset?: bigint;
    readonly size?: bigint;
    readonly fatal: boolean;
  };
  BLOCK_IO_ERROR: {
    readonly device: string;
    readonly 'node-name'?: string;
    readonly operation: 'read' | 'write';
    readonly action: 'ignore' | 'report' | 'stop';
    readonly nospace?: boolean;
    readonly reason: string;
  };
  BLOCK_JOB_CANCELLED: JobEnd;
  BLOCK_JOB_COMPLETED: JobEnd & { readonly error?: string };
  BLOCK_JOB_ERROR: {
    readonly device: string;
    readonly operation: 'read' | 'write';
    readonly action: 'ignore' | 'report' | 'stop';
  };
  BLOCK_JOB_PENDING: { readonly type: JobType; readonly id: string };
  BLOCK_JOB_READY: JobEnd;
  BLOCK_WRITE_THRESHOLD: {
    readonly 'node-name': string;
    readonly 'amount-exceeded': bigint;
    readonly 'write-threshold': bigint;
  };
  DEVICE_DELETED: { readonly device?: string; readonly path: string };
  DEVICE_TRAY_MOVED: {
    readonly device: string;
    readonly id: string;
    readonly 'tray-open': boolean;
  };
  DEVICE_UNPLUG_GUEST_ERROR: { readonly device?: string; readonly path: string };
  GUEST_CRASHLOADED: Panicked;
  GUEST_PANICKED: Panicked;
  JOB_STATUS_CHANGE: { readonly id: string; readonly status: JobStatus };
  POWERDOWN: Nothing;
  RESET: GuestReset;
  RESUME: Nothing;
  RTC_CHANGE: { readonly offset: bigint };
  SHUTDOWN: GuestReset;
  STOP: Nothing;
  SUSPEND: Nothing;
  SUSPEND_DISK: Nothing;
  VSERPORT_CHANGE: { readonly id: string; readonly open: boolean };
  WAKEUP: Nothing;
  WATCHDOG: { readonly action: string };
}

export type EventName = keyof Events;
/** An event as it came; for several names a union that `event` tells apart. */
export type EventOf<E extends EventName> = {
  readonly [K in E]: {
    readonly event: K;
    readonly data: Events[K];
    readonly timestamp: { readonly seconds: number; readonly microseconds: number };
  };
}[E];
/** An event of any name, known here or not. */
export interface AnyEvent {
  readonly event: string;
  readonly data: JsonObject;
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}
