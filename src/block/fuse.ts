// The fuse of law 8: a `qemu-storage-daemon` of ours between a QEMU and an NBD server. When the server hangs it is
// killed, and what waited in QEMU for an answer gets an error instead. Plain data.

import type { StorageSource } from './layer.js';

export type NbdSource = Extract<StorageSource, { readonly type: 'network' }>;

export interface Fuse {
  /** Where it listens, and what it calls its export. */
  readonly socket: string;
  readonly name: string;
  readonly pidFile: string;
  /** The sockets that it began with, by which is seen whether it is connected to its server still or again. */
  readonly stateFile: string;
  readonly logFile: string;
  readonly server: NbdSource;
}

/** As QEMU sees what is behind it. */
export const throughFuse = ({ socket, name }: Fuse): NbdSource => ({
  type: 'network',
  protocol: 'nbd',
  name,
  host: { transport: 'unix', socket },
});
