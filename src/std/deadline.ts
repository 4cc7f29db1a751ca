// Waiting with an end: every wait of this project has a deadline, none of them is a sleep.

import { BusyError } from './errors.js';

/** Settles as `promise` does, or rejects with a BusyError saying `what` did not happen within `timeoutMs`. */
export async function within<T>(promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new BusyError(`${what}: no answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
  });
  try {
    return await Promise.race([promise, expired]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks `probe` again and again until it gives a value other than null. For state that sends no event. */
export async function until<T>(
  probe: () => Promise<T | null> | T | null,
  timeoutMs: number,
  what: string,
  everyMs = 20,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== null) return value;
    if (performance.now() >= end) throw new BusyError(`${what}: not so within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
