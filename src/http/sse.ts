// Server-sent events, both ends: a writer that drops readers which do not keep up, and a parser.
// The text format: https://html.spec.whatwg.org/multipage/server-sent-events.html

import type { ServerResponse } from 'node:http';

export interface SseMessage {
  readonly id: string | null;
  /** `message` where the sender named none. */
  readonly event: string;
  readonly data: string;
}

/** One reader of a stream. What it does not fetch waits in memory up to a limit; past it the reader is cut off. */
export class SseWriter implements Disposable {
  private readonly response: ServerResponse;
  private readonly limitBytes: number;
  private readonly heartbeat: NodeJS.Timeout;
  private readonly onClose: () => void;
  /** Null while what is kept is being told again: that much is bounded by what the host keeps. */
  private allowedBytes: number | null = null;

  constructor(response: ServerResponse, limitBytes: number, onClose: () => void) {
    this.response = response;
    this.limitBytes = limitBytes;
    this.onClose = onClose;
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      connection: 'close',
    });
    // A comment keeps proxies from closing the stream, and finds a reader whose host is gone.
    this.heartbeat = setInterval(() => this.write(':\n\n'), heartbeatMs);
    this.heartbeat.unref();
    response.once('close', () => this[Symbol.dispose]());
  }

  /** Says that the reader is subscribed and told the past; from here on it has to keep up. */
  live(): void {
    this.write(': subscribed\n\n');
    this.allowedBytes = this.response.writableLength + this.limitBytes;
  }

  send(message: { readonly id?: number; readonly event?: string; readonly data: string }): void {
    const id = message.id === undefined ? '' : `id: ${message.id}\n`;
    const event = message.event === undefined ? '' : `event: ${message.event}\n`;
    this.write(`${id}${event}data: ${message.data}\n\n`);
  }

  end(): void {
    this.response.end();
  }

  [Symbol.dispose](): void {
    clearInterval(this.heartbeat);
    this.onClose();
  }

  private write(text: string): void {
    if (this.response.destroyed || this.response.writableEnded) return;
    this.response.write(text);
    if (this.allowedBytes !== null && this.response.writableLength > this.allowedBytes) {
      this.response.destroy();
    }
  }
}

const heartbeatMs = 15_000;

/** Messages of a stream of text, in order. `onOpen` is called at the first byte: the server has subscribed us. */
export async function* parseSse(
  chunks: AsyncIterable<string>,
  onOpen: () => void = () => undefined,
): AsyncGenerator<SseMessage> {
  let rest = '';
  let opened = false;
  for await (const chunk of chunks) {
    if (!opened) onOpen();
    opened = true;
    const blocks = (rest + chunk).split('\n\n');
    rest = blocks.pop() ?? '';
    for (const block of blocks) {
      const message = parseBlock(block);
      if (message !== null) yield message;
    }
  }
}

/** Null for a block of comments only. */
function parseBlock(block: string): SseMessage | null {
  const fields = block
    .split('\n')
    .map((line) => /^([a-z]+): ?(.*)$/.exec(line))
    .filter((match) => match !== null);
  const all = (name: string): readonly string[] =>
    fields.filter((field) => field[1] === name).map((field) => field[2] ?? '');
  const data = all('data');
  if (data.length === 0) return null;
  return {
    id: all('id').at(-1) ?? null,
    event: all('event').at(-1) ?? 'message',
    data: data.join('\n'),
  };
}
