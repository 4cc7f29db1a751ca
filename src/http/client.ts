// The API seen from the other side: the verbs of a FerryHost over its socket, with its errors made whole again.
// A library: the `ferry` command is its first user.

import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:http';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type {
  BlockJobView,
  DiskView,
  DomainSummary,
  FerryHost,
  MoveRequest,
  OperationAnswer,
  OperationRecordView,
  OperationView,
  PaceChange,
  SnapshotDeleteMode,
  SnapshotRequestFlags,
  SnapshotView,
  StreamedEvent,
  UndefineHow,
} from '../host/ferry-host.js';
import type { DoctorReport } from '../host/doctor/types.js';
import type { GcRemoved, GcReport } from '../host/gc/types.js';
import type { MovePlan } from '../host/move-plan-view.js';
import { BusyError, FerryError, SystemError, messageOf } from '../std/errors.js';
import type { Method } from './route.js';
import { parseSse } from './sse.js';
import type { SseMessage } from './sse.js';
import { RemoteError, fromJson, isErrorBody, toJson } from './wire.js';

/** The daemon went away with a request: whether it was carried out is not known. */
export class UnansweredError extends BusyError {}

export interface StreamReadOptions {
  readonly signal?: AbortSignal;
  /** Called when the daemon has subscribed us: what happens from now on is told. Again after each break. */
  readonly onOpen?: () => void;
  /** Called when the daemon went away, before it is tried again. */
  readonly onBreak?: () => void;
  /** How long a daemon that went away is waited for. */
  readonly reconnectMs?: number;
}

export interface FerryClient {
  readonly socketPath: string;
  version(): Promise<ReturnType<FerryHost['version']>>;
  listDomains(): Promise<readonly DomainSummary[]>;
  showDomain(domain: string): Promise<DomainSummary>;
  define(xml: string): Promise<DomainSummary>;
  createXml(xml: string, options: { readonly paused: boolean }): Promise<DomainSummary>;
  start(
    domain: string,
    options: { readonly paused: boolean; readonly mirrorLater: boolean },
  ): Promise<DomainSummary>;
  seal(domain: string, options: { readonly timeoutSeconds: number }): Promise<DomainSummary>;
  shutdown(domain: string): Promise<void>;
  destroy(domain: string): Promise<void>;
  undefine(domain: string, how: UndefineHow): Promise<void>;
  dumpXml(domain: string, options: { readonly inactive: boolean }): Promise<string>;
  chain(domain: string): Promise<readonly DiskView[]>;
  doctor(domain: string | null, signal?: AbortSignal): Promise<DoctorReport>;
  gcList(signal?: AbortSignal): Promise<GcReport>;
  gcRemove(paths: readonly string[] | null): Promise<GcRemoved>;
  createSnapshot(domain: string, xml: string, flags: SnapshotRequestFlags): Promise<SnapshotView>;
  listSnapshots(domain: string): Promise<readonly SnapshotView[]>;
  deleteSnapshot(domain: string, snapshot: string, mode: SnapshotDeleteMode): Promise<void>;
  blockJob(domain: string, disk: string): Promise<BlockJobView | null>;
  endBlockJob(domain: string, disk: string, how: 'abort' | 'pivot'): Promise<void>;
  startMove(domain: string, move: MoveRequest): Promise<OperationView>;
  /** Changes nothing; `hash` is for `applyPlan`. */
  planMove(domain: string, move: MoveRequest): Promise<MovePlan>;
  /** One that was made since this ferryd began. */
  plan(hash: string): Promise<MovePlan>;
  /** @throws RemoteError OPERATION_INVALID that names what changed since the plan was made. */
  applyPlan(hash: string): Promise<OperationView>;
  operations(filter: {
    readonly domain: string | null;
    readonly all: boolean;
  }): Promise<readonly OperationView[]>;
  operation(id: number): Promise<OperationView>;
  operationRecord(id: number): Promise<OperationRecordView>;
  /** Asks until the operation is not running any more; rejects with its error when it was rolled back. */
  waitOperation(id: number, signal?: AbortSignal): Promise<OperationView>;
  /** The operation at every change, the last one when it has ended; rejects when it was rolled back. */
  watchOperation(id: number, options?: StreamReadOptions): AsyncGenerator<OperationView>;
  paceOperation(id: number, change: PaceChange): Promise<void>;
  pivotOperation(id: number): Promise<void>;
  keepSource(id: number, keepSeconds: number | null): Promise<void>;
  undoOperation(id: number, options: { readonly close: boolean }): Promise<OperationView>;
  rotateOperation(id: number): Promise<void>;
  cancelOperation(id: number): Promise<void>;
  resolveOperation(id: number, answer: OperationAnswer): Promise<OperationView>;
  pastEvents(after: number): Promise<readonly StreamedEvent[]>;
  /** Events from now on, or after event `after`; goes on where it was when the daemon comes back. */
  events(after: number | null, options?: StreamReadOptions): AsyncGenerator<StreamedEvent>;
}

