// `ferry keep-source`, why `ferry undo` cannot, and what is shown of the source of a move: until when it is kept, how much older than
// the live image it is, why it was not deleted.

import { posix } from 'node:path';
import type { ImageRole } from '../domain/record.js';
import { olderText } from '../domain/source-fate.js';
import type { OperationRecord } from '../journal/journal.js';
import { isUnverified, leftBy } from '../plan/source.js';
import { RequestError, StateError } from '../std/errors.js';
import { keptUntilMs, switchedAtMs } from './fates.js';
import type { SourceView } from './ferry-host.js';
import type { Host } from './host.js';

/** @throws StateError where nothing is left to keep. @throws RequestError where it could not be deleted. */
export async function keepSource(
  host: Host,
  id: number,
  keepSeconds: number | null,
): Promise<void> {
  await host.operations.refresh(id);
  // Not while it is being deleted.
  await host.alone(host.operations.get(id).domain, async () => {
    const move = (await host.known.journal.operation(id)) ?? host.operations.get(id);
    checkKeep(host, move, keepSeconds);
    const fromMs = switchedAtMs(move) === null ? null : host.context.config.nowMs();
    await host.sources.say(move, { keepSeconds, fromMs });
  });
}

function checkKeep(host: Host, move: OperationRecord, keepSeconds: number | null): void {
  const what = `keep-source ${move.id}`;
  const hint = { operation: move.id, next: [`ferry ops show ${move.id}`] };
  if (move.kind !== 'move')
    throw new StateError(
      'OPERATION_INVALID',
      `${what}: it is no move (${move.kind}), so it has no source`,
      hint,
    );
  if (move.direction === 'back')
    throw new StateError(
      'OPERATION_INVALID',
      `${what}: the move was taken back, so its source is what is live`,
      hint,
    );
  if (move.endedAtMs !== null && rolesLeft(host, move).length === 0)
    throw new StateError('OPERATION_INVALID', `${what}: nothing of its source is left`, hint);
  if (keepSeconds !== null && isUnverified(move.plan))
    throw new RequestError(
      'INVALID_ARG',
      `${what}: its copies were not read back (--verify none), so nothing proves that they are whole, and the source is not deleted; say forever`,
      hint,
    );
}

/** What is stale by this move, and still has that role. */
function rolesLeft(host: Host, move: OperationRecord): readonly ImageRole[] {
  const switched = switchedAtMs(move);
  if (switched === null) return [];
  const paths = new Set(leftBy(move.plan).flatMap(({ own, below }) => [...own, ...below]));
  // A later move may have left an image of that name too. A role is stamped in the same commit, so within a second.
  const isIts = ({ path, domain, role, sinceSeconds }: ImageRole): boolean =>
    role === 'stale' &&
    domain === move.domain &&
    paths.has(path) &&
    Math.abs(sinceSeconds - switched / 1000) < 2;
  return host.known.roles().filter(isIts);
}

/** Null: it is neither a move nor the deletion of one's source. */
export function sourceView(host: Host, record: OperationRecord): SourceView | null {
  const { kind, id, plan } = record;
  if (plan.deletes !== undefined)
    return {
      keepSeconds: null,
      keptUntil: null,
      undoUntil: null,
      images: imagesOf(host, [], record),
    };
  if (kind !== 'move' || record.direction === 'back' || backOf(host, id)?.outcome === 'committed')
    return null;
  const said = host.sources.said.get(id) ?? null;
  const until = keptUntilMs(record, said);
  const planned = plan.source?.keepSeconds ?? null;
  const deletion = host.operations.all().find((one) => one.plan.deletes?.move === id) ?? null;
  return {
    keepSeconds: said === 'over' ? null : said === null ? planned : said.keepSeconds,
    keptUntil: until === null ? null : new Date(until).toISOString(),
    undoUntil: undoUntil(host, record),
    images: imagesOf(host, rolesLeft(host, record), deletion),
  };
}

/** Until when its way back is open; null: it is not. */
function undoUntil(host: Host, { id, domain }: OperationRecord): string | null {
  const windows = host.known.find(domain)?.windows ?? [];
  const window = windows.find(({ operation }) => operation === id);
  if (window === undefined || window.closing !== null) return null;
  return new Date(window.untilMs).toISOString();
}

