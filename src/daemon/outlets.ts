// Tells each event of the stream to whom the daemon's command line names: a command, a webhook. In order, one after the other,
// each within a time limit. What fails is logged and the next one is told; nothing here holds up what the event is about.

import { spawn } from 'node:child_process';
import type { Logger } from 'pino';
import type { StreamedEvent } from '../host/ferry-host.js';
import { toJson } from '../http/wire.js';
import { messageOf } from '../std/errors.js';

/** Who is told. Rejects when it failed, or did not end within the time that `signal` gives. */
export interface Outlet {
  /** For the log. */
  readonly name: string;
  tell(json: string, signal: AbortSignal): Promise<void>;
}

export interface OutletLimits {
  readonly timeoutMs: number;
  /** How many events may wait for one that is slow; the oldest go first. */
  readonly waiting: number;
}

export const usualLimits: OutletLimits = { timeoutMs: 10_000, waiting: 1000 };

/** What is to be called with each event; it returns at once. */
export function feed(
  outlet: Outlet,
  log: Pick<Logger, 'warn'>,
  { timeoutMs, waiting }: OutletLimits = usualLimits,
): (event: StreamedEvent) => void {
  const queue: StreamedEvent[] = [];
  let isTelling = false;
  const tellAll = async (): Promise<void> => {
    for (let event = queue.shift(); event !== undefined; event = queue.shift()) {
      const { seq } = event;
      await outlet
        .tell(toJson(event), AbortSignal.timeout(timeoutMs))
        .catch((error: unknown) =>
          log.warn({ outlet: outlet.name, seq, error: messageOf(error) }, 'event not told'),
        );
    }
  };
  return (event) => {
    queue.push(event);
    if (queue.length > waiting) {
      const lost = queue.shift();
      log.warn({ outlet: outlet.name, seq: lost?.seq }, 'event not told: too many wait');
    }
    if (isTelling) return;
    isTelling = true;
    void tellAll().finally(() => (isTelling = false));
  };
}

/** How much of what a command says on stderr is kept for the log. */
const SAID = 500;

/** A line for `/bin/sh`; gets the event as one line of JSON on its stdin. */
export function commandOutlet(command: string): Outlet {
  const tell = async (json: string, signal: AbortSignal): Promise<void> => {
    // A group of its own: what it started ends with it when it takes too long.
    const child = spawn('/bin/sh', ['-c', command], {
      stdio: ['pipe', 'ignore', 'pipe'],
      detached: true,
    });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(0, SAID)));
    // One that does not read what it gets is no failure; how it ends says whether it is.
    child.stdin.on('error', () => undefined);
    child.stdin.end(`${json}\n`);
    await new Promise<void>((resolve, reject) => {
      const tooLate = (): void => {
        killGroup(child.pid);
        reject(new Error('it took too long and was killed'));
      };
      signal.addEventListener('abort', tooLate);
      child.on('error', reject);
      child.on('exit', (code, by) => {
        signal.removeEventListener('abort', tooLate);
        if (code === 0) resolve();
        else reject(new Error(`it ended with ${code ?? by}: ${said.trim()}`));
      });
    });
  };
  return { name: `command ${command}`, tell };
}

function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // Gone just now.
  }
}

/** Gets each event as the body of a POST; an answer other than 2xx is a failure. */
export function webhookOutlet({ href, username, password }: URL): Outlet {
  // `fetch` takes no address with a user in it.
  const url = new URL(href);
  url.username = '';
  url.password = '';
  const user = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`);
  const authorization =
    username === '' ? {} : { authorization: `Basic ${user.toString('base64')}` };
  const tell = async (json: string, signal: AbortSignal): Promise<void> => {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...authorization },
      body: json,
      redirect: 'manual',
      signal,
    });
    await response.body?.cancel();
    if (!response.ok) throw new Error(`it answered ${response.status}`);
  };
  // Neither a password nor a token goes into the log.
  return { name: `webhook ${url.origin}${url.pathname}`, tell };
}
