// Names of images for QEMU's tools that need no quoting and say everything: nothing is probed, no header is followed (law 7).

import type { Backing } from './store.js';

/** A chain, active first; a chain of one is that header alone. */
export const chainName = (chain: readonly Backing[]): string =>
  `json:${JSON.stringify(nodeOf(chain))}`;

function nodeOf([top, ...below]: readonly Backing[]): object | null {
  if (top === undefined) return null;
  const node = { driver: top.format, file: protocolOf(top.path) };
  // Only drivers with a header know `backing`; raw refuses even null.
  return top.format === 'raw' ? node : { ...node, backing: nodeOf(below) };
}

const protocolOf = (path: string): { readonly driver: string; readonly filename: string } => ({
  driver: path.startsWith('/dev/') ? 'host_device' : 'file',
  filename: path,
});
