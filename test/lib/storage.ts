// Storage that runs out of space or fails, by real means. Mounting needs root.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { open, stat, writeFile } from 'node:fs/promises';

import { until } from '../../src/std/deadline.js';
import { killNow, must } from './process.js';
import { testQemus } from './qemu.js';

/** For tests that mount: left out, and counted so, where nobody may; never on the build server. */
export const cannotMount: string | false =
  process.getuid?.() === 0 || process.env['CI'] === '1' ? false : 'needs root, to mount';

/** For tests with a file that hangs, as `cannotMount`. */
export const cannotServe: string | false =
  cannotMount !== false || existsSync('/dev/fuse') || process.env['CI'] === '1'
    ? cannotMount
    : 'needs /dev/fuse';

/** A file system of a certain size at a folder of a lab. Close it before the lab. */
export class SmallStorage implements AsyncDisposable {
  private readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async mount(folder: string, sizeMiB: number): Promise<SmallStorage> {
    await must('/bin/mount', ['-t', 'tmpfs', '-o', `size=${sizeMiB}m`, 'ferry-test', folder]);
    return new SmallStorage(folder);
  }

  async resize(sizeMiB: number): Promise<void> {
    await must('/bin/mount', ['-o', `remount,size=${sizeMiB}m`, this.folder]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Lazily: a QEMU may have files open there still; the mount goes with it.
    await must('/bin/umount', ['--lazy', this.folder]);
  }
}

/** A block device over a sparse file (losetup(8)). Close it before the lab. */
export class LoopDevice implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async over(file: string, sizeMiB: number): Promise<LoopDevice> {
    await must('/usr/bin/truncate', ['-s', `${sizeMiB}M`, file]);
    return new LoopDevice((await must('losetup', ['--find', '--show', file])).trim());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // While a QEMU has it open it goes with that.
    await must('losetup', ['--detach', this.path]);
  }
}

const blockBytes = 4096;

/** A file system on a device of its own, whose bytes can be changed below it. Close it before the lab. */
export class DeviceStorage implements AsyncDisposable {
  private readonly folder: string;
  private readonly backing: string;

  private constructor(folder: string, backing: string) {
    this.folder = folder;
    this.backing = backing;
  }

  /** `backing`: a file that is made, and stays. */
  static async mount(folder: string, backing: string, sizeMiB: number): Promise<DeviceStorage> {
    await must('/usr/bin/truncate', ['-s', `${sizeMiB}M`, backing]);
    await must('/sbin/mkfs.ext4', [
      '-q',
      '-F',
      '-b',
      String(blockBytes),
      '-O',
      '^has_journal',
      backing,
    ]);
    await must('/bin/mount', ['-o', 'loop', backing, folder]);
    return new DeviceStorage(folder, backing);
  }

  /** Spoils one block of those bytes on the device, not in the page cache of its file. False: it is not there yet. */
  async spoil(block: Buffer): Promise<boolean> {
    const file = await open(this.backing, 'r+');
    try {
      const chunk = Buffer.alloc(1 << 20);
      const { size } = await file.stat();
      for (let at = 0; at < size; at += chunk.length) {
        const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
        for (let start = 0; start < bytesRead; start += blockBytes) {
          if (!chunk.subarray(start, start + blockBytes).equals(block)) continue;
          await file.write('spoilt', at + start);
          return true;
        }
      }
      return false;
    } finally {
      await file.close();
    }
  }

  /** From now on what is read there comes from the device. */
  async forget(): Promise<void> {
    await must('/bin/umount', [this.folder]);
    await must('/bin/mount', ['-o', 'loop', this.backing, this.folder]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Lazily: a QEMU may have files open there still; the mount goes with it, and its loop device with the mount.
    await must('/bin/umount', ['--lazy', this.folder]);
  }
}

/** A file that is served by a process of ours over FUSE: stop the process, and whoever uses the file hangs. */
export class HangingFile implements AsyncDisposable {
  readonly path: string;
  private readonly server: ChildProcess;

  private constructor(path: string, server: ChildProcess) {
    this.path = path;
    this.server = server;
  }

  /** What is in `backing`, at `path`, and as large as it likes to grow. */
  static async serve(path: string, backing: string): Promise<HangingFile> {
    await writeFile(path, '');
    const export_ = `type=fuse,id=hanging,node-name=file,mountpoint=${path},writable=on,growable=on`;
    const server = spawn(
      testQemus()[0].storageDaemon,
      ['--blockdev', `driver=file,node-name=file,filename=${backing}`, '--export', export_],
      { stdio: 'ignore' },
    );
    const { size } = await stat(backing);
    const served = async (): Promise<true | null> =>
      (await stat(path)).size >= size ? true : null;
    await until(served, 20_000, `${path} is served`);
    return new HangingFile(path, server);
  }

  hang(): void {
    this.server.kill('SIGSTOP');
  }

  heal(): void {
    this.server.kill('SIGCONT');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { server } = this;
    await must('/bin/umount', ['--lazy', this.path]).catch(() => undefined); // it may be gone with its server
    if (server.exitCode !== null || server.signalCode !== null) return;
    const gone = once(server, 'exit');
    killNow(server.pid ?? 0);
    await gone;
  }
}
