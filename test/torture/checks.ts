// What has to hold once a struck operation is over, seen from outside: QEMU's own words, the kernel's, the storage's.

import { readdir, readFile, readlink, rm } from 'node:fs/promises';
import { join } from 'node:path';

import type { OperationView, StreamedEvent } from '../../src/host/ferry-host.js';
import { processesOf } from '../lib/process.js';
import type { Rig } from './rig.js';
import type { Scenario } from './scenarios.js';
import { namedDisks, topsOf, withoutReady, type NamedDisk, type View } from './view.js';

export type ProblemKind =
  /** A write that the guest saw acknowledged is not there. */
  | 'lost'
  /** A node, job, file, lock or process that nobody needs any more. */
  | 'leftover'
  /** Something did not come to its end in time, or waits for a person. */
  | 'hang'
  /** Anything else that is not as it has to be. */
  | 'wrong';

export interface Problem {
  readonly kind: ProblemKind;
  readonly text: string;
}

const problem = (kind: ProblemKind, text: string): Problem => ({ kind, text });

function differ(kind: ProblemKind, what: string, found: unknown, wanted: unknown): Problem[] {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  return a === b ? [] : [problem(kind, `${what}: ${a}, and should be ${b}`)];
}

/** A guest whose QEMU lives: it runs on what the XML names, and nothing else is open. */
export async function checkGuest(rig: Rig, view: View): Promise<readonly Problem[]> {
  const disks = namedDisks(view.liveXml);
  const { status } = await rig.monitor.ask<{ status: string }>(rig.life, 'query-status');
  const wanted = rig.isSuspended ? 'paused' : 'running';
  return [
    ...differ('wrong', 'state of the domain', view.summary.state, wanted),
    ...differ('wrong', 'run state of QEMU', status, wanted),
    ...(await checkGraph(rig, disks)),
    ...(await checkOpenFiles(rig, disks)),
    ...checkPersistent(disks, namedDisks(view.inactiveXml)),
  ];
}

interface Graph {
  readonly nodes: readonly { readonly id: number; readonly type: string; readonly name: string }[];
  readonly edges: readonly {
    readonly parent: number;
    readonly child: number;
    readonly name: string;
  }[];
}

interface Job {
  readonly id: string;
  readonly status: string;
}

async function checkGraph(rig: Rig, disks: readonly NamedDisk[]): Promise<readonly Problem[]> {
  const graph = await rig.monitor.ask<Graph>(rig.life, 'x-debug-query-block-graph');
  const jobs = await rig.monitor.ask<readonly Job[]>(rig.life, 'query-jobs');
  const wanted = disks.flatMap(({ chain, mirror }) => [...chain, ...mirror]).map(formatNode);
  const formats = graph.nodes.map(({ name }) => name).filter((name) => name.endsWith('-format'));
  return [
    ...disks.flatMap(({ target, chain }, i) =>
      differ('wrong', `chain of ${target} in QEMU`, chainOf(graph, i), chain.map(formatNode)),
    ),
    ...differ('leftover', 'nodes', formats.toSorted(), [...new Set(wanted)].toSorted()),
    ...differ(
      'leftover',
      'number of jobs',
      jobs.length,
      disks.filter(({ mirror }) => mirror.length > 0).length,
    ),
    ...differ(
      'leftover',
      'jobs that are over',
      jobs.filter(({ status }) => status === 'concluded').map(({ id }) => id),
      [],
    ),
  ];
}

const formatNode = ({ index }: { readonly index: number | null }): string =>
  `ferry-${index}-format`;

/** Format nodes below the device of the n-th disk, filters left out. */
function chainOf({ nodes, edges }: Graph, n: number): readonly string[] {
  const device = nodes.find(
    ({ type, name }) => type === 'block-backend' && name.includes(`/virtio-disk${n}/`),
  );
  const chain: string[] = [];
  let at = edges.find(({ parent }) => parent === device?.id)?.child;
  while (at !== undefined) {
    const node = nodes.find(({ id }) => id === at);
    if (node !== undefined && !node.name.endsWith('-filter')) chain.push(node.name);
    const next = edges.find(({ parent, name }) => parent === at && name === 'backing');
    at = next?.child;
  }
  return chain;
}

/** What QEMU has open is what it holds locks on. */
async function checkOpenFiles(rig: Rig, disks: readonly NamedDisk[]): Promise<readonly Problem[]> {
  const pid = await pidOf(rig);
  const names = await readdir(`/proc/${pid}/fd`);
  const open = await Promise.all(
    names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')),
  );
  const images = open.filter((path) => isImage(rig, path));
  const wanted = disks.flatMap(({ chain, mirror }) => [...chain, ...mirror]).map((one) => one.path);
  return differ('leftover', 'open files', unique(images), unique(wanted));
}

/** Of the guest's QEMU, by its pid file. */
export async function pidOf({ lab, life }: Rig): Promise<number> {
  return Number(await readFile(join(lab.runDir, 'qemu', `${life.uuid}.pid`), 'utf8'));
}

const isImage = ({ lab }: Rig, path: string): boolean =>
  path.startsWith(`${lab.a}/`) || path.startsWith(`${lab.b}/`);
const unique = (list: readonly string[]): readonly string[] => [...new Set(list)].toSorted();

