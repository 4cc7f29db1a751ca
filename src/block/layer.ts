// One image of a disk, where it lives, and the chain that images form. Pure data: compared by location, never by
// node name (QEMU rewrites `filename` to `json:{…}` once a backing node was given; see QAPI BlockdevRef).

/** A format that we open. Never guessed: it comes from a definition or from the header above (law 7). */
export type Format = 'raw' | 'qcow2';

/** Where an image lives, in the terms of libvirt's `<source>`. */
export type StorageSource =
  | { readonly type: 'file'; readonly path: string }
  | { readonly type: 'block'; readonly path: string }
  | {
      readonly type: 'network';
      readonly protocol: 'nbd';
      readonly name: string;
      readonly host: NbdHost;
      /** With TLS: the folder of its x509 credentials on this host (QEMU's `tls-creds-x509`). Left out: without. */
      readonly tlsCreds?: string;
    };

export type NbdHost =
  | { readonly transport: 'tcp'; readonly name: string; readonly port: number }
  | { readonly transport: 'unix'; readonly socket: string };

/** An image as the XML names it. `index` is libvirt's `<source index=>`: null until a running domain opened it. */
export interface Image {
  readonly source: StorageSource;
  readonly format: Format;
  readonly index: number | null;
}

/** An image that a running domain has open. Its node names follow from `index`, which is never used twice in one life. */
export interface Layer extends Image {
  readonly index: number;
}

/** Names the format node of an open image. QEMU allows 31 characters. */
export const formatNode = (layer: { readonly index: number }): string =>
  `ferry-${layer.index}-format`;

/** Names the protocol node below it; owned by the format node, so that one `blockdev-del` removes both. */
export const protocolNode = (layer: { readonly index: number }): string =>
  `ferry-${layer.index}-storage`;

/** A path on this host; null for what the network holds. */
export const localPath = (source: StorageSource): string | null =>
  source.type === 'network' ? null : source.path;

/** One line that names a location in messages: the path, or the NBD URI. */
export function showSource(source: StorageSource): string {
  if (source.type !== 'network') return source.path;
  const at =
    source.host.transport === 'unix'
      ? `unix:${source.host.socket}`
      : `${source.host.name}:${source.host.port}`;
  return `${source.tlsCreds === undefined ? 'nbd' : 'nbds'}://${at}/${source.name}`;
}

export const sameSource = (a: StorageSource, b: StorageSource): boolean =>
  showSource(a) === showSource(b);
