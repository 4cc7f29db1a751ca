// The HTTP door: JSON and event streams over a unix socket, made from the tables in `routes.ts` and `streams.ts`.
// Who may open the socket may do everything: there is no other authentication.

import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify';
import fastify from 'fastify';

import type { FerryHost } from '../host/ferry-host.js';
import { FerryError } from '../std/errors.js';
import type { Route } from './route.js';
import { routes } from './routes.js';
import { listenUnix } from './socket.js';
import type { StreamOptions, StreamRoute } from './streams.js';
import { streams } from './streams.js';
import type { ErrorBody } from './wire.js';
import { errorBody, statusOf, toJson } from './wire.js';

export interface ServeOptions extends Partial<StreamOptions> {
  readonly socketPath: string;
  /** Of the socket: 0o600, or 0o660 to let in a group. */
  readonly mode: number;
  /** Told of errors that are bugs of ours, with what was being done. */
  readonly onInternalError?: (error: unknown, doing: string) => void;
}

export interface HttpDoor {
  /** Stops to listen, ends all streams, removes the socket. Running verbs of the host go on. */
  readonly close: () => Promise<void>;
}

const bodyLimitBytes = 32 * 1024 * 1024;

/** Resolves when requests are answered. */
export async function serveHttp(host: FerryHost, options: ServeOptions): Promise<HttpDoor> {
  const app = fastify({
    bodyLimit: bodyLimitBytes,
    // Disks may be named by their path, percent-encoded in the URL.
    routerOptions: { maxParamLength: 16_384 },
  });
  const report = options.onInternalError ?? (() => undefined);
  for (const row of routes) addRoute(app, host, row, report);
  for (const row of streams) addStream(app, host, row, { ...streamDefaults, ...options }, report);
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const status = error.statusCode ?? 500;
    if (status >= 500) report(error, `${request.method} ${request.url}`);
    send(reply, status, refusal(error, status));
  });
  app.setNotFoundHandler((request, reply) => {
    const message = `${request.method} ${request.url}: no such address; is this client of the same version as ferryd?`;
    send(reply, 404, { code: 'NO_SUPPORT', message, sourceIntact: null, next: [] });
  });

  await app.ready();
  await listenUnix(app.server, options.socketPath, options.mode);
  return { close: () => close(app) };
}

const streamDefaults: StreamOptions = { backlogBytes: 1024 * 1024, watchEveryMs: 250 };

type Report = (error: unknown, doing: string) => void;

function addRoute(app: FastifyInstance, host: FerryHost, row: Route, report: Report): void {
  app.route({
    method: row.method,
    url: row.path,
    handler: async (request, reply) => {
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort());
      try {
        const value = await row.answer(request, { host, signal: gone.signal });
        send(reply, row.status, value);
      } catch (error) {
        sendError(reply, error, row.doing(request.params), report);
      }
      return reply;
    },
  });
}

function addStream(
  app: FastifyInstance,
  host: FerryHost,
  row: StreamRoute,
  options: StreamOptions,
  report: Report,
): void {
  app.get(row.path, (request, reply) => {
    try {
      row.stream(host, options, request, reply);
    } catch (error) {
      sendError(reply, error, row.doing(request.params), report);
    }
  });
}

function sendError(reply: FastifyReply, error: unknown, doing: string, report: Report): void {
  if (!(error instanceof FerryError)) report(error, doing);
  const body = errorBody(error, doing);
  send(reply, statusOf(body.code), body);
}

function send(reply: FastifyReply, status: number, value: unknown): void {
  reply
    .code(status)
    .type('application/json; charset=utf-8')
    .send(`${toJson(value)}\n`);
}

/** What fastify itself refused: a body that is no JSON, or too big. */
function refusal(error: FastifyError, status: number): ErrorBody {
  if (status >= 500) return errorBody(error, null);
  const limit = `a body is JSON, of at most ${bodyLimitBytes} bytes`;
  return {
    code: 'INVALID_ARG',
    message: `body: ${error.message}; ${limit}`,
    sourceIntact: null,
    next: [],
  };
}

async function close(app: FastifyInstance): Promise<void> {
  const closed = new Promise<void>((resolve) => app.server.close(() => resolve()));
  app.server.closeAllConnections();
  await closed;
  await app.close();
}
