// What a person can do about a copy that failed.

import { SystemError } from '../std/errors.js';
import type { CopyPaths, Side, Trouble } from './copy-work.js';

interface Advice {
  readonly wrong: string;
  readonly todo: string;
}

const noRoom: Advice = {
  wrong: 'no room is left on its file system',
  todo: 'make room there or choose another storage, then try again',
};
const denied: Advice = {
  wrong: 'ferryd is not allowed to',
  todo: 'check the owner and the permissions of the file and its folders, then try again',
};

/** By the system's code (errno(3)) and the side that it came from. */
const advice: Readonly<Record<string, Readonly<Partial<Record<Side, Advice>>>>> = {
  ENOSPC: { target: noRoom },
  EDQUOT: { target: { ...noRoom, wrong: 'the quota is used up' } },
  EFBIG: {
    target: {
      wrong: 'its file system takes no file of that size',
      todo: 'choose another storage, then try again',
    },
  },
  EIO: {
    source: {
      wrong: 'the storage failed (input/output error), so data of the guest may be damaged there',
      todo: "look into the kernel's log (dmesg) and save what can be saved before anything else",
    },
    target: {
      wrong: 'the storage failed (input/output error)',
      todo: "look into the kernel's log (dmesg), choose another storage, then try again",
    },
  },
  EROFS: {
    target: {
      wrong: 'its file system is read-only',
      todo: 'mount it to be written, or choose another storage, then try again',
    },
  },
  EACCES: { source: denied, target: denied },
  EPERM: { source: denied, target: denied },
  ENOENT: {
    source: { wrong: 'it is not there', todo: 'bring it back before the guest needs it' },
    target: {
      wrong: 'it or its folder is not there any more',
      todo: 'mount the storage again, then try again',
    },
  },
};

export function copyError(
  paths: Pick<CopyPaths, 'from' | 'to'>,
  trouble: Trouble,
  cause?: unknown,
): SystemError {
  const { side, doing, code, message } = trouble;
  const { wrong, todo } = advice[code ?? '']?.[side] ?? {
    wrong: message,
    todo: 'check the path and its storage, then try again',
  };
  const path = side === 'source' ? paths.from : paths.to;
  // What cannot be read is no promise that all of it is there.
  const isDoubtful = side === 'source' && (code === 'EIO' || code === 'ENOENT' || code === null);
  return new SystemError(
    `copy ${paths.from} to ${paths.to}: cannot ${doing} ${path}: ${wrong}; ${todo}`,
    { cause, ...(isDoubtful ? { sourceIntact: null } : {}) },
  );
}
