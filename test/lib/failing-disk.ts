// A journal whose disk fails when a test says so: see failing-disk.c, which is compiled here once.

import { rm, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';

import { must, root } from './process.js';

let built: Promise<string> | null = null;

async function library(): Promise<string> {
  const path = join(root, '.cache', 'failing-disk.so');
  const draft = `${path}.${process.pid}`;
  const source = join(root, 'test/lib/failing-disk.c');
  await must('gcc', ['-shared', '-fPIC', '-O1', '-Wall', '-Wextra', '-o', draft, source, '-ldl']);
  await must('mv', ['-f', draft, path]);
  return path;
}

export class FailingDisk {
  /** For the environment of the daemon. */
  readonly env: Readonly<Record<string, string>>;
  private readonly file: string;

  private constructor(preload: string, file: string) {
    this.env = { LD_PRELOAD: preload, FERRY_FAILING_DISK: file };
    this.file = file;
  }

  static async at(directory: string): Promise<FailingDisk> {
    built ??= library();
    return new FailingDisk(await built, join(directory, 'failing-disk'));
  }

  /** Lets `transactions` more of them through, then refuses every write. */
  async failAfter(transactions: number, code: 'EIO' | 'ENOSPC' | 'EROFS'): Promise<void> {
    await writeFile(`${this.file}.new`, `${transactions} ${constants.errno[code]}\n`);
    await must('mv', [`${this.file}.new`, this.file]);
  }

  async mend(): Promise<void> {
    await rm(this.file, { force: true });
  }
}
