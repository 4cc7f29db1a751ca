// `ferry gc`: what we left anywhere, with the proof that it can go; and its removal, proven once more at that moment.

import { hostname } from 'node:os';
import { planGc } from '../../plan/gc.js';
import { refuse } from '../../plan/refuse.js';
import { RequestError, StateError } from '../../std/errors.js';
import { atLeastOlderOf, readCounts } from '../ages.js';
import { readJournalCopy } from '../doctor/journal-copy.js';
import type { Host } from '../host.js';
import { judgeAll } from './judge.js';
import type { GcAround } from './look.js';
import { lookForGarbage } from './look.js';
import type { GcItem, GcRemoved, GcReport } from './types.js';

async function listed(where: GcAround, lookedBy: GcReport['lookedBy']): Promise<GcReport> {
  const items = judgeAll(await lookForGarbage(where));
  return { time: new Date(where.nowSeconds * 1000).toISOString(), lookedBy, items };
}

export async function gcList(host: Host): Promise<GcReport> {
  await host.ages.lookAtAll();
  return await listed(
    {
      journal: host.known.journal,
      runDir: host.context.config.runDir,
      stateDir: host.context.config.stateDir,
      nowSeconds: host.nowSeconds,
      olderOf: (role) => host.ages.of(role),
    },
    'ferryd',
  );
}

/** Lists without a daemon; to remove anything takes one. */
export async function gcWithoutDaemon(
  where: Omit<GcAround, 'journal' | 'olderOf'>,
): Promise<GcReport> {
  await using copy = await readJournalCopy(where.stateDir);
  const { journal, facts } = copy;
  if (journal === null) {
    const problem = facts.state === 'read' ? '' : facts.problem;
    throw new StateError(
      'OPERATION_INVALID',
      `the journal cannot be read (${facts.path}: ${problem}), and without it nothing can be proven to be ours`,
      { next: ['ferry doctor'] },
    );
  }
  const counts = await readCounts(journal);
  const olderOf: GcAround['olderOf'] = (role) => atLeastOlderOf(counts, role, where.nowSeconds);
  return await listed({ ...where, journal, olderOf }, 'ferry');
}

/** Null: all that needs no naming. Otherwise exactly these, or nothing. */
export async function gcRemove(host: Host, paths: readonly string[] | null): Promise<GcRemoved> {
  const { items } = await gcList(host);
  const chosen = choose(items, paths);
  const operations: number[] = [];
  for (const [domain, group] of byDomain(chosen, host.uuid))
    operations.push(await removeGroup(host, domain, group, paths !== null));
  return { removed: chosen, operations };
}

/** What names another comes before it. */
export function choose(
  items: readonly GcItem[],
  paths: readonly string[] | null,
): readonly GcItem[] {
  if (paths === null) {
    const all = items.filter(({ fate }) => fate === 'removable');
    const goes = new Set(all.map(({ path }) => path));
    // One that only goes together with what has to be named stays for now.
    return inOrder(all.filter(({ namedBy }) => namedBy.every((path) => goes.has(path))));
  }
  const wanted = paths.map((path) => present(items, path));
  const names = new Set(paths);
  for (const { path, fate, against, namedBy } of wanted) {
    if (fate === 'kept') throw refused(path, against.join('; '));
    const others = namedBy.filter((other) => !names.has(other));
    if (others.length > 0)
      throw refused(path, `${others.join(', ')} names it as the image below; name that one too`);
  }
  return inOrder(wanted);
}

function present(items: readonly GcItem[], path: string): GcItem {
  const item = items.find((one) => one.path === path);
  if (item === undefined)
    throw new RequestError(
      'INVALID_ARG',
      `gc: ${path} is nothing that we left; nothing was removed`,
      {
        next: ['ferry gc'],
      },
    );
  return item;
}

const refused = (path: string, why: string): StateError =>
  new StateError('OPERATION_INVALID', `gc: ${path} is kept: ${why}; nothing was removed`, {
    next: ['ferry gc'],
  });

/** Top down: an image before the one that its header names. */
function inOrder(items: readonly GcItem[]): readonly GcItem[] {
  const ordered: GcItem[] = [];
  const visit = (item: GcItem): void => {
    if (ordered.includes(item)) return;
    for (const above of items.filter(({ path }) => item.namedBy.includes(path))) visit(above);
    ordered.push(item);
  };
  items.forEach(visit);
  return ordered;
}

function byDomain(
  items: readonly GcItem[],
  hostUuid: string,
): ReadonlyMap<string, readonly GcItem[]> {
  const groups = new Map<string, GcItem[]>();
  for (const item of items) {
    const domain = item.domain ?? hostUuid;
    groups.set(domain, [...(groups.get(domain) ?? []), item]);
  }
  return groups;
}

/** Under the domain's lock everything is looked at once more: what was true when it was listed may not be now. */
async function removeGroup(
  host: Host,
  domain: string,
  group: readonly GcItem[],
  isNamed: boolean,
): Promise<number> {
  const paths = group.map(({ path }) => path);
  const domainName = group.find((item) => item.domainName !== null)?.domainName ?? hostname();
  const started = await host.begin(domain, async () => {
    const { items } = await gcList(host);
    const still = items.filter(({ path }) => paths.includes(path));
    try {
      choose(isNamed ? still : still.filter(({ fate }) => fate === 'removable'), paths);
    } catch (error) {
      return refuse(error instanceof Error ? error : new Error(String(error)));
    }
    return planGc({ domain, domainName, paths });
  });
  await started.ended;
  return started.operation;
}
