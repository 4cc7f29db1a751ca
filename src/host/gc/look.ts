// Looks at the files that may have been left: are they there, did they change, who names them, who has them open.

import { constants } from 'node:fs';
import { access, lstat, readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { localPath } from '../../block/layer.js';
import type { DomainRecord, ImageRole } from '../../domain/record.js';
import type { Older } from '../../domain/source-fate.js';
import { namedInFolder } from '../../image/headers.js';
import type { Journal, OperationRecord } from '../../journal/journal.js';
import { messageOf } from '../../std/errors.js';
import { disksOf, recordedImages } from '../doctor/live.js';
import { qemusIn } from '../doctor/qemu.js';
import { keptUntilMs, readFates } from '../fates.js';
import { holdersOf } from '../open-files.js';
import type { Candidate } from './candidates.js';
import { candidatesOf } from './candidates.js';
import type { FileSeen, GcFacts } from './facts.js';
import { hostCandidates } from './host-files.js';
import { Users } from './users.js';

export interface GcAround {
  readonly journal: Journal;
  readonly runDir: string;
  readonly stateDir: string;
  readonly nowSeconds: number;
  readonly olderOf: (role: ImageRole) => Older;
}

/** More than the journal keeps. */
const ALL = 1_000_000;

export async function lookForGarbage(around: GcAround): Promise<GcFacts> {
  const { journal, runDir, stateDir, nowSeconds } = around;
  const records = await journal.domains();
  const operations = await allOperations(journal);
  const open = operations.filter(({ endedAtMs }) => endedAtMs === null);
  const ended = operations.filter(({ endedAtMs }) => endedAtMs !== null);
  const roles = await journal.roles();
  const said = await readFates(journal);
  const candidates = [
    ...candidatesOf(roles, ended, (move) => keptUntilMs(move, said.get(move.id) ?? null)),
    ...hostCandidates({
      runFiles: await namesIn(join(runDir, 'qemu')),
      logs: await namesIn(join(stateDir, 'log')),
      nvrams: await namesIn(join(stateDir, 'nvram')),
      runDir,
      stateDir,
      alive: new Set(qemusIn(runDir).map(({ uuid }) => uuid)),
      records,
      open,
    }),
  ];
  const users = await Users.of(records, open);
  const files = new Map<string, FileSeen>();
  const holders = await holdersOf(candidates.map(({ path }) => path));
  for (const candidate of candidates) {
    const seen = await lookAtFile(candidate, records, users);
    if (seen !== null)
      files.set(candidate.path, { ...seen, holders: holders.get(candidate.path) ?? [] });
  }
  const stale = roles.filter(({ role }) => role === 'stale');
  const older = new Map(stale.map((role) => [role.path, around.olderOf(role)]));
  return { nowSeconds, candidates, files, older };
}

/** Newest first, whole: the plans tell what each one made. */
async function allOperations(journal: Journal): Promise<readonly OperationRecord[]> {
  const found: OperationRecord[] = [];
  for (const { id } of await journal.operations({ limit: ALL })) {
    const operation = await journal.operation(id);
    if (operation !== null) found.push(operation);
    // The daemon has guests to see to meanwhile.
    await new Promise((resolve) => setImmediate(resolve));
  }
  return found;
}

const namesIn = async (folder: string): Promise<readonly string[]> =>
  await readdir(folder).catch(() => []);

/** Null: nothing is there. */
async function lookAtFile(
  candidate: Candidate,
  records: readonly DomainRecord[],
  users: Users,
): Promise<FileSeen | null> {
  const { path } = candidate;
  let found;
  try {
    found = await lstat(path, { bigint: true });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    return { ...nothingKnown, problem: `it cannot be looked at: ${messageOf(error)}` };
  }
  const isImage = candidate.role !== null || candidate.kind === 'leftover';
  const named = isImage ? await namedIn(path) : { namedBy: [], problem: null };
  return {
    kind: found.isFile() ? 'file' : found.isSocket() ? 'socket' : 'other',
    allocatedBytes: found.blocks * 512n,
    changedMs: Number(found.ctimeNs / 1_000_000n),
    usedBy: users.of(path, `${found.dev}:${found.ino}`),
    holders: [],
    namedBy: named.namedBy,
    liveMissing: await liveMissing(candidate, records),
    problem: named.problem ?? (await unwritable(path)),
  };
}

const nothingKnown: FileSeen = {
  kind: 'file',
  allocatedBytes: 0n,
  changedMs: 0,
  usedBy: [],
  holders: [],
  namedBy: [],
  liveMissing: null,
  problem: null,
};

async function namedIn(path: string): Promise<Pick<FileSeen, 'namedBy' | 'problem'>> {
  try {
    return { namedBy: await namedInFolder(path), problem: null };
  } catch (error) {
    return { namedBy: [], problem: `who names it cannot be looked at: ${messageOf(error)}` };
  }
}

/** A step that cannot be done would leave its operation waiting for a person. */
async function unwritable(path: string): Promise<string | null> {
  return await access(dirname(path), constants.W_OK).then(
    () => null,
    () => `its folder cannot be written to by this user`,
  );
}

/** Of the disk that it belonged to, as it is now, or as the role had it. */
async function liveMissing(
  { role, domain, target }: Candidate,
  records: readonly DomainRecord[],
): Promise<readonly string[] | null> {
  if (role === null) return [];
  const record = records.find(({ uuid }) => uuid === domain);
  const disk =
    record === undefined ? undefined : disksOf(record).find((one) => one.target === target);
  const images =
    record === undefined || disk === undefined
      ? [role.live]
      : recordedImages(record, disk).flatMap(({ source }) => localPath(source) ?? []);
  if (images.length === 0) return null;
  const there = await Promise.all(
    images.map(
      async (path) =>
        await stat(path).then(
          () => true,
          () => false,
        ),
    ),
  );
  return images.filter((_, i) => there[i] === false);
}
