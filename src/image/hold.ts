// Keeps writers off images that nobody has open, by QEMU's own image locks: a qemu-io per image reads it and shares it
// with nobody who writes. Its standard input is ours, so it ends with us, however we end, and nothing is left locked.

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { within } from '../std/deadline.js';
import { BusyError, StateError, SystemError } from '../std/errors.js';

/** Of a storage that hangs. */
const OPEN_TIMEOUT_MS = 30_000;
const END_TIMEOUT_MS = 5000;

interface Holder {
  readonly child: ChildProcess;
  readonly ended: Promise<void>;
}

export class ImageHolds {
  private readonly qemuIo: string;
  private readonly holders = new Map<string, Map<string, Holder>>();

  /** `qemuIo` is the binary, found in PATH when it has no slash. */
  constructor(qemuIo: string) {
    this.qemuIo = qemuIo;
  }

  /** Resolves to those that `by` did not hold already. */
  async hold(by: string, paths: readonly string[]): Promise<readonly string[]> {
    const taken: string[] = [];
    const mine = this.holders.get(by) ?? new Map<string, Holder>();
    this.holders.set(by, mine);
    for (const path of paths) {
      if (mine.has(path)) continue;
      const holder = await take(this.qemuIo, path);
      mine.set(path, holder);
      taken.push(path);
      // Somebody ended it: whoever relies on it asks for it again.
      void holder.ended.then(() => {
        if (mine.get(path) === holder) mine.delete(path);
      });
    }
    return taken;
  }

  async letGo(by: string): Promise<void> {
    const mine = this.holders.get(by);
    this.holders.delete(by);
    await Promise.all(
      [...(mine?.values() ?? [])].map(async ({ child, ended }) => {
        child.kill('SIGKILL');
        // One whose storage hangs ends when that comes back.
        await within(ended, END_TIMEOUT_MS, 'end of qemu-io').catch(() => undefined);
      }),
    );
  }
}

/**
 * The format does not matter to a lock, and is not looked at (law 7): blkdebug, which does nothing here, stands on the
 * bare file and says whom it is not shared with.
 */
const lockingName = (path: string): string =>
  `json:${JSON.stringify({
    driver: 'blkdebug',
    'unshare-child-perms': ['write', 'resize'],
    image: { driver: 'file', filename: path, 'read-only': true },
  })}`;

async function take(qemuIo: string, path: string): Promise<Holder> {
  const child = spawn(qemuIo, ['-r', lockingName(path)], { stdio: ['pipe', 'pipe', 'pipe'] });
  // A daemon that ends does not wait for it.
  for (const part of [child, child.stdin, child.stdout, child.stderr])
    if ('unref' in part && typeof part.unref === 'function') part.unref();
  child.stdin.on('error', () => undefined);
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      let said = '';
      child.stderr.on('data', (text: Buffer) => (said += text.toString()));
      child.once('error', (cause) => reject(notStarted(qemuIo, cause)));
      child.once('close', () => reject(refused(path, said.trim())));
      // It asks for commands once it has the image open.
      child.stdout.once('data', () => resolve());
      const late = (): void =>
        reject(new BusyError(`hold ${path}: its storage did not answer in ${OPEN_TIMEOUT_MS} ms`));
      timer = setTimeout(late, OPEN_TIMEOUT_MS);
    });
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return { child, ended };
}

function refused(path: string, said: string): Error {
  if (/Failed to get .*lock/.test(said))
    return new StateError(
      'OPERATION_INVALID',
      `image ${path} is open for writing in another program (${said.split('\n')[0]}); end that program, then try again`,
      { next: [`fuser -v ${path}`] },
    );
  return new SystemError(`hold ${path}: ${said === '' ? 'qemu-io ended' : said}`);
}

const notStarted = (qemuIo: string, cause: Error): SystemError =>
  new SystemError(
    `${qemuIo}, which keeps writers off the images of a shut-off domain, cannot be started: ${cause.message}; it comes with qemu-img (qemu-utils)`,
    { cause },
  );
