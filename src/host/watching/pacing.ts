// Moves the limit of a move's copies where somebody said `ferry limit N auto`.

import type { Host } from '../host.js';
import type { AutoLimit } from './auto-limit.js';
import { defaultBoundMs, firstLimit, nextLimit } from './auto-limit.js';
import type { MoveWatch } from './move-watch.js';

/** Between two decisions: what is decided has to be felt first. */
const DECIDE_MS = 2000;
/** Of fewer writes a p99 is chance. */
const ENOUGH_WRITES = 50;
/** How long the copies stand still to see what the guest's writes take without them. */
const CALM_MS = 5000;

export class Pacing {
  private auto: AutoLimit | null = null;
  private decidedAtMs = 0;
  private calmSinceMs: number | null = null;

  /** Decides when it is time to. The copies are under way. */
  async step(host: Host, operation: number, watch: MoveWatch, atMs: number): Promise<void> {
    const { paces } = host;
    const said = paces.of(operation);
    if (said?.auto == null || said.isPaused) {
      this.auto = null;
      this.calmSinceMs = null;
      return;
    }
    const boundMs = said.auto.latencyMs ?? this.findBound(watch, atMs);
    if (boundMs === null) {
      paces.steer(operation, 0n);
      return;
    }
    if (said.auto.latencyMs === null)
      await paces.set(operation, { ...said, auto: { latencyMs: boundMs } });
    if (this.auto === null) {
      this.auto = firstLimit(watch.copyBytesPerSecond);
      this.decidedAtMs = atMs;
    } else if (atMs - this.decidedAtMs >= DECIDE_MS) {
      const p99Ms = watch.p99Within(atMs - this.decidedAtMs);
      const copyBytesPerSecond = watch.copyBytesPerSecond;
      this.auto = nextLimit(this.auto, { p99Ms, copyBytesPerSecond }, boundMs);
      this.decidedAtMs = atMs;
    }
    paces.steer(operation, this.auto.limitBytesPerSecond);
  }

  /**
   * The default bound, from before the move, or from what the guest's writes take while its copies stand still. Null: they
   * have to stand still for some more time.
   */
  private findBound(watch: MoveWatch, atMs: number): number | null {
    const before = watch.p99Before(ENOUGH_WRITES);
    if (before !== null) return defaultBoundMs(before);
    this.calmSinceMs ??= atMs;
    const calmMs = atMs - this.calmSinceMs;
    // What was under way comes to its end in the first part of it.
    return calmMs < CALM_MS ? null : defaultBoundMs(watch.p99Within(CALM_MS / 2));
  }
}
