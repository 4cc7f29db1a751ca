// QEMU asked through the daemon, as `virsh qemu-monitor-command` does: its own words about its graph and its jobs.

import { connect } from 'node:net';

import { Client } from '../rpc/client.js';

/** virDomainQemuMonitorCommand, of the qemu program. */
const MONITOR_COMMAND = 1;

interface Domain {
  readonly name: string;
  readonly uuid: string;
}

export class MonitorDoor {
  private readonly path: string;
  private client: Client | null = null;

  constructor(path: string) {
    this.path = path;
  }

  /** The reply's value; `T` is the caller's reading of the QAPI schema. */
  async ask<T>({ name, uuid }: Domain, command: string, args: object = {}): Promise<T> {
    this.client ??= await this.open();
    const { body } = await this.client.call(
      MONITOR_COMMAND,
      {
        domain: { name, uuid, id: -1 },
        command: JSON.stringify({ execute: command, arguments: args }),
        flags: 0,
      },
      'qemu',
    );
    const { reply = '{}' } = body as { readonly reply?: string }; // an error has another shape
    const said = JSON.parse(reply) as { readonly return?: T }; // QEMU's own words
    if (said.return === undefined) throw new Error(`${command}: ${JSON.stringify(body)}`);
    return said.return;
  }

  /** Calls of virDomain… functions that take a domain only. */
  async tell({ name, uuid }: Domain, procedure: number): Promise<void> {
    this.client ??= await this.open();
    await this.client.call(procedure, { domain: { name, uuid, id: -1 } });
  }

  close(): void {
    this.client?.hangUp();
    this.client = null;
  }

  private async open(): Promise<Client> {
    const client = new Client(connect(this.path));
    await client.open();
    return client;
  }
}
