// An NBD server that a test can stop, let go on, kill and start again; and certificates for one with TLS.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { until } from '../../src/std/deadline.js';
import { must } from './process.js';
import type { TestQemu } from './qemu.js';

export interface NbdServerOptions {
  readonly qemu: TestQemu;
  /** Raw, served whole. */
  readonly file: string;
  readonly name: string;
  /** Folder of its x509 credentials; left out: without TLS. */
  readonly creds?: string;
}

/** Close it before its lab. */
export class NbdServer implements AsyncDisposable {
  readonly port: number;
  private readonly options: NbdServerOptions;
  private child: ChildProcess;

  private constructor(options: NbdServerOptions, port: number, child: ChildProcess) {
    this.options = options;
    this.port = port;
    this.child = child;
  }

  static async start(options: NbdServerOptions): Promise<NbdServer> {
    const port = await freePort();
    return new NbdServer(options, port, await launched(options, port));
  }

  /** `nbd://…` or `nbds://…`. */
  get uri(): string {
    const { creds, name } = this.options;
    return `nbd${creds === undefined ? '' : 's'}://localhost:${this.port}/${name}`;
  }

  hang(): void {
    this.child.kill('SIGSTOP');
  }

  heal(): void {
    this.child.kill('SIGCONT');
  }

  async die(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await gone;
  }

  async again(): Promise<void> {
    await this.die();
    this.child = await launched(this.options, this.port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.die();
  }
}

async function launched(
  { qemu, file, name, creds }: NbdServerOptions,
  port: number,
): Promise<ChildProcess> {
  const tls =
    creds === undefined
      ? []
      : ['--object', `tls-creds-x509,id=tls,dir=${creds},endpoint=server,verify-peer=on`];
  const pidFile = `${file}.${port}.pid`;
  const child = spawn(
    qemu.storageDaemon,
    [
      ...tls,
      '--blockdev',
      `driver=file,node-name=file,filename=${file},discard=unmap`,
      '--nbd-server',
      `addr.type=inet,addr.host=localhost,addr.port=${port}${creds === undefined ? '' : ',tls-creds=tls'}`,
      '--export',
      `type=nbd,id=export,node-name=file,name=${name},writable=on`,
      '--pidfile',
      pidFile,
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const { pid } = child;
  await until(
    async () =>
      (await must('cat', [pidFile]).catch(() => '')).trim() === String(pid) ? true : null,
    20_000,
    `NBD server on port ${port}`,
  );
  return child;
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, 'localhost');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Folders `server` and `client` of a certificate authority of its own, for `localhost`. */
export async function certificates(
  directory: string,
): Promise<{ readonly server: string; readonly client: string }> {
  const ssl = async (...args: readonly string[]): Promise<string> => await must('openssl', args);
  const ca = join(directory, 'ca');
  const [server, client] = [join(directory, 'server'), join(directory, 'client')];
  for (const folder of [ca, server, client]) await mkdir(folder, { recursive: true });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const authority = ['-addext', 'keyUsage=critical,keyCertSign'];
  const caCert = join(ca, 'ca-cert.pem');
  const caKey = join(ca, 'ca-key.pem');
  await ssl(
    'req',
    '-x509',
    ...key,
    ...authority,
    '-subj',
    '/CN=test',
    '-keyout',
    caKey,
    '-out',
    caCert,
  );
  for (const [folder, who] of [
    [server, 'server'],
    [client, 'client'],
  ] as const) {
    const [own, request] = [join(folder, `${who}-key.pem`), join(folder, 'request.pem')];
    const extensions = join(folder, 'extensions');
    await writeFile(
      extensions,
      `subjectAltName=DNS:localhost\nkeyUsage=digitalSignature\nextendedKeyUsage=${who}Auth\nbasicConstraints=critical,CA:FALSE\n`,
    );
    await ssl('req', ...key.slice(0, 5), '-subj', `/CN=${who}`, '-keyout', own, '-out', request);
    const made = join(folder, `${who}-cert.pem`);
    const signed = ['-CA', caCert, '-CAkey', caKey, '-CAcreateserial', '-days', '2'];
    await ssl('x509', '-req', '-in', request, ...signed, '-extfile', extensions, '-out', made);
    await must('cp', [caCert, join(folder, 'ca-cert.pem')]);
  }
  return { server, client };
}