export function ferryClient(socketPath: string): FerryClient {
  // `as`: both ends of the socket are this project, of one version; the server's types are the client's.
  const ask = async <T>(
    method: Method,
    path: string,
    body?: unknown,
    signal?: AbortSignal,
  ): Promise<T> => (await exchange(socketPath, method, path, body, signal)) as T;
  const tell = async (method: Method, path: string, body?: unknown): Promise<void> => {
    await exchange(socketPath, method, path, body);
  };
  const of = (domain: string): string => `/v1/domains/${encodeURIComponent(domain)}`;
  const disk = (domain: string, name: string): string =>
    `${of(domain)}/disks/${encodeURIComponent(name)}/job`;
  return {
    socketPath,
    version: () => ask('GET', '/v1/version'),
    listDomains: () => ask('GET', '/v1/domains'),
    showDomain: (domain) => ask('GET', of(domain)),
    define: (xml) => ask('POST', '/v1/domains', { xml }),
    createXml: (xml, { paused }) => ask('POST', '/v1/domains/transient', { xml, paused }),
    start: (domain, how) => ask('POST', `${of(domain)}/start`, how),
    seal: (domain, how) => ask('POST', `${of(domain)}/seal`, how),
    shutdown: (domain) => tell('POST', `${of(domain)}/shutdown`),
    destroy: (domain) => tell('POST', `${of(domain)}/destroy`),
    undefine: (domain, { snapshotsMetadata, nvram }) =>
      tell(
        'DELETE',
        `${of(domain)}?snapshotsMetadata=${snapshotsMetadata}${nvram === null ? '' : `&nvram=${nvram}`}`,
      ),
    dumpXml: async (domain, { inactive }) =>
      (await ask<{ xml: string }>('GET', `${of(domain)}/xml?inactive=${inactive}`)).xml,
    chain: (domain) => ask('GET', `${of(domain)}/chain`),
    doctor: (domain, signal) => {
      const query = domain === null ? '' : `?domain=${encodeURIComponent(domain)}`;
      return ask('GET', `/v1/doctor${query}`, undefined, signal);
    },
    gcList: (signal) => ask('GET', '/v1/gc', undefined, signal),
    gcRemove: (paths) => ask('POST', '/v1/gc', { paths }),
    createSnapshot: (domain, xml, flags) =>
      ask('POST', `${of(domain)}/snapshots`, { xml, ...flags }),
    listSnapshots: (domain) => ask('GET', `${of(domain)}/snapshots`),
    deleteSnapshot: (domain, snapshot, mode) =>
      tell('DELETE', `${of(domain)}/snapshots/${encodeURIComponent(snapshot)}?mode=${mode}`),
    blockJob: (domain, name) => ask('GET', disk(domain, name)),
    endBlockJob: (domain, name, how) => tell('POST', `${disk(domain, name)}/end`, { how }),
    startMove: (domain, move) => ask('POST', `${of(domain)}/moves`, move),
    planMove: (domain, move) => ask('POST', `${of(domain)}/moves/plan`, move),
    plan: (hash) => ask('GET', `/v1/plans/${encodeURIComponent(hash)}`),
    applyPlan: (hash) => ask('POST', `/v1/plans/${encodeURIComponent(hash)}/apply`),
    operations: ({ domain, all }) => {
      const only = domain === null ? '' : `&domain=${encodeURIComponent(domain)}`;
      return ask('GET', `/v1/operations?all=${all}${only}`);
    },
    operation: (id) => ask('GET', `/v1/operations/${id}`),
    operationRecord: (id) => ask('GET', `/v1/operations/${id}/record`),
    waitOperation: (id, signal) => waitOperation(socketPath, id, signal),
    watchOperation: (id, options = {}) => watchOperation(socketPath, id, options),
    paceOperation: (id, change) => tell('POST', `/v1/operations/${id}/pace`, change),
    pivotOperation: (id) => tell('POST', `/v1/operations/${id}/pivot`),
    keepSource: (id, keepSeconds) => tell('POST', `/v1/operations/${id}/source`, { keepSeconds }),
    undoOperation: (id, options) => ask('POST', `/v1/operations/${id}/undo`, options),
    rotateOperation: (id) => tell('POST', `/v1/operations/${id}/rotate`),
    cancelOperation: (id) => tell('POST', `/v1/operations/${id}/cancel`),
    resolveOperation: (id, answer) => ask('POST', `/v1/operations/${id}/resolve`, answer),
    pastEvents: (after) => ask('GET', `/v1/events/past?after=${after}`),
    events: (after, options = {}) => readEvents(socketPath, after, options),
  };
}

async function waitOperation(
  socketPath: string,
  id: number,
  signal?: AbortSignal,
): Promise<OperationView> {
  for (;;) {
    const path = `/v1/operations/${id}/wait`;
    // `as`: see `ask`.
    const view = (await exchange(socketPath, 'GET', path, undefined, signal)) as OperationView;
    if (view.status !== 'running') return view;
  }
}

