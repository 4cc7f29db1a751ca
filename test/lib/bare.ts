// A QEMU without the daemon: the writing guest over block nodes that the caller names, and its QMP socket. For the
// regression tests of the block layer's laws, and for the bench.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { within } from '../../src/std/deadline.js';
import { guestFiles, kernelCommandLine, type Writer } from './guest.js';
import { killNow } from './process.js';
import { Qmp } from './qmp.js';
import { testQemus } from './qemu.js';
import { SerialWatch } from './serial.js';

export type BlockdevOptions = Readonly<Record<string, unknown>> & { readonly 'node-name': string };

export interface BareOptions {
  /** Where its sockets and logs go, under its name: a directory of a Lab. */
  readonly directory: string;
  readonly name?: string;
  /** One node for each disk of the guest; see `imageNode`. */
  readonly nodes: readonly BlockdevOptions[];
  readonly writer?: Writer;
  readonly qemu?: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** An image as QEMU opens it: a format node over a file node called NODE-file. */
export function imageNode(
  node: string,
  file: string,
  options: Readonly<Record<string, unknown>> = {},
): BlockdevOptions {
  return {
    driver: 'qcow2',
    'node-name': node,
    file: { driver: 'file', 'node-name': `${node}-file`, filename: file },
    ...options,
  };
}

export class BareGuest implements AsyncDisposable {
  readonly qmp: Qmp;
  readonly serial: SerialWatch;
  readonly pid: number;
  private readonly child: ChildProcess;

  private constructor(child: ChildProcess, pid: number, qmp: Qmp, serial: SerialWatch) {
    this.child = child;
    this.pid = pid;
    this.qmp = qmp;
    this.serial = serial;
  }

  static async start(options: BareOptions): Promise<BareGuest> {
    const base = join(options.directory, options.name ?? 'bare');
    const log = openSync(`${base}.log`, 'a');
    const child = spawn(options.qemu ?? testQemus()[0].system, await qemuArgs(options, base), {
      stdio: ['ignore', log, log],
      env: { ...process.env, ...options.env },
    });
    closeSync(log);
    const failed = once(child, 'exit').then(() =>
      Promise.reject(new Error(`QEMU ended: ${readFileSync(`${base}.log`, 'utf8')}`)),
    );
    const qmp = await Promise.race([Qmp.open(`${base}.qmp`), failed]);
    failed.catch(() => undefined); // ends later as it should
    return new BareGuest(child, child.pid ?? 0, qmp, new SerialWatch(`${base}.serial`));
  }

  /** Kills QEMU as a crash would, and waits until it is gone and its locks with it. */
  async kill9(): Promise<void> {
    killNow(this.pid);
    await this.ended();
  }

  /** Ends QEMU the clean way: everything is written out. */
  async quit(): Promise<void> {
    await this.qmp.execute('quit').catch(() => undefined); // it may close the socket before its answer
    await this.ended();
  }

  async ended(timeoutMs = 30_000): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    await within(once(this.child, 'exit'), timeoutMs, `end of QEMU ${this.pid}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill9();
    this.qmp[Symbol.dispose]();
    this.serial[Symbol.dispose]();
  }
}

async function qemuArgs(
  { nodes, writer = {}, args = [] }: BareOptions,
  base: string,
): Promise<string[]> {
  const { kernel, initramfs } = await guestFiles();
  const disks = nodes.flatMap((node, i) => [
    ...['-blockdev', JSON.stringify(node)],
    ...['-device', `virtio-blk-pci,drive=${node['node-name']},id=disk${i}`],
  ]);
  return [
    ...[
      '-machine',
      'pc,accel=tcg',
      '-cpu',
      'max',
      '-m',
      '96',
      '-nodefaults',
      '-no-user-config',
      '-display',
      'none',
    ],
    ...[
      '-kernel',
      kernel,
      '-initrd',
      initramfs,
      '-append',
      kernelCommandLine(nodes.length, writer),
    ],
    ...['-chardev', `file,id=serial,path=${base}.serial,append=on`, '-serial', 'chardev:serial'],
    ...['-qmp', `unix:${base}.qmp,server=on,wait=off`],
    ...disks,
    ...args,
  ];
}
