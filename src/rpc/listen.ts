// The two Unix sockets of the libvirt door, and the clients behind them.
//
// Who may connect is decided by the modes of the sockets and of their directory alone: Node can read no peer
// credentials. Whoever reaches the socket for writing may do everything.

import { chmod, lstat, mkdir, unlink } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';

import { StateError, SystemError, messageOf } from '../std/errors.js';
import { Connection, type ConnectionOptions } from './connection.js';

/** libvirtd's max_clients. */
const MAX_CLIENTS = 5000;

const isRoot = process.getuid?.() === 0;

/** As libvirtd has them: its group may write, everybody may look; a user's own daemon is the user's own. */
const sockets = [
  { name: 'libvirt-sock', readOnly: false, mode: isRoot ? 0o770 : 0o600 },
  { name: 'libvirt-sock-ro', readOnly: true, mode: isRoot ? 0o777 : 0o600 },
] as const;

export interface ListenOptions extends Omit<ConnectionOptions, 'readOnly'> {
  /** Where the sockets are made; created, for this user alone, when it is missing. */
  readonly directory: string;
}

/** The libvirt door, open. */
export interface LibvirtServer extends AsyncDisposable {
  /** What a client puts behind `socket=`. */
  readonly path: string;
  readonly readOnlyPath: string;
  readonly clients: number;
  /** Ends all clients and removes the sockets. Calls in flight run to their end unheard. Idempotent. */
  close(): Promise<void>;
}

/**
 * Listens for libvirt clients of `options.host`.
 *
 * A socket that nobody listens on any more is replaced.
 *
 * @throws {StateError} another daemon listens there.
 */
export async function listen(options: ListenOptions): Promise<LibvirtServer> {
  const clients = new Set<Connection>();
  await mkdir(options.directory, { recursive: true, mode: 0o700 });
  const servers: Server[] = [];
  const closeAll = async (): Promise<void> => {
    const ended = servers.map(closeServer); // first: no client comes in while the others are ended
    await Promise.all([...clients].map((client) => client.close()));
    await Promise.all(ended);
  };
  try {
    for (const { name, readOnly, mode } of sockets) {
      const path = join(options.directory, name);
      await removeStale(path);
      servers.push(await serve(path, mode, { ...options, readOnly }, clients));
    }
  } catch (error) {
    await closeAll();
    throw error;
  }
  return {
    path: join(options.directory, sockets[0].name),
    readOnlyPath: join(options.directory, sockets[1].name),
    get clients() {
      return clients.size;
    },
    close: closeAll,
    [Symbol.asyncDispose]: closeAll,
  };
}

async function serve(
  path: string,
  mode: number,
  options: ConnectionOptions,
  clients: Set<Connection>,
): Promise<Server> {
  const server = createServer((socket) => {
    if (clients.size >= MAX_CLIENTS) {
      socket.destroy();
      return;
    }
    const client = new Connection(socket, options);
    clients.add(client);
    void client.closed.then(() => clients.delete(client));
  });
  await listening(server, path);
  await chmod(path, mode);
  return server;
}

async function listening(server: Server, path: string): Promise<void> {
  // listen() binds before it returns: nobody can connect between the bind and the chmod.
  const umask = process.umask(0o177);
  try {
    server.listen(path);
  } finally {
    process.umask(umask);
  }
  await new Promise<void>((resolve, reject) => {
    server.once('listening', resolve);
    server.once('error', (cause) =>
      reject(new SystemError(`cannot listen on '${path}': ${messageOf(cause)}`, { cause })),
    );
  });
}

/** A socket file outlives its process. Connecting tells whether there is one. */
async function removeStale(path: string): Promise<void> {
  const code = await new Promise<string | null>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(null);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'unknown'));
  });
  if (code === null)
    throw new StateError('OPERATION_INVALID', `'${path}' is served by another daemon`);
  // A plain file refuses as well; that one is not ours to remove, and listen() will say that it is in the way.
  if (code === 'ECONNREFUSED' && (await lstat(path)).isSocket()) await unlink(path);
}

async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  await new Promise((resolve) => server.close(resolve));
}
