// The source of a move that has ended, deleted: the product's judge and planner over the fake storage.

import assert from 'node:assert/strict';
import { dirname } from 'node:path';

import { imagesOf } from '../../src/domain/disk.js';
import { showSource } from '../../src/block/layer.js';
import type { Candidate } from '../../src/host/gc/candidates.js';
import { candidatesOf } from '../../src/host/gc/candidates.js';
import type { FileSeen } from '../../src/host/gc/facts.js';
import { judgeAll } from '../../src/host/gc/judge.js';
import { chooseSource } from '../../src/host/gc/source.js';
import { Users } from '../../src/host/gc/users.js';
import type { OperationRecord } from '../../src/journal/journal.js';
import { planDeleteSource } from '../../src/plan/source.js';
import type { Plan } from '../../src/plan/step.js';
import { present } from '../../src/std/assert.js';
import type { FerryBench } from './ferry-bench.js';

/** Of the last move. */
export async function planDelete(bench: FerryBench): Promise<Plan> {
  const ended = await endedOf(bench);
  const move = present(
    ended.find(({ kind }) => kind === 'move'),
    'a move was made before',
  );
  const candidates = candidatesOf(await bench.journal.roles(), ended, () => 0);
  const items = judgeAll({
    nowSeconds: 8,
    candidates,
    files: await filesOf(bench, candidates),
    older: new Map(),
  });
  const { id, domain, domainName } = move;
  return planDeleteSource({ move: id, domain, domainName, ...chooseSource(items, move) });
}

/** Nothing is left where the disks were, and nothing calls stale what is not there. */
export async function checkDeleted({ storage, journal }: FerryBench): Promise<void> {
  const left = [...storage.files.keys()].filter((path) => dirname(path) === '/src');
  assert.deepEqual(left, [], 'what was to be deleted');
  assert.deepEqual(await journal.roles(), [], 'roles of what was deleted');
}

/** Newest first. */
async function endedOf({ journal }: FerryBench): Promise<readonly OperationRecord[]> {
  const found: OperationRecord[] = [];
  for (const { id, endedAtMs } of await journal.operations()) {
    const operation = await journal.operation(id);
    if (operation !== null && endedAtMs !== null) found.push(operation);
  }
  return found;
}

async function filesOf(
  bench: FerryBench,
  candidates: readonly Candidate[],
): Promise<ReadonlyMap<string, FileSeen>> {
  const { storage, journal } = bench;
  const record = await bench.record();
  const users = await Users.of([record], await journal.openOperations());
  const disks = (record.live?.definition ?? record.persistent)?.disks ?? [];
  const needed = disks.flatMap(imagesOf).map(({ source }) => showSource(source));
  const seen = candidates.flatMap(({ path }): readonly (readonly [string, FileSeen])[] => {
    const image = storage.files.get(path);
    if (image === undefined) return [];
    const others = [...storage.files].filter(([other]) => dirname(other) === dirname(path));
    const facts: FileSeen = {
      kind: 'file',
      allocatedBytes: 0n,
      changedMs: 0,
      usedBy: users.of(path, path),
      holders: [...image.opens.values()].map((mode) => ({
        pid: 1,
        command: 'qemu',
        writes: mode === 'write',
      })),
      namedBy: others.flatMap(([other, { backing }]) => (backing?.path === path ? [other] : [])),
      liveMissing: needed.filter((one) => !storage.files.has(one)),
      problem: null,
    };
    return [[path, facts]];
  });
  return new Map(seen);
}
