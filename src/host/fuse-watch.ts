// Looks once a second at every fuse behind a mirror, and kills one whose server does not answer within the time limit of
// law 11: the guest comes first. What becomes of its move the move finds out itself.

import type { Fuse } from '../block/fuse.js';
import { BusyError, messageOf } from '../std/errors.js';
import { answerFuse, endFuse } from './fuses.js';
import type { Host } from './host.js';

const LOOK_EVERY_MS = 1000;
/** Law 11: requests without an answer for so long drop the mirror. */
const LIMIT_MS = 10_000;

export class FuseWatch {
  private readonly host: Host;
  private readonly asking = new Set<string>();
  private timer: NodeJS.Timeout | null = null;

  constructor(host: Host) {
    this.host = host;
  }

  start(): void {
    this.timer = setInterval(() => this.look(), LOOK_EVERY_MS);
    this.timer.unref();
  }

  close(): void {
    if (this.timer !== null) clearInterval(this.timer);
  }

  private look(): void {
    for (const { name, live } of this.host.known.all())
      for (const { fuse } of live?.mirrors ?? [])
        if (fuse !== undefined && !this.asking.has(fuse.pidFile)) void this.ask(name, fuse);
  }

  private async ask(domain: string, fuse: Fuse): Promise<void> {
    this.asking.add(fuse.pidFile);
    try {
      await answerFuse(fuse, LIMIT_MS);
    } catch (error) {
      if (error instanceof BusyError) await this.blow(domain, fuse, error);
      else this.host.log.debug({ domain, error: messageOf(error) }, 'fuse');
    } finally {
      this.asking.delete(fuse.pidFile);
    }
  }

  private async blow(domain: string, fuse: Fuse, error: BusyError): Promise<void> {
    this.host.log.warn({ domain, error: error.message }, 'mirror dropped: its server hangs');
    await endFuse(fuse).catch((failure: unknown) =>
      this.host.log.error({ domain, error: messageOf(failure) }, 'fuse does not end'),
    );
  }
}
