// Storage that runs out of space or fails, by real means. Mounting needs root.

import { must } from './process.js';

/** For tests that mount: left out, and counted so, where nobody may; never on the build server. */
export const cannotMount: string | false =
  process.getuid?.() === 0 || process.env['CI'] === '1' ? false : 'needs root, to mount';

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
