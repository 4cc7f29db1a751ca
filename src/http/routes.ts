// The API, whole: every request with its one answer. Event streams are in `streams.ts`.
// Names of domains, snapshots and disks are parameters of the path, percent-encoded; a disk is its target or its path.

import { z } from 'zod';

import { verifyModes } from '../block/copy.js';
import { absoluteDestination, moveStrategies } from '../block/destination.js';
import type { OperationView } from '../host/ferry-host.js';
import type { Call, Route } from './route.js';
import { route } from './route.js';
import { defaultRotateBytes } from '../host/ferry-host.js';

const name = z
  .string()
  .min(1, 'must not be empty')
  .max(4096)
  .refine((text) => !text.includes('\0'), 'must not hold a NUL byte');
const path = name.refine((text) => text.startsWith('/'), 'must be an absolute path');
const destination = name.refine(
  (text) => absoluteDestination(text) === text || text.startsWith('/'),
  'must be an absolute path, or a place such as block:/dev/vg/vm1',
);
const xml = z.string().min(1, 'must not be empty');
const flag = z.boolean().default(false);
const queryFlag = z.stringbool().default(false);
export const sequence = z
  .string()
  .regex(/^\d{1,15}$/, 'must be a whole number')
  .transform(Number);

/** 64-bit sizes are decimal strings on the wire. */
const bytes = z
  .string()
  .regex(/^[1-9]\d{0,18}$/, 'must be a number of bytes')
  .transform(BigInt);

const domain = z.strictObject({ domain: name });
const snapshot = z.strictObject({ domain: name, snapshot: name });
const disk = z.strictObject({ domain: name, disk: name });
export const operation = z.strictObject({ operation: sequence });

const pivotWhen = z.discriminatedUnion('how', [
  z.strictObject({ how: z.literal('auto') }),
  z.strictObject({ how: z.literal('manual') }),
  z.strictObject({ how: z.literal('at'), atMs: z.number().int().positive().max(8.64e15) }),
  z.strictObject({
    how: z.literal('when'),
    lagBytes: bytes,
    forMs: z.number().int().min(0).max(8.64e15),
  }),
]);

/** Ten years are for ever. */
const keepSeconds = z.number().int().min(0).max(315_360_000).nullable();

const undoSeconds = z.number().int().min(1).max(315_360_000).nullable();

const moveRequest = z.strictObject({
  disks: z.array(name).min(1, 'name at least one disk'),
  to: destination,
  strategy: z.enum(moveStrategies).default('auto'),
  tlsCreds: z.union([path, z.null()]).default(null),
  rotateBytes: z.union([bytes, z.null()]).default(defaultRotateBytes),
  bytesPerSecond: z.union([bytes, z.null()]).default(null),
  verify: z.enum(verifyModes).default('full'),
  pivot: pivotWhen.default({ how: 'auto' }),
  quiesce: flag,
  trim: flag,
  keepSourceSeconds: keepSeconds.default(null),
  deleteShared: flag,
  overlayDir: path.nullable().default(null),
  shareBase: flag,
  flatten: flag,
  format: z.enum(['raw', 'qcow2']).nullable().default(null),
  clusterSizeBytes: bytes.nullable().default(null),
  undoSeconds: undoSeconds.default(null),
});

const paceChange = z
  .strictObject({
    limitBytesPerSecond: bytes.nullable().optional(),
    isPaused: z.boolean().optional(),
    auto: z
      .strictObject({ latencyMs: z.number().positive().max(60_000).nullable().default(null) })
      .optional(),
  })
  .refine(
    ({ limitBytesPerSecond, auto }) => limitBytesPerSecond === undefined || auto === undefined,
    'takes limitBytesPerSecond or auto, not both',
  );

const done = async (promise: Promise<void>): Promise<Record<string, never>> => {
  await promise;
  return {};
};

