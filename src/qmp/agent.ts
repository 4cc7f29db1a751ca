// The guest agent behind its channel (qemu-ga, port `org.qemu.guest_agent.0`): a JSON command a line, an answer a line,
// and no greeting. What an earlier connection asked may still be answered in a later one, so each begins with a sync
// (QEMU: docs/interop/qemu-ga). QEMU takes one connection at a time: it is held for one command only.

import { createConnection, type Socket } from 'node:net';
import { z } from 'zod';

import { within } from '../std/deadline.js';
import { QemuError, messageOf } from '../std/errors.js';

export interface Agent {
  isFrozen(): Promise<boolean>;
  /** Flushes and freezes every file system of the guest; none of them writes until `thaw`. Frozen already is an error. */
  freeze(): Promise<void>;
  /** Thawed already is fine. */
  thaw(): Promise<void>;
  /** Discards what no file system of the guest uses. Bytes; what the agent refused of it is not counted. */
  trim(): Promise<bigint>;
}

/** An agent that runs answers a sync at once; also while it is frozen. */
export const AGENT_TIMEOUT_MS = 5000;
/** The guest writes all that is dirty in its memory first. */
const FREEZE_TIMEOUT_MS = 30_000;
/** Large file systems on slow storage take minutes. */
const TRIM_TIMEOUT_MS = 600_000;
const MAX_BYTES = 1 << 20;

/** The agent behind the socket at `path`. Every call is a {@link QemuError} when it does not answer in time or refuses. */
export function agentAt(path: string): Agent {
  const ask = async (command: string, timeoutMs = AGENT_TIMEOUT_MS): Promise<unknown> =>
    await exchange(path, command, timeoutMs);
  return {
    isFrozen: async () => (await ask('guest-fsfreeze-status')) === 'frozen',
    freeze: async () => void (await ask('guest-fsfreeze-freeze', FREEZE_TIMEOUT_MS)),
    thaw: async () => void (await ask('guest-fsfreeze-thaw', FREEZE_TIMEOUT_MS)),
    trim: async () => trimmedBytes(await ask('guest-fstrim', TRIM_TIMEOUT_MS)),
  };
}

const trimSchema = z.object({ paths: z.array(z.object({ trimmed: z.number().optional() })) });

/** GuestFilesystemTrimResponse: per file system `trimmed`, or an `error` instead. */
function trimmedBytes(answer: unknown): bigint {
  return trimSchema
    .parse(answer)
    .paths.reduce((sum, { trimmed = 0 }) => sum + BigInt(Math.trunc(trimmed)), 0n);
}

async function exchange(path: string, command: string, timeoutMs: number): Promise<unknown> {
  const what = `guest agent, ${command}`;
  const failed = (text: string, qmpClass: string, cause?: unknown): QemuError =>
    new QemuError(`${what}: ${text}`, { qmpClass, cause });
  const socket = createConnection({ path });
  try {
    const lines = linesOf(socket);
    // 0xFF ends whatever half a command an earlier connection left with the agent.
    const id = Math.trunc(Math.random() * 2 ** 31);
    socket.write(Buffer.from([0xff]));
    send(socket, 'guest-sync-delimited', { id });
    await within(
      answerTo(lines, (line) => line['return'] === id),
      AGENT_TIMEOUT_MS,
      what,
    );
    send(socket, command);
    const answer = await within(
      answerTo(lines, () => true),
      timeoutMs,
      what,
    );
    if (!('error' in answer)) return answer['return'];
    throw failed(JSON.stringify(answer['error']), 'AgentRefused');
  } catch (error) {
    throw error instanceof QemuError ? error : failed(messageOf(error), 'NoAnswer', error);
  } finally {
    socket.destroy();
  }
}

function send(socket: Socket, execute: string, args?: Readonly<Record<string, number>>): void {
  socket.write(
    `${JSON.stringify({ execute, ...(args === undefined ? {} : { arguments: args }) })}\n`,
  );
}

async function answerTo(
  lines: AsyncIterator<string>,
  accept: (line: Readonly<Record<string, unknown>>) => boolean,
): Promise<Readonly<Record<string, unknown>>> {
  for (;;) {
    const { value, done } = await lines.next();
    if (done === true) throw new Error('the connection ended before the answer');
    const line = parsed(value);
    if (line !== null && accept(line)) return line;
  }
}

/** The answer to a sync has a byte 0xFF in front; what is no object is the rest of an older one. */
function parsed(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text.slice(Math.max(0, text.lastIndexOf('\xff') + 1)));
    // `as`: an object of JSON, of whatever members.
    return typeof value === 'object' ? (value as Record<string, unknown> | null) : null;
  } catch {
    return null;
  }
}

async function* linesOf(socket: Socket): AsyncGenerator<string> {
  let rest = '';
  // Bytes as they are: 0xFF is no UTF-8, and what the agent answers here is ASCII.
  for await (const chunk of socket.setEncoding('latin1')) {
    rest += String(chunk);
    if (rest.length > MAX_BYTES) throw new Error('it answers with a line that is too long');
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}
