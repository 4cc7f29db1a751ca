// The files of a copy on this host: regular files, read and written by threads.

import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import type { Extent, FileIdentity } from '../block/copy.js';
import { QemuError, SystemError, messageOf } from '../std/errors.js';
import type { CopyFiles, ReadBack } from './copying.js';
import { copyError } from './copy-error.js';
import { CopyThreads } from './copy-threads.js';
import type { CopyPaths, Side, Trouble, Work } from './copy-work.js';
import type { Window } from './pieces.js';
import type { Backing, Owner } from './store.js';
import { syncFile, syncFolder } from './sync.js';

/** What is asked of qemu-img. */
export interface CopyTool {
  extents(path: string, sizeBytes: number): Promise<readonly Extent[]>;
  setBacking(path: string, backing: Backing): Promise<void>;
  hasBitmaps(path: string): Promise<boolean>;
}

/** The largest cluster of qcow2: its header and all that it names lies in the first (docs/interop/qcow2.txt). */
const headerBytes = 2 << 20;

/** What is done to the files outside of the threads. */
const doing = { source: 'read', target: 'write' } as const;

export class HostCopyFiles implements CopyFiles, AsyncDisposable {
  readonly key: string;
  readonly lanes: number;
  private readonly paths: CopyPaths;
  private readonly tool: CopyTool;
  private readonly threads: CopyThreads;
  private readonly owner: Owner | null;
  private opened: fs.FileHandle | null = null;
  /** Its name outlives a crash of the host. */
  private isNamed = false;

  constructor(paths: CopyPaths, tool: CopyTool, owner: Owner | null) {
    this.key = paths.key;
    this.paths = paths;
    this.tool = tool;
    this.owner = owner;
    this.threads = new CopyThreads(paths);
    this.lanes = this.threads.lanes;
  }

  async source(): Promise<FileIdentity> {
    const found = await this.on('source', async () => await identityOf(this.paths.from));
    if (found === null) {
      const trouble = { side: 'source', doing: 'read', code: 'ENOENT', message: 'ENOENT' } as const;
      throw this.error(trouble);
    }
    return found;
  }

  async target(): Promise<FileIdentity | null> {
    return await this.on('target', async () => await identityOf(this.paths.to));
  }

  async extents(of: Side): Promise<readonly Extent[]> {
    const path = of === 'source' ? this.paths.from : this.paths.to;
    const { size, blocks } = await this.on(of, async () => await fs.stat(path));
    const all = [{ start: 0, length: size }];
    if (blocks * 512 >= size) return all;
    try {
      return await this.tool.extents(path, size);
    } catch (error) {
      // A storage that cannot tell: zeroes are found by looking at them.
      if (error instanceof QemuError) return all;
      throw error;
    }
  }

  async clone(): Promise<boolean> {
    const { from, to } = this.paths;
    try {
      await fs.copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
    } catch {
      // Whatever the reason: a copy of the data works, or says what is wrong.
      return false;
    }
    await this.on('target', async () => await syncFile(to));
    return true;
  }

  async begin(sizeBytes: number): Promise<void> {
    const { from, to } = this.paths;
    const { mode } = await this.on('source', async () => await fs.stat(from));
    await this.on('target', async () => {
      await this.opened?.close();
      this.opened = await fs.open(to, 'w+', mode & 0o777);
      await this.opened.truncate(sizeBytes);
      this.isNamed = false;
    });
  }

  async copy({ offset, length, parts }: Window, used: readonly Extent[]): Promise<string> {
    return (await this.work({ kind: 'copy', offset, length, parts, used })).hash;
  }

  async check({ offset, length }: Window, used: readonly Extent[]): Promise<string> {
    return (await this.work({ kind: 'check', offset, length, parts: [], used })).hash;
  }

  async readBack({ offset, length }: Window, used: readonly Extent[]): Promise<ReadBack> {
    return await this.work({ kind: 'read-back', offset, length, parts: [], used });
  }

  async sync(): Promise<void> {
    await this.on('target', async () => {
      // Stays open: that a write-back failed is told to the files that were open then (errseq_t).
      this.opened ??= await fs.open(this.paths.to, 'r+');
      await this.opened.datasync();
      await this.name();
    });
  }

  async setBacking(backing: Backing): Promise<Extent> {
    const { to } = this.paths;
    await this.tool.setBacking(to, backing);
    // An image with bitmaps has them marked when it is opened, and stored anew when it is closed.
    const anywhere = await this.tool.hasBitmaps(to);
    return { start: 0, length: anywhere ? Number.MAX_SAFE_INTEGER : headerBytes };
  }

  async seal(): Promise<FileIdentity> {
    const { to } = this.paths;
    return await this.on('target', async () => {
      if (this.owner !== null) await fs.chown(to, this.owner.uid, this.owner.gid);
      this.opened ??= await fs.open(to, 'r+');
      await this.opened.sync();
      await this.name();
      const found = await identityOf(to);
      if (found === null) throw new Error('somebody removed it');
      return found;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.threads[Symbol.asyncDispose]();
    await this.opened?.close();
  }

  private async name(): Promise<void> {
    if (!this.isNamed) await syncFolder(this.paths.to);
    this.isNamed = true;
  }

  private async work(work: Omit<Work, 'id'>): Promise<ReadBack> {
    const answer = await this.threads.run(work);
    if ('trouble' in answer) throw this.error(answer.trouble);
    return answer;
  }

  /** Says of an error of the system which file it came from, and what to do. */
  private async on<T>(side: Side, body: () => Promise<T>): Promise<T> {
    try {
      return await body();
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : null;
      throw this.error({ side, doing: doing[side], code, message: messageOf(error) }, error);
    }
  }

  private error(trouble: Trouble, cause?: unknown): SystemError {
    return copyError(this.paths, trouble, cause);
  }
}

/** Null: there is nothing at that path. */
export async function identityOf(path: string): Promise<FileIdentity | null> {
  try {
    const { ino, size, mtimeNs } = await fs.stat(path, { bigint: true });
    return { inode: ino, sizeBytes: size, mtimeNs };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
}
