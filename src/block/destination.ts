// Where a move goes, as a person says it: a folder, a block device (`block:/dev/…`), an NBD export (`nbd://HOST:PORT/NAME`,
// `nbd+unix:///NAME?socket=PATH`, both with TLS `nbds://…`; NBD's uri.md).

import { join, resolve } from 'node:path';

import type { NbdHost } from './layer.js';

/** `auto`: an overlay where it can be made, for a crash costs less then. */
export const moveStrategies = ['auto', 'overlay', 'full'] as const;
export type MoveStrategy = (typeof moveStrategies)[number];

export type Destination =
  /** Or a file in one: `host/move-look` finds out. */
  | { readonly kind: 'folder'; readonly path: string }
  | { readonly kind: 'block'; readonly path: string }
  | {
      readonly kind: 'nbd';
      readonly name: string;
      readonly host: NbdHost;
      readonly isTls: boolean;
    };

const defaultPort = 10809;
/** Not `nbds+unix:`: a certificate is checked against the name of a host. */
const nbdSchemes = ['nbd:', 'nbds:', 'nbd+unix:'];

/** A text instead: why it is none, as the end of a sentence. */
export function destinationOf(text: string): Destination | string {
  if (text.startsWith('block:')) {
    const path = text.slice('block:'.length);
    return path.startsWith('/')
      ? { kind: 'block', path }
      : 'a block device needs an absolute path, such as block:/dev/vg/vm1';
  }
  if (!/^nbds?(\+unix)?:/.test(text)) return { kind: 'folder', path: text };
  return nbdOf(text);
}

function nbdOf(text: string): Destination | string {
  const how = 'say nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=/PATH';
  let url: URL;
  let name: string;
  try {
    url = new URL(text);
    name = decodeURIComponent(url.pathname.replace(/^\//, ''));
  } catch {
    return `it is no NBD URI; ${how}`;
  }
  if (!nbdSchemes.includes(url.protocol)) return `it is no NBD URI; ${how}`;
  if (url.username !== '' || url.password !== '' || url.hash !== '')
    return `a user, a password or a fragment is nothing to NBD; ${how}`;
  const isTls = url.protocol.startsWith('nbds');
  const socket = url.searchParams.get('socket');
  if ([...url.searchParams.keys()].some((key) => key !== 'socket'))
    return `it says more than socket=; ${how}`;
  if (url.protocol.endsWith('+unix:')) {
    if (socket === null || !socket.startsWith('/'))
      return `the path of its socket is missing; ${how}`;
    return { kind: 'nbd', name, host: { transport: 'unix', socket }, isTls };
  }
  // WHATWG keeps the brackets of an IPv6 address.
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  if (host === '' || socket !== null) return `the host is missing; ${how}`;
  const port = url.port === '' ? defaultPort : Number(url.port);
  return { kind: 'nbd', name, host: { transport: 'tcp', name: host, port }, isTls };
}

/** What is relative is so to the folder that the caller is in. A slash at the end of a path stays: it tells a folder. */
export function absoluteDestination(text: string): string {
  if (text.startsWith('block:')) return `block:${resolve(text.slice('block:'.length))}`;
  if (/^nbds?(\+unix)?:/.test(text)) return text;
  return text.endsWith('/') ? join(resolve(text), '/') : resolve(text);
}
