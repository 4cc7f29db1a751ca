// The node graph of a disk as QEMU is asked to build it: per image one format node that owns an inline protocol child.
// Pure. The options that open a node (`-blockdev`, `blockdev-add`) are repeated whole to reopen it (QAPI BlockdevOptions).

import type { Format, Layer, NbdHost, StorageSource } from './layer.js';
import { formatNode, protocolNode } from './layer.js';

/** QAPI BlockdevCacheOptions. */
export interface CacheOptions {
  readonly direct: boolean;
  readonly 'no-flush': boolean;
}

/** QAPI BlockdevOptions of the drivers `file`, `host_device` and `nbd`. */
export type ProtocolOptions = {
  readonly 'node-name': string;
  readonly 'auto-read-only': boolean;
  readonly discard: 'unmap';
  readonly cache?: CacheOptions;
} & (
  | {
      readonly driver: 'file' | 'host_device';
      readonly filename: string;
      readonly aio?: 'native' | 'threads' | 'io_uring';
    }
  | {
      readonly driver: 'nbd';
      readonly server: NbdServer;
      readonly export: string;
      readonly 'reconnect-delay': 0;
      readonly 'tls-creds'?: string;
    }
);

export type NbdServer =
  | { readonly type: 'inet'; readonly host: string; readonly port: string }
  | { readonly type: 'unix'; readonly path: string };

interface FormatOptions {
  readonly 'node-name': string;
  readonly driver: Format;
  readonly 'read-only': boolean;
  readonly cache?: CacheOptions;
  readonly discard?: 'ignore' | 'unmap';
  readonly 'detect-zeroes'?: 'off' | 'on' | 'unmap';
  /** Raw only: what of a longer device is the image. */
  readonly size?: bigint;
  /** A node name; null: nothing below, whatever the header says. Not given: QEMU follows the header. */
  readonly backing?: string | null;
}

/** Argument of `blockdev-add` and, as JSON, of `-blockdev`. */
export interface BlockdevOptions extends FormatOptions {
  readonly file: ProtocolOptions;
}

/** One of the `options` of `blockdev-reopen`: the child by its node name, everything else said again. */
export interface ReopenOptions extends FormatOptions {
  readonly file: string;
}

/** What a disk says about how its images are opened; the shape of a disk's `<driver>`. */
export interface OpenHow {
  readonly cache: 'none' | 'writethrough' | 'writeback' | 'directsync' | 'unsafe' | null;
  readonly io: 'native' | 'threads' | 'io_uring' | null;
  readonly discard: 'ignore' | 'unmap' | null;
  readonly detectZeroes: 'off' | 'on' | 'unmap' | null;
}

export interface NodeOptions {
  readonly driver: OpenHow;
  readonly readOnly: boolean;
  /** Node name of the image below; null: nothing below; undefined: follow the header (raw images have none). */
  readonly backing: string | null | undefined;
  /** Of a raw image on something that may be longer than it. Left out: all of it is the image. */
  readonly sizeBytes?: bigint;
}

/** `<driver cache=>` in QEMU's terms; the third, whether the guest sees a write cache, belongs to the device. */
const cacheModes = {
  none: { direct: true, 'no-flush': false },
  writethrough: { direct: false, 'no-flush': false },
  writeback: { direct: false, 'no-flush': false },
  directsync: { direct: true, 'no-flush': false },
  unsafe: { direct: false, 'no-flush': true },
} as const satisfies Record<NonNullable<OpenHow['cache']>, CacheOptions>;

/** The device's `write-cache`; null leaves QEMU's default, on. */
export function writeCache(cache: OpenHow['cache']): 'on' | 'off' | null {
  if (cache === null) return null;
  return cache === 'writethrough' || cache === 'directsync' ? 'off' : 'on';
}

/** What opens `layer`: its format node and the protocol node that goes with it. */
export function blockdevOptions(layer: Layer, options: NodeOptions): BlockdevOptions {
  return { ...formatOptions(layer, options), file: protocolOptions(layer, options.driver) };
}

/** What reopens the format node of `layer`; a missing option would fall back to QEMU's default. */
export function reopenOptions(layer: Layer, options: NodeOptions): ReopenOptions {
  return { ...formatOptions(layer, options), file: protocolNode(layer) };
}

/**
 * Opens a whole chain, base first, so that each format node finds the one below by name and nothing below the base.
 * Only the active layer takes `discard` and `detect-zeroes`, and only it may be writable.
 */
export function chainOptions(
  chain: readonly Layer[],
  driver: OpenHow,
  readOnly: boolean,
): readonly BlockdevOptions[] {
  const below: OpenHow = { ...driver, discard: null, detectZeroes: null };
  return chain
    .map((layer, i) => {
      const next = chain[i + 1];
      return blockdevOptions(layer, {
        driver: i === 0 ? driver : below,
        readOnly: i > 0 || readOnly,
        backing: next === undefined ? null : formatNode(next),
      });
    })
    .toReversed();
}

function formatOptions(layer: Layer, options: NodeOptions): FormatOptions {
  const { cache, discard, detectZeroes } = options.driver;
  return {
    'node-name': formatNode(layer),
    driver: layer.format,
    'read-only': options.readOnly,
    ...(cache === null ? {} : { cache: cacheModes[cache] }),
    ...(discard === null ? {} : { discard }),
    ...(detectZeroes === null ? {} : { 'detect-zeroes': detectZeroes }),
    ...(options.sizeBytes === undefined || layer.format !== 'raw'
      ? {}
      : { size: options.sizeBytes }),
    // Only drivers with a header know `backing`; raw refuses even null.
    ...(options.backing === undefined || layer.format === 'raw'
      ? {}
      : { backing: options.backing }),
  };
}

function protocolOptions(layer: Layer, driver: OpenHow): ProtocolOptions {
  const common = {
    'node-name': protocolNode(layer),
    // The format node says whether it writes; the file follows it, also through commit and snapshot.
    'auto-read-only': true,
    discard: 'unmap' as const,
    ...(driver.cache === null ? {} : { cache: cacheModes[driver.cache] }),
  };
  return { ...common, ...location(layer.source, driver) };
}

/** QAPI SocketAddress. */
export const nbdServer = (host: NbdHost): NbdServer =>
  host.transport === 'unix'
    ? { type: 'unix', path: host.socket }
    : { type: 'inet', host: host.name, port: String(host.port) };

/** The object that holds the credentials of a folder; one for all that is opened with them. */
export const tlsCredsOf = (folder: string): string =>
  `tls-${folder.replaceAll(/[^A-Za-z0-9]/g, (sign) => `.${sign.codePointAt(0)?.toString(16)}`)}`;

/** QAPI TlsCredsX509Properties, of a client that checks whom it talks to. */
export const tlsCredsOptions = (id: string, folder: string): object => ({
  'qom-type': 'tls-creds-x509',
  id,
  dir: folder,
  endpoint: 'client',
  'verify-peer': true,
});

function location(source: StorageSource, driver: OpenHow) {
  if (source.type === 'network') {
    const server = nbdServer(source.host);
    const creds = source.tlsCreds === undefined ? {} : { 'tls-creds': tlsCredsOf(source.tlsCreds) };
    // Law 8: a restarted server is a lost mirror, never a silent reconnect.
    const common = { driver: 'nbd' as const, server, export: source.name, ...creds };
    return { ...common, 'reconnect-delay': 0 as const };
  }
  return {
    driver: source.type === 'block' ? ('host_device' as const) : ('file' as const),
    filename: source.path,
    ...(driver.io === null ? {} : { aio: driver.io }),
  };
}
