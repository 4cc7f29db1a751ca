// What is to become of the images that a move leaves behind, and how much older than the live image they are. Plain data.

import { duration, humanBytes } from '../std/units.js';

export interface SourceFate {
  /** Counted from the switch; 0: they go when the move has ended. Null: they are kept until somebody removes them. */
  readonly keepSeconds: number | null;
  /** The layers below the former top layer go too. */
  readonly shared: boolean;
}

export const keptForEver: SourceFate = { keepSeconds: null, shared: false };

/** `until they are removed`: the end of a sentence that begins with what is kept. `from`: what the time is counted from. */
export function keptText({ keepSeconds }: SourceFate, from = 'the switch'): string {
  if (keepSeconds === null) return 'until somebody removes them';
  return keepSeconds === 0
    ? 'until the move has ended, and then deleted'
    : `for ${spanText(keepSeconds)} from ${from} on, and then deleted`;
}

/** `24h`, `30m`: as somebody would type it. */
export function spanText(seconds: number): string {
  if (seconds % 3600 === 0) return `${seconds / 3600}h`;
  return seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`;
}

/** How much older than the live image of its disk an image is that was live once. */
export interface Older {
  readonly seconds: number;
  /** What the guest has written to the disk since; null: nobody has counted. */
  readonly writtenBytes: bigint | null;
  /** Not all of it was seen: QEMU or ferryd ended in between. */
  readonly isAtLeast: boolean;
}

/** `older by 19s and 4.2 MiB`. */
export function olderText({ seconds, writtenBytes, isAtLeast }: Older): string {
  const time = `older by ${duration(seconds)}`;
  if (writtenBytes === null) return time;
  return `${time} and ${isAtLeast ? 'at least ' : ''}${humanBytes(writtenBytes)}`;
}