async function* watchOperation(
  socketPath: string,
  id: number,
  options: StreamReadOptions,
): AsyncGenerator<OperationView> {
  const path = (): string => `/v1/operations/${id}/watch`;
  for await (const message of readStream(socketPath, path, options)) {
    const value = fromJson(message.data);
    if (message.event === 'failed' && isErrorBody(value)) throw new RemoteError(value);
    yield value as OperationView; // `as`: see `ask`.
    if (message.event === 'end') return;
  }
}

async function* readEvents(
  socketPath: string,
  after: number | null,
  options: StreamReadOptions,
): AsyncGenerator<StreamedEvent> {
  let last = after;
  const path = (): string => (last === null ? '/v1/events' : `/v1/events?after=${last}`);
  for await (const message of readStream(socketPath, path, options)) {
    const event = fromJson(message.data) as StreamedEvent; // `as`: see `ask`.
    last = event.seq;
    yield event;
  }
}

/** Messages of one stream over as many connections as it takes. `path` is asked anew for each. */
async function* readStream(
  socketPath: string,
  path: () => string,
  options: StreamReadOptions,
): AsyncGenerator<SseMessage> {
  const { signal, onOpen, onBreak, reconnectMs = 30_000 } = options;
  let giveUpAt: number | null = null;
  const opened = (): void => {
    giveUpAt = Number.POSITIVE_INFINITY;
    onOpen?.();
  };
  for (;;) {
    try {
      const response = await connectTo(socketPath, 'GET', path(), undefined, signal);
      if (response.statusCode !== 200) throw await errorOf(response);
      yield* parseSse(response.setEncoding('utf8'), opened);
    } catch (error) {
      if (signal?.aborted === true) return;
      // What the daemon says is final. So is a daemon that was never there, or stays away for too long.
      if (error instanceof RemoteError || giveUpAt === null || Date.now() > giveUpAt) throw error;
    }
    if (signal?.aborted === true) return;
    if (giveUpAt === Number.POSITIVE_INFINITY) {
      giveUpAt = Date.now() + reconnectMs;
      onBreak?.();
    }
    await delay(reconnectEveryMs, undefined, signal === undefined ? {} : { signal }).catch(
      () => undefined,
    );
  }
}

const reconnectEveryMs = 200;

async function exchange(
  socketPath: string,
  method: Method,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<unknown> {
  const response = await connectTo(socketPath, method, path, body, signal);
  if ((response.statusCode ?? 500) >= 400) throw await errorOf(response);
  return fromJson(await textOf(response));
}

async function connectTo(
  socketPath: string,
  method: Method,
  path: string,
  body: unknown,
  signal?: AbortSignal,
): Promise<IncomingMessage> {
  const headers = body === undefined ? {} : { 'content-type': 'application/json' };
  // No agent: a kept connection would be a dead one after the daemon was restarted.
  const abort = signal === undefined ? {} : { signal };
  const sent = request({ socketPath, method, path, headers, agent: false, ...abort });
  // What goes wrong once the response is there is told by the response; an unheard 'error' would end the process.
  sent.on('error', () => undefined);
  sent.end(body === undefined ? undefined : toJson(body));
  try {
    const [response] = (await once(sent, 'response')) as [IncomingMessage]; // `as`: node:http's event.
    return response;
  } catch (error) {
    throw unreachable(socketPath, error);
  }
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  try {
    for await (const chunk of response.setEncoding('utf8')) text += String(chunk);
  } catch (error) {
    throw wentAway(error);
  }
  return text;
}

async function errorOf(response: IncomingMessage): Promise<FerryError> {
  const text = await textOf(response);
  const body = parsedOrNull(text);
  if (isErrorBody(body)) return new RemoteError(body);
  const what = `ferryd answered ${response.statusCode} with something that is no error of ours`;
  return new SystemError(`${what}; is it ferryd that listens there?`, unknown);
}

function parsedOrNull(text: string): unknown {
  try {
    return fromJson(text);
  } catch {
    return null;
  }
}

/** Who cannot ask the daemon cannot say how the images are. */
const unknown = { sourceIntact: null } as const;

function unreachable(socketPath: string, error: unknown): FerryError {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  const start = `ferryd --run-dir ${dirname(socketPath)}`;
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    // On another state directory it would know other domains, or none.
    const text = `ferryd is not running on ${socketPath}; start it: ${start}, with the --state-dir that it had; 'ferry doctor' works without it`;
    return new BusyError(text, { ...unknown, cause: error, next: [start] });
  }
  if (code === 'EACCES' || code === 'EPERM') {
    const text = `ferryd on ${socketPath} does not let this user in; run ferry as the user that runs ferryd`;
    return new SystemError(text, { ...unknown, cause: error });
  }
  return wentAway(error);
}

/** The request may have been carried out. What was journaled goes on or is undone when the daemon is back. */
function wentAway(error: unknown): FerryError {
  const text = `ferryd went away before it answered (${messageOf(error)}); when it is back see what became of it: ferry ops list --all`;
  return new UnansweredError(text, {
    ...unknown,
    cause: error,
    next: ['ferry ops list --all'],
  });
}
