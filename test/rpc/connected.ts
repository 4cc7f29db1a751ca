// A client and a server with a pipe between them.

import { Connection, type ConnectionOptions } from '../../src/rpc/connection.js';
import { Client } from './client.js';
import { FakeHost, twoDomains } from './fake-host.js';
import { pipe } from './pipe.js';

export interface Connected {
  readonly client: Client;
  readonly connection: Connection;
  readonly host: FakeHost;
}

export type Changes = Partial<Omit<ConnectionOptions, 'host'>> & {
  readonly host?: FakeHost;
  readonly pipeBytes?: number;
};

/** Not opened yet. */
export function connected(changes: Changes = {}): Connected {
  const { pipeBytes, ...others } = changes;
  const host = changes.host ?? twoDomains();
  const [near, far] = pipe(pipeBytes);
  const connection = new Connection(far, { readOnly: false, ...others, host });
  return { client: new Client(near), connection, host };
}

/** Opened. */
export async function opened(changes: Changes = {}): Promise<Connected> {
  const both = connected(changes);
  await both.client.open();
  return both;
}

/** Lets everything happen that can happen without the outside world. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
}
