// Finding out that a client is gone although its socket is not. Source: libvirt `src/rpc/virkeepalive.c`.

export interface KeepaliveOptions {
  readonly intervalMs: number;
  /** Pings in a row without a sign of life; one interval later the client is dead. */
  readonly count: number;
}

/** libvirtd's own defaults. */
export const defaultKeepalive: KeepaliveOptions = { intervalMs: 5000, count: 5 };

export interface KeepaliveActions {
  readonly ping: () => void;
  readonly dead: () => void;
  /** True while we do not read, so that silence says nothing about the client. */
  readonly deaf: () => boolean;
}

/** Runs from `start` to `stop`. Any packet is a sign of life, not only a pong. */
export class Keepalive {
  private readonly options: KeepaliveOptions;
  private readonly actions: KeepaliveActions;
  private timer: NodeJS.Timeout | null = null;
  private unanswered = 0;

  constructor(options: KeepaliveOptions, actions: KeepaliveActions) {
    this.options = options;
    this.actions = actions;
  }

  /** Only once the client has asked for feature 10: others do not know what a ping is. */
  start(): void {
    if (this.timer !== null) return;
    this.timer = setInterval(() => this.tick(), this.options.intervalMs);
    this.timer.unref();
  }

  heard(): void {
    this.unanswered = 0;
  }

  stop(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
  }

  private tick(): void {
    if (this.actions.deaf()) {
      this.unanswered = 0;
      return;
    }
    if (this.unanswered >= this.options.count) {
      this.stop();
      this.actions.dead();
      return;
    }
    this.unanswered++;
    this.actions.ping();
  }
}