function imagesOf(
  host: Host,
  roles: readonly ImageRole[],
  deletion: OperationRecord | null,
): SourceView['images'] {
  const kept = deletion?.plan.deletes?.kept ?? [];
  const deleted = (deletion?.plan.steps ?? []).flatMap((step, i) =>
    step.kind === 'remove-file' && deletion?.steps[i]?.mark === 'done' ? [step.path] : [],
  );
  const left = roles.filter(({ path }) => !deleted.includes(path));
  const others = kept.filter(({ path }) => left.every((role) => role.path !== path));
  return [
    ...deleted.map((path) => ({ path, state: 'deleted', why: null, older: null }) as const),
    ...left.map((role) => ({
      path: role.path,
      state: 'kept' as const,
      why: kept.find(({ path }) => path === role.path)?.why ?? null,
      older: host.ages.of(role),
    })),
    ...(roles.length > 0
      ? []
      : others.map(({ path, why }) => ({ path, state: 'kept', why, older: null }) as const)),
  ];
}

/** Why a move cannot be taken back, and what is typed instead. */
export interface NoUndo {
  readonly text: string;
  readonly next: readonly string[];
}

/** Without an undo window nothing keeps the old side exact, so there is no way back but a move. */
export function whyNoUndo(host: Host, move: OperationRecord): NoUndo {
  const { id, kind, direction } = move;
  const show = [`ferry ops show ${id}`];
  if (kind !== 'move') return { text: `it is no move (${kind})`, next: show };
  if (direction === 'back')
    return { text: 'it was taken back already; its disks are where they were', next: show };
  if (switchedAtMs(move) === null)
    return {
      text: 'it has not switched yet, so there is nothing to undo: cancel it',
      next: [`ferry cancel ${id}`],
    };
  const { text: none, isUndone } = windowText(host, move);
  if (isUndone) return { text: none, next: show };
  return { text: `${none}: ${ageText(host, move)}`, next: wayBack(host, move) };
}

/** What took a move back, or does; null: nothing. */
const backOf = (host: Host, move: number): OperationRecord | null =>
  host.operations
    .all()
    .find(({ plan }) => plan.undo?.move === move && plan.undo.going === 'back') ?? null;

function windowText(
  host: Host,
  { id, plan }: OperationRecord,
): {
  readonly text: string;
  readonly isUndone: boolean;
} {
  if (plan.move?.undoSeconds === undefined)
    return { text: 'it has no undo window', isUndone: false };
  const back = backOf(host, id);
  if (back?.outcome === 'committed')
    return { text: `operation ${back.id} has taken it back already`, isUndone: true };
  return { text: 'its undo window is closed', isUndone: false };
}

function ageText(host: Host, move: OperationRecord): string {
  const roles = rolesLeft(host, move);
  if (roles.length === 0)
    return 'nothing of its source is left. Move the disks back instead; what is live now is copied';
  const ages = new Map(roles.map((role) => [role.target, olderText(host.ages.of(role))]));
  const texts = [...ages].map(([target, text]) => `that of ${target} is ${text}`);
  return `its source is a copy of the moment of the switch (${texts.join(', ')}), and what was written since is not in it. Move the disks back instead; what is live now is copied`;
}

/** A move overwrites nothing, so the old images make room for it first. */
function wayBack(host: Host, move: OperationRecord): readonly string[] {
  const paths = rolesLeft(host, move).map(({ path }) => path);
  const moves = new Map<string, string[]>();
  for (const { target, own } of leftBy(move.plan)) {
    const folder = posix.dirname(own.at(-1) ?? '/');
    moves.set(folder, [...(moves.get(folder) ?? []), target]);
  }
  return [
    ...(paths.length === 0 ? [] : [`ferry gc --yes ${paths.join(' ')}`]),
    ...[...moves].map(
      ([folder, targets]) => `ferry move ${move.domainName} ${targets.join(' ')} --to ${folder}`,
    ),
  ];
}
