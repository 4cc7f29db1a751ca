// Looks at a QEMU and brings what is known in line with it. Events only say when to look; what counts is what QEMU
// answers (law 10), under the domain's lock, so that an operation is never seen half-way.

import type { DomainRecord, LiveRecord } from '../domain/record.js';
import type { DomainState } from '../domain/state.js';
import type { Change } from '../domain/record.js';
import { localPath } from '../block/layer.js';
import type { Mirrored } from '../plan/mirror-end.js';
import { mirrorsOf, planLost } from '../plan/mirror-end.js';
import { planRestart, planStop } from '../plan/lifecycle.js';
import { topOf } from '../plan/overlay.js';
import { refuse } from '../plan/refuse.js';
import type { Plan } from '../plan/step.js';
import type { Job, Monitor } from '../qmp/monitor.js';
import { queryJobs } from '../qmp/monitor.js';
import { QemuError, StateError } from '../std/errors.js';
import type { ReplyOf } from '../qmp/monitor.js';
import { filesOf } from './context.js';
import type { Host } from './host.js';
import { problemOf } from './keeper.js';

type RunState = ReplyOf<'query-status'>['status'];

/** What a run state of QEMU is to libvirt's clients; null: nothing to be told of (`shutdown` is an end). */
const states: Readonly<Record<RunState, DomainState | null>> = {
  running: { state: 'running', reason: 'unpaused' },
  paused: { state: 'paused', reason: 'user' },
  prelaunch: { state: 'paused', reason: 'starting up' },
  'io-error': { state: 'paused', reason: 'I/O error' },
  watchdog: { state: 'paused', reason: 'watchdog' },
  'guest-panicked': { state: 'crashed', reason: 'panicked' },
  'internal-error': { state: 'paused', reason: 'crashed' },
  suspended: { state: 'pmsuspended', reason: 'unknown' },
  shutdown: null,
  debug: null,
  inmigrate: null,
  postmigrate: null,
  'finish-migrate': null,
  'restore-vm': null,
  'save-vm': null,
  colo: null,
};

/** What a look found that takes a plan of its own. */
type Found = { readonly plan: (record: DomainRecord, live: LiveRecord) => Plan } | null;

export async function reconcile(host: Host, uuid: string): Promise<void> {
  const found = await host.alone(uuid, () => lookAt(host, uuid));
  if (found === null) return;
  // It may have gone in between; then there is nothing left to do.
  const gone = new StateError('OPERATION_INVALID', 'domain is not running');
  await host
    .operate(uuid, (record) =>
      record?.live == null ? refuse(gone) : found.plan(record, record.live),
    )
    .catch((error: unknown) => {
      if (error !== gone) throw error;
    });
}

async function lookAt(host: Host, uuid: string): Promise<Found> {
  const record = host.known.find(uuid);
  const live = record?.live;
  if (record === null || live == null) return null;
  const { pidFile } = filesOf(host.context.config, uuid, record.name);
  const died: Found = {
    plan: (now, nowLive) =>
      planStop(now, nowLive, 'crashed', { pidFile, nowSeconds: host.nowSeconds, sealMs: null }),
  };
  const monitor = await host.guestOf(uuid).monitor();
  if (monitor === null) {
    // What they wait for will not come; before their commit step they are undone. A move goes on with what needs no
    // QEMU, and waits for the next one then.
    for (const { plan, abort } of host.running.values())
      if (plan.domain === uuid && plan.waitsFrom === undefined) abort.abort();
    return died;
  }
  // Half-way: its guest may stand still because of us.
  if (host.interrupted.of(uuid) !== null) return null;
  try {
    return await compare(host, record, live, monitor, pidFile);
  } catch (error) {
    if (
      error instanceof QemuError &&
      error.qmpClass === 'Gone' &&
      (await host.guestOf(uuid).monitor()) === null
    )
      return died;
    throw error;
  }
}

async function compare(
  host: Host,
  record: DomainRecord,
  live: LiveRecord,
  monitor: Monitor,
  pidFile: string,
): Promise<Found> {
  const { status } = await monitor.execute('query-status', {});
  if (status === 'paused' && isHeld(host, record)) return null;
  if (status === 'shutdown') return ended(host, live, pidFile);
  if (status === 'guest-panicked') {
    const found = panicked(host, live, pidFile);
    if (found !== null) return found;
  }
  const jobs = live.mirrors.length === 0 ? new Map<string, Job>() : await queryJobs(monitor);
  const told = new Map([...jobs].filter(([id]) => !host.keeper.isTrying(record.uuid, id)));
  const stalls = stallChanges(record, told);
  if ([...told.values()].some((job) => problemOf(job) !== null)) host.keeper.watch(record.uuid);
  const changes = [...stateChanges(live, states[status]), ...stalls, ...readyChanges(record, told)];
  if (changes.length > 0) await host.known.journal.record(record.uuid, changes);
  const lost = lostMirrors(record, jobs);
  if (lost.length === 0) return null;
  const { nowSeconds } = host;
  return { plan: (now) => planLost({ record: now, files: new Map(), nowSeconds }, lost) };
}

/**
 * Whether an operation of ours stopped the guest between two sides and waits for a person: it is not its user's pause,
 * and its jobs are not lost, so nobody else may touch either.
 */
