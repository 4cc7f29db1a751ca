// The two streams of the API: events of the host, and one operation while it runs.

import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';

import type { FerryHost, StreamedEvent } from '../host/ferry-host.js';
import { checked, doingOf } from './route.js';
import { operation, sequence } from './routes.js';
import { SseWriter } from './sse.js';
import { errorBody, toJson } from './wire.js';

export interface StreamOptions {
  /** Bytes that may wait for one reader before it is cut off; it comes back with Last-Event-ID. */
  readonly backlogBytes: number;
  /** How often progress of a watched operation is looked at, besides at every event. */
  readonly watchEveryMs: number;
}

export interface StreamRoute {
  readonly path: string;
  readonly doing: (params: unknown) => string;
  readonly stream: (
    host: FerryHost,
    options: StreamOptions,
    request: FastifyRequest,
    reply: FastifyReply,
  ) => void;
}

export const streams: readonly StreamRoute[] = [
  /** Each message is a StreamedEvent with its `seq` as id. */
  { path: '/v1/events', doing: () => 'events', stream: streamEvents },
  /** `operation` at every change, then one `end` (its data is the operation) or `failed` (an error body). */
  {
    path: '/v1/operations/:operation/watch',
    doing: (params) => doingOf('ops watch', params),
    stream: watchOperation,
  },
];

const eventsQuery = z.strictObject({ after: sequence.optional() });
const eventsHeaders = z.object({ 'last-event-id': sequence.optional() });

/** From now on; with `Last-Event-ID` or `?after=` from that event on, as far as the host keeps them. */
function streamEvents(
  host: FerryHost,
  options: StreamOptions,
  request: FastifyRequest,
  reply: FastifyReply,
): void {
  const { after } = checked(eventsQuery, request.query, 'query', 'events');
  const headers = checked(eventsHeaders, request.headers, 'header', 'events');
  const writer = openStream(reply, options, () => subscription?.unsubscribe());
  const send = (event: StreamedEvent): void => writer.send({ id: event.seq, data: toJson(event) });
  let subscription: { readonly unsubscribe: () => void } | null = null;
  subscription = host.events(headers['last-event-id'] ?? after ?? null, send);
  writer.live();
}

function watchOperation(
  host: FerryHost,
  options: StreamOptions,
  request: FastifyRequest,
  reply: FastifyReply,
): void {
  const doing = doingOf('ops watch', request.params);
  const { operation: id } = checked(operation, request.params, 'path', doing);
  let last = toJson(host.operation(id));

  const gone = new AbortController();
  const writer = openStream(reply, options, () => {
    clearInterval(timer);
    subscription.unsubscribe();
    gone.abort();
  });
  const finish = (event: 'end' | 'failed', data: string): void => {
    if (gone.signal.aborted) return;
    writer.send({ event, data });
    writer.end();
  };
  const sample = (): void => {
    try {
      const now = toJson(host.operation(id));
      if (now !== last) writer.send({ event: 'operation', data: now });
      last = now;
    } catch (error) {
      // Called from a timer: thrown further it would end the daemon.
      finish('failed', toJson(errorBody(error, null)));
    }
  };

  writer.send({ event: 'operation', data: last });
  const timer = setInterval(sample, options.watchEveryMs);
  const subscription = host.events(null, sample);
  writer.live();
  host.waitOperation(id, gone.signal).then(
    (ended) => finish('end', toJson(ended)),
    (error: unknown) => finish('failed', toJson(errorBody(error, null))),
  );
}

function openStream(reply: FastifyReply, options: StreamOptions, onClose: () => void): SseWriter {
  reply.hijack();
  return new SseWriter(reply.raw, options.backlogBytes, onClose);
}
