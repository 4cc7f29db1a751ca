// The event stream of the HTTP API: every event of the journal with its number, so that a reader can go on after a
// break, of its own or of the daemon.

import type { Told, Known } from './context.js';
import type { StreamedEvent } from './ferry-host.js';
import type { DomainEvent } from '../domain/events.js';

/** How many events a reader can be behind. */
const KEPT = 2000;

export class EventLog {
  private kept: StreamedEvent[] = [];
  private readonly listeners = new Set<(event: StreamedEvent) => void>();

  static async over(known: Known, nowMs: () => number): Promise<EventLog> {
    const log = new EventLog();
    const stored = await known.journal.events({ limit: KEPT });
    log.kept = stored.map(({ seq, atMs, domain, event }) =>
      streamed(seq, atMs, domain, known.find(domain)?.name ?? null, event),
    );
    known.onTold((told) => log.take(told, nowMs()));
    return log;
  }

  /** From the event after `seq` on, as far as they are kept; null: from now on. */
  follow(
    seq: number | null,
    listener: (event: StreamedEvent) => void,
  ): { readonly unsubscribe: () => void } {
    if (seq !== null) this.kept.filter((event) => event.seq > seq).forEach(listener);
    this.listeners.add(listener);
    return { unsubscribe: () => void this.listeners.delete(listener) };
  }

  private take({ domain, before, after, changes }: Told, atMs: number): void {
    const name = (after ?? before)?.name ?? null;
    for (const { change, seq } of changes) {
      if (change.change !== 'event' || seq === null) continue;
      const event = streamed(seq, atMs, domain, name, change.event);
      this.kept.push(event);
      for (const listener of this.listeners) listener(event);
    }
    this.kept = this.kept.slice(-KEPT);
  }
}

export function streamed(
  seq: number,
  atMs: number,
  domain: string,
  domainName: string | null,
  event: DomainEvent,
): StreamedEvent {
  // Flat, as readers of JSON like it: `{"type":"lifecycle","event":"started","detail":"booted"}`.
  const flat =
    event.type === 'lifecycle' ? { type: event.type, id: event.id, ...event.change } : event;
  return { seq, time: new Date(atMs).toISOString(), domain, domainName, event: flat };
}