export const routes: readonly Route[] = [
  route('GET', '/v1/version', 'version', {}, (_, { host }) => host.version()),

  route('GET', '/v1/domains', 'list', {}, (_, { host }) => host.listDomains()),
  route(
    'POST',
    '/v1/domains',
    'define',
    { status: 201, body: z.strictObject({ xml }) },
    ({ body }, { host }) => host.define(body.xml),
  ),
  route(
    'POST',
    '/v1/domains/transient',
    'create',
    { status: 201, body: z.strictObject({ xml, paused: flag }) },
    ({ body }, { host }) => host.createXml(body.xml, { paused: body.paused }),
  ),
  route('GET', '/v1/domains/:domain', 'dominfo', { params: domain }, ({ params }, { host }) =>
    host.showDomain(params.domain),
  ),
  route(
    'DELETE',
    '/v1/domains/:domain',
    'undefine',
    {
      params: domain,
      query: z.strictObject({
        snapshotsMetadata: queryFlag,
        nvram: z.enum(['remove', 'keep']).nullable().default(null),
      }),
    },
    ({ params, query }, { host }) => done(host.undefine(params.domain, query)),
  ),
  route(
    'GET',
    '/v1/domains/:domain/xml',
    'dumpxml',
    { params: domain, query: z.strictObject({ inactive: queryFlag }) },
    ({ params, query }, { host }) => ({ xml: host.dumpXml(params.domain, query) }),
  ),
  route(
    'POST',
    '/v1/domains/:domain/start',
    'start',
    { params: domain, body: z.strictObject({ paused: flag, mirrorLater: flag }) },
    ({ params, body }, { host }) => host.start(params.domain, body),
  ),
  route(
    'POST',
    '/v1/domains/:domain/seal',
    'seal',
    {
      params: domain,
      body: z.strictObject({ timeoutSeconds: z.number().min(0).max(3600).default(60) }),
    },
    ({ params, body }, { host }) => host.seal(params.domain, body),
  ),
  route(
    'POST',
    '/v1/domains/:domain/shutdown',
    'shutdown',
    { params: domain },
    ({ params }, { host }) => done(host.shutdown(params.domain)),
  ),
  route(
    'POST',
    '/v1/domains/:domain/destroy',
    'destroy',
    { params: domain },
    ({ params }, { host }) => done(host.destroy(params.domain)),
  ),
  route('GET', '/v1/domains/:domain/chain', 'chain', { params: domain }, ({ params }, { host }) =>
    host.chain(params.domain),
  ),

  route(
    'GET',
    '/v1/doctor',
    'doctor',
    { query: z.strictObject({ domain: name.optional() }) },
    ({ query }, { host }) => host.doctor(query.domain ?? null),
  ),

  route('GET', '/v1/gc', 'gc', {}, (_, { host }) => host.gcList()),
  route(
    'POST',
    '/v1/gc',
    'gc',
    { body: z.strictObject({ paths: z.array(path).min(1, 'name a file').nullable() }) },
    ({ body }, { host }) => host.gcRemove(body.paths),
  ),

  route(
    'GET',
    '/v1/domains/:domain/snapshots',
    'snapshot-list',
    { params: domain },
    ({ params }, { host }) => host.listSnapshots(params.domain),
  ),
  route(
    'POST',
    '/v1/domains/:domain/snapshots',
    'snapshot-create',
    {
      status: 201,
      params: domain,
      body: z.strictObject({
        xml,
        diskOnly: flag,
        noMetadata: flag,
        reuseExternal: flag,
        atomic: flag,
      }),
    },
    ({ params, body: { xml: text, ...flags } }, { host }) =>
      host.createSnapshot(params.domain, text, flags),
  ),
  route(
    'DELETE',
    '/v1/domains/:domain/snapshots/:snapshot',
    'snapshot-delete',
    {
      params: snapshot,
      query: z.strictObject({
        mode: z.enum(['merge', 'metadata', 'reopen-mirror', 'remove-mirror']),
      }),
    },
    ({ params, query }, { host }) =>
      done(host.deleteSnapshot(params.domain, params.snapshot, query.mode)),
  ),

  route(
    'GET',
    '/v1/domains/:domain/disks/:disk/job',
    'blockjob',
    { params: disk },
    ({ params }, { host }) => host.blockJob(params.domain, params.disk),
  ),
  route(
    'POST',
    '/v1/domains/:domain/disks/:disk/job/end',
    'blockjob',
    { params: disk, body: z.strictObject({ how: z.enum(['abort', 'pivot']) }) },
    ({ params, body }, { host }) => done(host.endBlockJob(params.domain, params.disk, body.how)),
  ),

  route(
    'POST',
    '/v1/domains/:domain/moves',
    'move',
    { status: 202, params: domain, body: moveRequest },
    ({ params, body }, { host }) => host.startMove(params.domain, body),
  ),
  route(
    'POST',
    '/v1/domains/:domain/moves/plan',
    'plan move',
    { params: domain, body: moveRequest },
    ({ params, body }, { host }) => host.planMove(params.domain, body),
  ),
  route(
    'GET',
    '/v1/plans/:hash',
    'plan show',
    { params: z.strictObject({ hash: name }) },
    ({ params }, { host }) => host.plan(params.hash),
  ),
  route(
    'POST',
    '/v1/plans/:hash/apply',
    'apply',
    { status: 202, params: z.strictObject({ hash: name }) },
    ({ params }, { host }) => host.applyPlan(params.hash),
  ),
  route(
    'GET',
    '/v1/operations',
    'ops list',
    { query: z.strictObject({ domain: name.optional(), all: queryFlag }) },
    ({ query }, { host }) => host.operations({ domain: query.domain ?? null, all: query.all }),
  ),
  route(
    'GET',
    '/v1/operations/:operation',
    'ops show',
    { params: operation },
    ({ params }, { host }) => host.showOperation(params.operation),
  ),
  route(
    'GET',
    '/v1/operations/:operation/record',
    'ops show',
    { params: operation },
    ({ params }, { host }) => host.operationRecord(params.operation),
  ),
  route(
    'GET',
    '/v1/operations/:operation/wait',
    'ops wait',
    {
      params: operation,
      query: z.strictObject({ timeoutSeconds: sequence.pipe(z.number().max(600)).default(60) }),
    },
    ({ params, query }, call) => longPoll(params.operation, query.timeoutSeconds, call),
  ),
  route(
    'POST',
    '/v1/operations/:operation/cancel',
    'ops cancel',
    { params: operation },
    ({ params }, { host }) => done(host.cancelOperation(params.operation)),
  ),
  route(
    'POST',
    '/v1/operations/:operation/pace',
    'pace',
    {
      params: operation,
      body: paceChange,
    },
    ({ params, body }, { host }) => done(host.paceOperation(params.operation, body)),
  ),
  route(
    'POST',
    '/v1/operations/:operation/pivot',
    'pivot',
    { params: operation },
    ({ params }, { host }) => done(host.pivotOperation(params.operation)),
  ),
  route(
    'POST',
    '/v1/operations/:operation/source',
    'keep-source',
    { params: operation, body: z.strictObject({ keepSeconds }) },
    ({ params, body }, { host }) => done(host.keepSource(params.operation, body.keepSeconds)),
  ),
  route(
    'POST',
    '/v1/operations/:operation/undo',
    'undo',
    { params: operation, body: z.strictObject({ close: flag }) },
    ({ params, body }, { host }) => host.undoOperation(params.operation, body),
  ),
  route(
    'POST',
    '/v1/operations/:operation/rotate',
    'ops rotate',
    { params: operation },
    ({ params }, { host }) => done(host.rotateOperation(params.operation)),
  ),

  route(
    'POST',
    '/v1/operations/:operation/resolve',
    'ops resolve',
    {
      status: 202,
      params: operation,
      body: z.strictObject({
        direction: z.enum(['forward', 'back']),
        was: z.enum(['done', 'absent']).nullable().default(null),
        by: name.max(200),
      }),
    },
    ({ params, body }, { host }) => host.resolveOperation(params.operation, body),
  ),

  route(
    'GET',
    '/v1/events/past',
    'events',
    { query: z.strictObject({ after: sequence.default(0) }) },
    ({ query }, { host }) => pastEvents(query.after, host),
  ),
];

/** The operation once it has ended, or as it is when the time is over: the caller looks at its status and asks again. */
async function longPoll(id: number, timeoutSeconds: number, call: Call): Promise<OperationView> {
  const timeout = AbortSignal.timeout(timeoutSeconds * 1000);
  const signal = AbortSignal.any([timeout, call.signal]);
  try {
    return await call.host.waitOperation(id, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
    return call.host.operation(id);
  }
}

/** What is kept of the events after `after`: the host gives it before `events` returns. */
function pastEvents(after: number, host: Call['host']): readonly unknown[] {
  const kept: unknown[] = [];
  host.events(after, (event) => kept.push(event)).unsubscribe();
  return kept;
}
