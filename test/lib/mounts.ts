// Small, full and read-only file systems for one process and its children: in a mount namespace of their own, so that
// nothing of it is left when they end. Works for root, and for others where the kernel lets them have a user namespace.

import { must } from './process.js';

const isRoot = process.getuid?.() === 0;

/** What to put before a program: does the shell `script`, which may mount, then becomes the program. */
export const inMounts = (script: string): readonly string[] => [
  'unshare',
  isRoot ? '-m' : '-Urm',
  'sh',
  '-ec',
  `${script}\nexec "$@"`,
  'sh',
];

/** Does a shell script where the process `pid` lives. */
export async function whereRuns(pid: number, script: string): Promise<string> {
  const user = isRoot ? [] : ['-U', '--preserve-credentials'];
  return await must('nsenter', ['-t', String(pid), '-m', ...user, 'sh', '-ec', script]);
}

/** Script: a file system of `mib` MiB at `directory`, with what lay there before: read from where that was entered. */
export const small = (directory: string, mib: number): string => `(
  cd '${directory}'
  tar -cf - . | (
    mount -t tmpfs -o size=${mib}m,mode=700 small '${directory}'
    tar -C '${directory}' -xf -
  )
)`;

/** Script: not a block is left there. dd ends with an error, as it must. */
export const fill = (directory: string): string =>
  `dd if=/dev/zero of='${directory}/fill' bs=4k 2>/dev/null || :`;
