// Lines over a UNIX socket: framing and the limit on a line, no word of QMP.

import { createConnection, type Socket } from 'node:net';

export interface WireEvents {
  line(text: string): void;
  /** Once, after the last line. `cause` is null when the other side ended the stream in order. */
  closed(cause: Error | null): void;
}

/** One connected socket, read by lines. */
export interface Wire {
  send(line: string): void;
  /** Ends the socket; `closed` follows. */
  destroy(cause?: Error): void;
}

/** A line longer than the limit: the peer is not what it should be, and no memory is spent on it. */
export class LineTooLongError extends Error {
  override readonly name = 'LineTooLongError';
}

/**
 * Connects to the socket at `path`; `listeners` hears of lines from then on.
 *
 * @throws the socket's own error: ENOENT, ECONNREFUSED, EAGAIN (a full backlog), …
 */
export async function openWire(
  path: string,
  maxLineBytes: number,
  listeners: WireEvents,
): Promise<Wire> {
  const socket = await connected(path);
  const lines = new LineReader(maxLineBytes, listeners.line);
  let cause: Error | null = null;
  socket.on('data', (chunk) => {
    try {
      lines.take(chunk);
    } catch (error) {
      socket.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  });
  socket.on('error', (error) => (cause = error));
  socket.on('close', () => listeners.closed(cause));
  return {
    send: (line) => void (socket.destroyed || socket.write(`${line}\n`)),
    destroy: (error) => void socket.destroy(error),
  };
}

async function connected(path: string): Promise<Socket> {
  const socket = createConnection({ path });
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve();
    });
  });
  return socket;
}

class LineReader {
  private readonly maxLineBytes: number;
  private readonly online: (text: string) => void;
  private parts: Buffer[] = [];
  private bytes = 0;

  constructor(maxLineBytes: number, online: (text: string) => void) {
    this.maxLineBytes = maxLineBytes;
    this.online = online;
  }

  take(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end !== -1; end = rest.indexOf(0x0a)) {
      this.keep(rest.subarray(0, end));
      const line = Buffer.concat(this.parts).toString('utf8').trim();
      this.parts = [];
      this.bytes = 0;
      rest = rest.subarray(end + 1);
      if (line !== '') this.online(line);
    }
    this.keep(rest);
  }

  private keep(part: Buffer): void {
    this.bytes += part.length;
    if (this.bytes > this.maxLineBytes)
      throw new LineTooLongError(`a line of more than ${this.maxLineBytes} bytes`);
    if (part.length > 0) this.parts.push(part);
  }
}