function isHeld(host: Host, { uuid, live }: DomainRecord): boolean {
  if (live?.state.state !== 'running') return false;
  const open = host.operations
    .all()
    .filter(({ domain, endedAtMs }) => domain === uuid && endedAtMs === null);
  return open.some(
    ({ attention, direction, steps }) =>
      attention !== null &&
      steps.some(
        ({ kind, mark }) =>
          standsStill.has(kind) && (mark === 'doing' || (mark === 'done' && direction === 'back')),
      ),
  );
}

/** Kinds of steps in which the guest stands still, forth or back. */
export const standsStill: ReadonlySet<string> = new Set(['pivot', 'snapshot', 'rotate']);

/** The guest powered off; QEMU stands still with its images open (`-no-shutdown`), so that we decide what comes next. */
function ended(host: Host, live: LiveRecord, pidFile: string): Found {
  const { uuid, onPoweroff } = live.definition;
  if (!host.sealing.has(uuid)) {
    if (live.rebooting || onPoweroff === 'restart')
      return { plan: (record) => planRestart(record) };
    if (onPoweroff === 'preserve') return null;
  }
  return {
    plan: (record, now) =>
      planStop(record, now, 'shutdown', {
        pidFile,
        nowSeconds: host.nowSeconds,
        sealMs: SEAL_MS,
      }),
  };
}

/** How long mirrors may take to end with both sides equal when their guest powered off: nobody waits for it but its next start. */
export const SEAL_MS = 10_000;

/** What `<on_crash>` asks for; null: the guest stays as it is, for who wants to look at it. */
function panicked(host: Host, live: LiveRecord, pidFile: string): Found {
  const { onCrash } = live.definition;
  if (onCrash === 'preserve') return null;
  if (onCrash === 'restart') return { plan: (record) => planRestart(record) };
  const how = { pidFile, nowSeconds: host.nowSeconds, sealMs: SEAL_MS };
  return { plan: (record, now) => planStop(record, now, 'crashed', how) };
}

function stateChanges(live: LiveRecord, found: DomainState | null): readonly Change[] {
  if (found === null || found.state === live.state.state) {
    // Paused by its user and stopped by an error are both `paused`: the error is news.
    if (found?.reason !== 'I/O error' || live.state.reason === 'I/O error') return [];
  }
  const lifecycle =
    found?.state === 'running'
      ? ({ event: 'resumed', detail: 'unpaused' } as const)
      : ({
          event: 'suspended',
          detail:
            found?.reason === 'I/O error'
              ? 'I/O error'
              : found?.reason === 'watchdog'
                ? 'watchdog'
                : 'paused',
        } as const);
  if (found === null) return [];
  return [
    { change: 'state', state: found },
    { change: 'event', event: { type: 'lifecycle', id: live.id, change: lifecycle } },
  ];
}

/** Law 11: the user is told that a copy stands still, and that it goes on. What stands still is not in step. */
function stallChanges(record: DomainRecord, jobs: ReadonlyMap<string, Job>): readonly Change[] {
  return mirrorsOf(record).flatMap(({ disk, mirror, record: known }): readonly Change[] => {
    const job = jobs.get(mirror.jobId);
    const problem = job === undefined ? known.problem : problemOf(job);
    if (problem === known.problem) return [];
    const { target } = disk;
    const details = JSON.stringify({
      disk: target,
      source: localPath(topOf(disk).source),
      mirror: localPath(mirror.image.source),
      ...(problem === null ? {} : { reason: problem }),
    });
    const event = problem === null ? 'MIRROR_RESUMED' : 'MIRROR_PAUSED';
    return [
      { change: 'mirror-problem', target, problem },
      ...(problem !== null && mirror.ready === 'yes'
        ? [{ change: 'mirror-ready', target, ready: 'no' } as const]
        : []),
      { change: 'event', event: { type: 'monitor', event, details } },
    ];
  });
}

function readyChanges(record: DomainRecord, jobs: ReadonlyMap<string, Job>): readonly Change[] {
  return mirrorsOf(record).flatMap(({ disk, mirror }): readonly Change[] => {
    const job = jobs.get(mirror.jobId);
    if (mirror.ready !== 'no' || job?.block?.ready !== true || problemOf(job) !== null) return [];
    const path = localPath(topOf(disk).source);
    return [
      { change: 'mirror-ready', target: disk.target, ready: 'yes' },
      {
        change: 'event',
        event: { type: 'block-job', path, target: disk.target, job: 'copy', status: 'ready' },
      },
    ];
  });
}

function lostMirrors(
  record: DomainRecord,
  jobs: ReadonlyMap<string, Job>,
): readonly (Mirrored & { readonly error: string })[] {
  return mirrorsOf(record).flatMap((mirrored) => {
    // A move sees to its own jobs.
    if (mirrored.record.move) return [];
    const job = jobs.get(mirrored.mirror.jobId);
    if (job === undefined) return [{ ...mirrored, error: 'the job is gone from QEMU' }];
    return job.info.status === 'concluded'
      ? [{ ...mirrored, error: job.info.error ?? 'the job ended' }]
      : [];
  });
}