/** What would be started next is what runs now. */
const checkPersistent = (
  live: readonly NamedDisk[],
  inactive: readonly NamedDisk[],
): readonly Problem[] =>
  differ('wrong', 'persistent definition', topPaths(inactive), topPaths(live));

const topPaths = (disks: readonly NamedDisk[]): readonly (string | undefined)[] =>
  disks.map(({ chain }) => chain[0]?.path);

/** Files that neither the domain nor a role knows, and tools that run on. Those with a role are removed, as a user would. */
export async function checkStorage(rig: Rig, view: View): Promise<readonly Problem[]> {
  const found = (await Promise.all([rig.lab.a, rig.lab.b].map(filesIn))).flat();
  const live = namedDisks(view.liveXml).flatMap(({ chain, mirror }) => [...chain, ...mirror]);
  const images = new Set(live.map(({ path }) => path));
  let unknown = found.filter((path) => !images.has(path));
  if (unknown.length > 0 || images.size === 0) {
    const chains = await rig.client.chain(rig.life.name);
    const former = chains.flatMap((disk) => disk.former.map(({ path }) => path));
    for (const { path } of chains.flatMap((disk) => disk.chain)) images.add(path);
    unknown = unknown.filter((path) => !images.has(path) && !former.includes(path));
    // What is owed is wanted once more.
    if (view.summary.owed === null)
      for (const path of former) if (!images.has(path)) await rm(path, { force: true });
  }
  const tools = (await processesOf(rig.lab.directory))
    .map(({ command }) => command)
    .filter((command) => /^(\S*\/)?(cp|qemu-img) /.test(command));
  const missing = [...images].filter((path) => !found.includes(path));
  return [
    ...differ('leftover', 'files that nobody knows', unknown, []),
    ...differ('lost', 'images that are gone', missing, []),
    ...differ('leftover', 'tools that run on', tools, []),
  ];
}

async function filesIn(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.includes('/.kept/'));
}

export interface Over {
  readonly scenario: Scenario;
  readonly before: View;
  readonly after: View;
  /** All that began since, oldest first: the struck one is the first. */
  readonly operations: readonly OperationView[];
  readonly events: readonly StreamedEvent[];
}

export type Outcome = 'committed' | 'rolled-back' | 'nothing';

export function outcomeOf({ operations }: Pick<Over, 'operations'>): Outcome {
  const status = operations[0]?.status;
  if (status === undefined) return 'nothing';
  return status === 'committed' ? 'committed' : 'rolled-back';
}

/** Finished, or as it was: nothing in between. */
export function checkOutcome(rig: Rig, over: Over): readonly Problem[] {
  const { scenario, before, after, operations } = over;
  const committed = outcomeOf(over) === 'committed';
  const number = before.snapshots.length + (committed ? scenario.snapshots : 0);
  const open = operations.filter(({ status }) => status === 'running' || status === 'attention');
  return [
    ...open.map(({ kind, reason }) => problem('hang', `${kind} is open: ${reason ?? ''}`)),
    ...differ('wrong', 'number of operations', Math.max(1, operations.length), 1),
    ...differ('wrong', 'number of snapshot objects', after.snapshots.length, number),
    ...(committed ? checkCommitted(rig, over) : checkUndone(over)),
    ...checkEvents(rig, over, committed),
  ];
}

function checkCommitted(rig: Rig, { scenario, before, after }: Over): readonly Problem[] {
  const tops = topsOf(after);
  return rig.targets.flatMap((target) => {
    const top = tops.get(target) ?? '';
    const wanted = scenario.live?.(before, target, top) ?? topsOf(before).get(target);
    return differ('wrong', `live image of ${target}`, top, wanted);
  });
}

function checkUndone({ before, after }: Over): readonly Problem[] {
  const same = withoutReady(before.liveXml) === withoutReady(after.liveXml);
  return [
    ...(same ? [] : [problem('wrong', `undone, and live XML is another:\n${after.liveXml}`)]),
    ...differ('wrong', 'undone, persistent XML', after.inactiveXml, before.inactiveXml),
  ];
}

/** Each event that is owed comes once, and the guest has no other life than the operation gives it. */
function checkEvents(rig: Rig, { scenario, events }: Over, committed: boolean): readonly Problem[] {
  const told = events.map(textOf);
  const { disk = [], domain = [] } = committed ? scenario.owed : {};
  const owed = [
    ...domain,
    ...rig.targets.flatMap((target) => disk.map((text) => `${target} ${text}`)),
  ];
  const wrong = owed.filter((text) => told.filter((one) => one === text).length !== 1);
  const lifecycle = told.filter((text) => text.startsWith('lifecycle') && !owed.includes(text));
  return [
    ...differ('wrong', `events that were not told once (of ${told.join(', ')})`, wrong, []),
    ...differ('wrong', 'lifecycle events of an undisturbed guest', lifecycle, []),
  ];
}

/** `vda block-job ready`, `lifecycle started booted`, …. */
function textOf({ event: { type, ...others } }: StreamedEvent): string {
  const word = (name: string): string => (typeof others[name] === 'string' ? others[name] : '');
  return type === 'block-job'
    ? `${word('target')} ${type} ${word('status')}`
    : `${type} ${word('event')} ${word('detail')}`;
}
