// Stands between the daemon and its QEMU on the QMP socket, so that a test can have QEMU refuse what it would have
// done: the real one on the other side never hears of a command that is struck.

import { rename } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface SeenCommand {
  readonly execute: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** The text of the error that QEMU gives to a command; null lets it pass. */
export type Refuse = (command: SeenCommand) => string | null;

interface Message {
  readonly execute?: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
  readonly id?: unknown;
}

export class Interposer implements AsyncDisposable {
  /** Every command that came, struck or not. */
  readonly seen: SeenCommand[] = [];
  refuse: Refuse = () => null;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.server = server;
  }

  /** Takes the place of QEMU's socket. Whoever is connected to it stays so: interpose while no daemon runs. */
  static async open(path: string): Promise<Interposer> {
    const real = `${path}.real`;
    await rename(path, real);
    const server = createServer();
    const interposer = new Interposer(server);
    server.on('connection', (client) => interposer.join(client, real));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return interposer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private join(client: Socket, real: string): void {
    const qemu = connect(real);
    for (const [socket, other] of [
      [client, qemu],
      [qemu, client],
    ] as const) {
      this.sockets.add(socket);
      socket.on('error', () => undefined); // 'close' follows
      socket.on('close', () => {
        this.sockets.delete(socket);
        other.destroy();
      });
    }
    onLines(client, (line) => this.pass(line, client, qemu));
    onLines(qemu, (line) => void client.write(`${line}\n`));
  }

  private pass(line: string, client: Socket, qemu: Socket): void {
    const message = JSON.parse(line) as Message & { readonly 'exec-oob'?: string }; // the daemon's own words
    const execute = message.execute ?? message['exec-oob'] ?? '';
    const command = { execute, arguments: message.arguments ?? {} };
    this.seen.push(command);
    const desc = this.refuse(command);
    if (desc === null) qemu.write(`${line}\n`);
    else {
      const error = { class: 'GenericError', desc };
      client.write(`${JSON.stringify({ error, id: message.id })}\n`);
    }
  }
}

/** Whole lines only: what we put in between must not come in the middle of one. */
function onLines(socket: Socket, take: (line: string) => void): void {
  let rest = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    lines.forEach(take);
  });
}
