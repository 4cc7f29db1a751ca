// Options of block nodes: the drivers that this project builds graphs from. `blockdev-add` of another driver
// goes through `executeRaw`.

/** A node by name, or a definition of one that its parent then owns. */
export type BlockdevRef = BlockdevOptions | string;

interface Common {
  readonly 'node-name'?: string;
  readonly discard?: 'ignore' | 'unmap';
  readonly cache?: { readonly direct?: boolean; readonly 'no-flush'?: boolean };
  readonly 'read-only'?: boolean;
  readonly 'auto-read-only'?: boolean;
  readonly 'force-share'?: boolean;
  readonly 'detect-zeroes'?: 'off' | 'on' | 'unmap';
}

interface FileOptions extends Common {
  readonly driver: 'file' | 'host_device' | 'host_cdrom';
  readonly filename: string;
  readonly locking?: 'auto' | 'off' | 'on';
  readonly aio?: 'threads' | 'native' | 'io_uring';
}
interface Qcow2Options extends Common {
  readonly driver: 'qcow2';
  readonly file: BlockdevRef;
  /** null: opened as if the header named none. Absent: QEMU opens what the header names. */
  readonly backing?: BlockdevRef | null;
  readonly 'lazy-refcounts'?: boolean;
  readonly 'pass-discard-request'?: boolean;
  readonly 'pass-discard-snapshot'?: boolean;
  readonly 'discard-no-unref'?: boolean;
  readonly 'cache-size'?: bigint;
  readonly 'l2-cache-size'?: bigint;
  readonly 'cache-clean-interval'?: number;
  readonly encrypt?: { readonly format: 'luks'; readonly 'key-secret'?: string };
}
interface RawOptions extends Common {
  readonly driver: 'raw';
  readonly file: BlockdevRef;
  readonly offset?: bigint;
  readonly size?: bigint;
}
interface LuksOptions extends Common {
  readonly driver: 'luks';
  readonly file: BlockdevRef;
  readonly 'key-secret'?: string;
}
interface NbdOptions extends Common {
  readonly driver: 'nbd';
  readonly server:
    | { readonly type: 'unix'; readonly path: string }
    | { readonly type: 'inet'; readonly host: string; readonly port: string };
  readonly export?: string;
  readonly 'tls-creds'?: string;
  readonly 'tls-hostname'?: string;
  readonly 'reconnect-delay'?: number;
  readonly 'open-timeout'?: number;
}
interface ThrottleOptions extends Common {
  readonly driver: 'throttle';
  readonly 'throttle-group': string;
  readonly file: BlockdevRef;
}
interface NullOptions extends Common {
  readonly driver: 'null-co' | 'null-aio';
  readonly size?: bigint;
  readonly 'read-zeroes'?: boolean;
}

export type BlockdevOptions =
  | FileOptions
  | Qcow2Options
  | RawOptions
  | LuksOptions
  | NbdOptions
  | ThrottleOptions
  | NullOptions;

export type BlockdevCreateOptions =
  | { readonly driver: 'file'; readonly filename: string; readonly size: bigint }
  | {
      readonly driver: 'qcow2';
      readonly file: BlockdevRef;
      readonly size: bigint;
      readonly 'cluster-size'?: number;
      readonly 'backing-file'?: string;
      readonly 'backing-fmt'?: string;
      readonly preallocation?: 'off' | 'metadata' | 'falloc' | 'full';
      readonly 'extended-l2'?: boolean;
    };
