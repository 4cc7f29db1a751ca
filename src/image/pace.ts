// Lets bytes pass at a rate that may be changed at any time, however many take from it.

/** How often a changed rate is looked at. */
const lookMs = 200;

export interface Pacing {
  /** Resolves when so many bytes may pass, or as soon as `signal` is aborted. */
  pass(bytes: number, signal: AbortSignal): Promise<void>;
}

export class Pace implements Pacing {
  private readonly rate: () => number | null;
  /** What passed ahead of its time. */
  private owedBytes = 0;
  private atMs = performance.now();

  /** `rate` in bytes per second; null: no limit; 0: nothing passes. */
  constructor(rate: () => number | null) {
    this.rate = rate;
  }

  async pass(bytes: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      const rate = this.settle();
      if (rate === null || signal.aborted) break;
      if (rate === 0) await pause(lookMs, signal);
      else if (this.owedBytes <= 0) break;
      else await pause(Math.min(lookMs, (this.owedBytes / rate) * 1000), signal);
    }
    this.owedBytes += bytes;
  }

  /** Takes off what the time since the last look has paid. */
  private settle(): number | null {
    const rate = this.rate();
    const nowMs = performance.now();
    const paid = rate === null ? this.owedBytes : ((nowMs - this.atMs) / 1000) * rate;
    this.owedBytes = Math.max(0, this.owedBytes - paid);
    this.atMs = nowMs;
    return rate;
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
  });
}
