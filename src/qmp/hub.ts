// Who listens to a monitor's events. Shared by the real monitor and by fakes of it.

import type { AnyEvent, EventName, EventOf } from '../qapi/types.js';
import { QemuError } from '../std/errors.js';
import { Stream } from '../std/queue.js';

/** Unread events kept for one stream: a reader that fell this far behind is told so, not fed for ever. */
const backlogLimit = 10_000;

/** Hands each event to the streams and listeners that asked for it, in the order of their asking. */
export class EventHub {
  private readonly listeners = new Set<(event: AnyEvent) => void>();
  private readonly streams = new Set<{ end(error: unknown): void }>();
  private ended: { readonly error: unknown } | null = null;

  /** A stream of the named events from this call on; disposing it ends the subscription. */
  events<E extends EventName>(names: E | readonly E[]): Stream<EventOf<E>> {
    const wanted: ReadonlySet<string> = new Set(typeof names === 'string' ? [names] : names);
    const isWanted = (event: AnyEvent): event is AnyEvent & EventOf<E> => wanted.has(event.event);
    const listener = (event: AnyEvent): void => {
      if (!isWanted(event)) return;
      stream.push(event);
      if (stream.length >= backlogLimit)
        stream.end(new QemuError(`qmp events: ${backlogLimit} events of one stream lie unread`));
    };
    const stream = new Stream<EventOf<E>>(() => {
      this.listeners.delete(listener);
      this.streams.delete(stream);
    });

    if (this.ended !== null) {
      stream.end(this.ended.error);
      return stream;
    }
    this.listeners.add(listener);
    this.streams.add(stream);
    return stream;
  }

  /** Calls `listener` for every event, of known and unknown names, until disposed. */
  onEvent(listener: (event: AnyEvent) => void): Disposable {
    // A function of its own for each call, so that one listener may be given twice.
    const own = (event: AnyEvent): void => listener(event);
    this.listeners.add(own);
    return { [Symbol.dispose]: () => void this.listeners.delete(own) };
  }

  emit(event: AnyEvent): void {
    for (const listener of [...this.listeners]) listener(event);
  }

  /** Ends every stream, present and future, with `error`. */
  end(error: unknown): void {
    if (this.ended !== null) return;
    this.ended = { error };
    this.listeners.clear();
    for (const stream of this.streams) stream.end(error);
    this.streams.clear();
  }
}
