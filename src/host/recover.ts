// What a daemon does when it starts: finds the guests again, settles those that a former daemon left standing in a pause
// of ours, goes on with what was open, and starts what starts with the host. Guests were never disturbed meanwhile.

import { access, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { OperationRecord } from '../journal/journal.js';
import type { Plan, StepKind } from '../plan/step.js';
import { messageOf } from '../std/errors.js';
import { startDomain } from './domain-verbs.js';
import type { Host } from './host.js';
import { standsStill } from './reconcile.js';

/** Kinds of steps after whose end a guest may stand still until `resume-guest`, or be frozen until `thaw-guest`. */
const untilResumed: ReadonlySet<string> = new Set([
  ...standsStill,
  'start-qemu',
  'resume-guest',
  'thaw-guest',
]);

/** How long the sockets wait for guests that stand still because of us. Only a QEMU that hangs takes as long. */
const STANDING_MS = 5000;
/** How long they wait for operations that do not stand in a guest's way. */
const GOING_MS = 500;
/** How long they wait for QEMUs to answer. */
const LOOKING_MS = 1500;

/**
 * Resolves when no guest stands still because of us and every guest was looked at. Long operations then still run.
 */
export async function recover(host: Host): Promise<void> {
  const open = await host.known.journal.openOperations();
  await host.paces.load(open.map(({ id }) => id));
  await host.pivots.load(open.map(({ id }) => id));
  await host.sources.load();
  await host.ages.load();
  // A move goes on in a QEMU whose start has come to its end, and which has its mirrors.
  const moves = open.filter(({ plan }) => plan.waitsFrom !== undefined && !isStarted(open, plan));
  const first = open.filter((operation) => isStanding(operation) && !moves.includes(operation));
  const rest = open.filter((operation) => !first.includes(operation) && !moves.includes(operation));
  await guestsFirst(host, first);
  const going = rest.map((operation) => goOn(host, operation));
  for (const operation of moves) void goOnAfter(host, operation, open);
  // A long one (a move) must not keep the sockets shut; the others take milliseconds.
  await atMost(GOING_MS, going);
  // Who died while nobody looked is known to be dead before anybody asks.
  const running = host.known.all().filter(({ live }) => live !== null);
  await atMost(
    LOOKING_MS,
    running.map(({ uuid }) => host.look(uuid)),
  );
}

const aMoment = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Up to the step that lets its guest go on each operation goes at once; what comes behind waits until all guests run. */
async function guestsFirst(host: Host, operations: readonly OperationRecord[]): Promise<void> {
  let allRun: () => void = () => undefined;
  const guestsRun = new Promise<void>((resolve) => (allRun = resolve));
  // Each step costs an fsync or two: with one of all these operations at a time, clients are answered between them.
  let behind = guestsRun;
  const running = operations.map((operation) => {
    let arrived: () => void = () => undefined;
    const beyond = new Promise<void>((resolve) => (arrived = resolve));
    const end = goOn(host, operation, async (kind) => {
      if (untilResumed.has(kind)) return;
      arrived();
      behind = behind.then(aMoment);
      await behind;
    });
    return Promise.race([beyond, end]);
  });
  await atMost(STANDING_MS, running);
  allRun();
  const ms = Math.round(performance.now());
  if (operations.length > 0)
    host.log.info(
      { operations: operations.length, msSinceStart: ms },
      'guests that stood still because of us run again',
    );
}

/** Whether nothing else of its domain is open, so that a move need not wait for it. */
const isStarted = (open: readonly OperationRecord[], { domain }: Plan): boolean =>
  open.every((other) => other.domain !== domain || other.plan.waitsFrom !== undefined);

async function goOnAfter(
  host: Host,
  move: OperationRecord,
  open: readonly OperationRecord[],
): Promise<void> {
  const others = open.filter(({ id, domain }) => id !== move.id && domain === move.domain);
  await Promise.all(others.flatMap(({ id }) => host.running.get(id)?.settled ?? []));
  // What ended meanwhile may have let it go on, to its end.
  const now = (await host.known.journal.openOperations()).find(({ id }) => id === move.id);
  if (now !== undefined) await goOn(host, now);
}

async function atMost(ms: number, work: readonly Promise<void>[]): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const enough = new Promise((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([Promise.allSettled(work), enough]);
  clearTimeout(timer);
}

function isStanding({ steps, plan }: OperationRecord): boolean {
  const at = steps.findIndex((step) => step.mark === 'doing' || step.mark === 'none');
  return at >= 0 && untilResumed.has(plan.steps[at]?.kind ?? '');
}

async function goOn(
  host: Host,
  operation: OperationRecord,
  turn?: (kind: StepKind) => Promise<void>,
): Promise<void> {
  try {
    await host.resumeOperation(operation, turn === undefined ? {} : { turn });
  } catch (error) {
    // Rolled back, or waiting for a person: the journal says so, and so does `ferry ops`.
    host.log.warn(
      { operation: operation.id, domain: operation.domainName, error: messageOf(error) },
      'operation went on and ended with an error',
    );
  }
}

/** Once per boot of the host: the marker lies in the run directory, which a boot empties. */
export async function autostart(host: Host): Promise<void> {
  const marker = join(host.context.config.runDir, 'autostarted');
  const before = await access(marker).then(
    () => true,
    () => false,
  );
  if (before) return;
  await mkdir(host.context.config.runDir, { recursive: true, mode: 0o711 });
  await writeFile(marker, '');
  for (const { uuid, name, autostart: wanted, live } of host.known.all()) {
    if (!wanted || live !== null) continue;
    // Nobody is there to answer a refusal: a mirror whose destination is not there yet is taken up later.
    await startDomain(host, uuid, {
      paused: false,
      resetNvram: false,
      mirrors: 'if-possible',
    }).catch((error: unknown) => {
      host.log.error({ domain: name, error: messageOf(error) }, 'autostart failed');
    });
  }
}
