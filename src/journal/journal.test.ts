// One suite over both journals: what holds for one holds for the other, also after the process died.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Definition } from '../domain/definition.js';
import type { Change } from '../domain/record.js';
import type { Plan } from '../plan/step.js';
import { AssertionError } from '../std/assert.js';
import type { Applied } from './journal.js';
import { MemoryJournal } from './memory.js';
import { fact, plan, uuid } from './testing/both.js';

const other = 'c0ffee00-0000-4000-8000-000000000002';

/** Only what `applyChange` looks at, and one member that no JSON number holds. */
const definitionOf = (id: string): Definition =>
  ({ uuid: id, name: `vm-${id.at(-1)}`, disks: [], size: 2n ** 60n + 1n }) as unknown as Definition;

const defined = (id = uuid): Change => ({
  change: 'define',
  definition: definitionOf(id),
  chains: [],
});
const autostart = (on: boolean): Change => ({ change: 'autostart', on });

function told(message: string): Change {
  const event = { type: 'monitor', event: message, details: null } as const;
  return { change: 'event', event };
}

function role(path: string): Change {
  const one = {
    path,
    role: 'stale',
    domain: uuid,
    domainName: 'vm1',
    target: 'vda',
    live: '/b',
    sinceSeconds: 1,
  } as const;
  return { change: 'role', role: one };
}

const records: Plan = {
  ...plan,
  operation: 'autostart',
  steps: [
    { kind: 'record', changes: [defined(), told('one')] },
    { kind: 'record', changes: [autostart(true), told('two')] },
  ],
  commitAt: 1,
};

fact('a plan is there again after the process died, its int64 to the last digit', async (bench) => {
  const id = await bench.journal.begin(plan);
  const journal = await bench.reopen();
  const [open] = await journal.openOperations();
  assert.equal(open?.id, id);
  assert.deepEqual(open?.plan, plan);
  assert.deepEqual(open?.entries, []);
});

fact(
  'entries come back in order, with their time and their changes',
  async (bench) => {
    const id = await bench.journal.begin(plan);
    await bench.journal.append(id, { type: 'doing', step: 0 });
    await bench.journal.append(id, { type: 'done', step: 0 }, [defined()]);
    const journal = await bench.reopen();
    assert.deepEqual(await journal.entries(id), [
      { atMs: 7, entry: { type: 'doing', step: 0 }, changes: [] },
      { atMs: 7, entry: { type: 'done', step: 0 }, changes: [defined()] },
    ]);
  },
  { nowMs: () => 7 },
);

fact('an entry and its changes are one: a change that fails leaves neither', async (bench) => {
  const id = await bench.journal.begin(plan);
  const changes = [role('/x'), told('no'), defined(other)];
  // The last of them makes another domain than the operation's.
  await assert.rejects(
    bench.journal.append(id, { type: 'done', step: 0 }, changes),
    AssertionError,
  );
  for (const next of [async () => bench.journal, async () => await bench.reopen()]) {
    const journal = await next();
    assert.deepEqual(await journal.entries(id), []);
    assert.deepEqual(await journal.roles(), []);
    assert.deepEqual(await journal.events(), []);
    assert.equal(await journal.domain(uuid), null);
  }
});

fact('a record is changed, kept and removed', async (bench) => {
  await bench.journal.record(uuid, [defined()]);
  await bench.journal.record(other, [defined(other)]);
  await bench.journal.record(uuid, [autostart(true)]);
  let journal = await bench.reopen();
  assert.deepEqual(
    (await journal.domains()).map(({ name }) => name),
    ['vm-1', 'vm-2'],
  );
  const record = await journal.domain(uuid);
  assert.equal(record?.autostart, true);
  assert.deepEqual(record?.persistent, definitionOf(uuid));
  await journal.record(uuid, [{ change: 'undefine' }]);
  assert.equal(await journal.domain(uuid), null);
  journal = await bench.reopen();
  assert.deepEqual(
    (await journal.domains()).map(({ name }) => name),
    ['vm-2'],
  );
});

fact('changes of one domain do not make another', async ({ journal }) => {
  await assert.rejects(journal.record(other, [defined(uuid)]), AssertionError);
  assert.deepEqual(await journal.domains(), []);
});

fact('roles are put by path and forgotten', async (bench) => {
  await bench.journal.record(uuid, [role('/b'), role('/a'), role('/b')]);
  let journal = await bench.reopen();
  assert.deepEqual(
    (await journal.roles()).map(({ path }) => path),
    ['/a', '/b'],
  );
  await journal.record(uuid, [{ change: 'forget-role', path: '/a' }]);
  journal = await bench.reopen();
  assert.deepEqual(
    (await journal.roles()).map(({ path }) => path),
    ['/b'],
  );
});

fact(
  'events are numbered for good, and only the newest are kept',
  async (bench) => {
    const { changes } = await bench.journal.record(uuid, [told('a'), role('/r'), told('b')]);
    assert.deepEqual(
      changes.map(({ seq }) => seq),
      [1, null, 2],
    );
    await bench.journal.record(uuid, [told('c'), told('d')]);
    const journal = await bench.reopen();
    const kept = await journal.events();
    assert.deepEqual(
      kept.map(({ seq, atMs, domain }) => [seq, atMs, domain]),
      [
        [2, 5, uuid],
        [3, 5, uuid],
        [4, 5, uuid],
      ],
    );
    assert.deepEqual(
      (await journal.events({ afterSeq: 2, limit: 1 })).map(({ seq }) => seq),
      [3],
    );
    const more = await journal.record(uuid, [told('e')]);
    assert.equal(more.changes[0]?.seq, 5);
  },
  { nowMs: () => 5, keep: { events: 3 } },
);

fact(
  'an operation ends once, and takes nothing afterwards',
  async (bench) => {
    const id = await bench.journal.begin(plan);
    await bench.journal.append(id, { type: 'end', outcome: 'rolled-back', reason: 'boom' });
    await assert.rejects(bench.journal.append(id, { type: 'doing', step: 0 }), AssertionError);
    await assert.rejects(bench.journal.append(id + 1, { type: 'doing', step: 0 }), AssertionError);
    const journal = await bench.reopen();
    assert.deepEqual(await journal.openOperations(), []);
    const operation = await journal.operation(id);
    assert.equal(operation?.outcome, 'rolled-back');
    assert.equal(operation?.reason, 'boom');
    assert.equal(operation?.endedAtMs, 9);
    assert.equal(await journal.operation(id + 1), null);
    assert.deepEqual(await journal.entries(id + 1), []);
  },
  { nowMs: () => 9 },
);

fact(
  'a summary tells how far each step is',
  async ({ journal }) => {
    const id = await journal.begin(plan);
    await journal.append(id, { type: 'doing', step: 0 });
    await journal.append(id, { type: 'attention', reason: 'look' });
    assert.deepEqual(await journal.operations(), [
      {
        id,
        kind: 'toy',
        domain: uuid,
        domainName: 'vm-1',
        startedAtMs: 3,
        endedAtMs: null,
        outcome: null,
        direction: 'forward',
        reason: null,
        attention: 'look',
        waiting: null,
        commitAt: 2,
        steps: [
          { kind: 'create-image', mark: 'doing' },
          { kind: 'record', mark: 'none' },
        ],
        pauses: [],
      },
    ]);
  },
  { nowMs: () => 3 },
);

fact('pauses of the guest are there again after the process died', async (bench) => {
  const id = await bench.journal.begin(plan);
  const [first, second, third] = [1, 2, 3].map((ms) => ({ what: 'snapshot', ms: ms + 0.5 }));
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  await bench.journal.append(id, { type: 'done', step: 0, pauses: [first, second] });
  await bench.journal.append(id, { type: 'attention', reason: 'look', pauses: [third] });
  const journal = await bench.reopen();
  assert.deepEqual((await journal.operation(id))?.pauses, [first, second, third]);
});

fact('operations come newest first, of one domain if asked', async ({ journal }) => {
  for (const domain of [uuid, other, uuid]) await journal.begin({ ...plan, domain });
  assert.deepEqual(
    (await journal.operations()).map(({ id }) => id),
    [3, 2, 1],
  );
  assert.deepEqual(
    (await journal.operations({ domain: uuid })).map(({ id }) => id),
    [3, 1],
  );
  assert.deepEqual(
    (await journal.operations({ limit: 1 })).map(({ id }) => id),
    [3],
  );
  assert.deepEqual(
    (await journal.openOperations()).map(({ id }) => id),
    [1, 2, 3],
  );
});

fact(
  'ended operations are dropped when they are many, open ones never, and no number is given twice',
  async (bench) => {
    await bench.journal.begin(plan);
    for (const id of [2, 3, 4, 5]) {
      assert.equal(await bench.journal.begin(plan), id);
      await bench.journal.append(id, { type: 'end', outcome: 'committed' });
    }
    const journal = await bench.reopen();
    assert.deepEqual(
      (await journal.operations()).map(({ id }) => id),
      [5, 4, 1],
    );
    assert.deepEqual(await journal.entries(2), []);
    assert.equal(await journal.begin(plan), 6);
  },
  { keep: { operations: 2 } },
);

fact('a plan of records is committed at once', async (bench) => {
  const heard: Applied[] = [];
  bench.journal.onApplied((applied) => void heard.push(applied));
  const { operation, applied } = await bench.journal.commitAtOnce(records);
  assert.deepEqual(heard, [applied]);
  assert.deepEqual(
    applied.changes.map(({ seq }) => seq),
    [null, 1, null, 2],
  );
  assert.equal(applied.before, null);
  assert.equal(applied.after?.autostart, true);
  const journal = await bench.reopen();
  assert.equal((await journal.operation(operation))?.outcome, 'committed');
  assert.deepEqual(
    (await journal.entries(operation)).map(({ entry }) => entry.type),
    ['done', 'done', 'end'],
  );
  assert.deepEqual(await journal.openOperations(), []);
});

fact('a plan that touches the world is not committed at once', async ({ journal }) => {
  await assert.rejects(journal.commitAtOnce(plan), AssertionError);
  assert.deepEqual(await journal.operations(), []);
});

fact(
  'a listener hears of each commit that changed something, in order, with before and after',
  async ({ journal }) => {
    const heard: string[] = [];
    const end = journal.onApplied(({ domain, before, after, changes }) => {
      const names = changes.map(({ change }) => change.change).join('+');
      heard.push(
        `${domain === uuid} ${before?.autostart ?? '-'} ${after?.autostart ?? '-'} ${names}`,
      );
    });
    const id = await journal.begin(plan);
    await journal.append(id, { type: 'doing', step: 0 });
    await journal.append(id, { type: 'done', step: 0 }, [defined()]);
    await journal.record(uuid, [autostart(true), told('on')]);
    await journal
      .record(uuid, [autostart(true), autostart(false), { change: 'undefine' }])
      .catch(() => undefined);
    end();
    await journal.record(uuid, [told('unheard')]);
    assert.deepEqual(heard, [
      'true - false define',
      'true false true autostart+event',
      'true true - autostart+autostart+undefine',
    ]);
  },
);

fact('a listener hears nothing of what did not commit', async ({ journal }) => {
  let heard = 0;
  journal.onApplied(() => heard++);
  await assert.rejects(journal.record(uuid, [defined(other)]));
  assert.equal(heard, 0);
});

fact('a domain id is never given twice', async (bench) => {
  assert.equal(await bench.journal.nextDomainId(), 1);
  assert.equal(await bench.journal.nextDomainId(), 2);
  const journal = await bench.reopen();
  assert.equal(await journal.nextDomainId(), 3);
});

fact('a setting is kept, replaced and removed', async (bench) => {
  assert.equal(await bench.journal.setting('k'), null);
  await bench.journal.putSetting('k', 'a');
  await bench.journal.putSetting('k', 'b');
  let journal = await bench.reopen();
  assert.equal(await journal.setting('k'), 'b');
  await journal.putSetting('k', null);
  journal = await bench.reopen();
  assert.equal(await journal.setting('k'), null);
});

test('journal in memory: a torn last write is gone, all before it is there', async () => {
  const journal = new MemoryJournal();
  const id = await journal.begin(plan);
  await journal.append(id, { type: 'doing', step: 0 });
  await journal.append(id, { type: 'done', step: 0 }, [defined()]);
  const torn = journal.crash('torn');
  assert.deepEqual(
    (await torn.entries(id)).map(({ entry }) => entry.type),
    ['doing'],
  );
  assert.equal(await torn.domain(uuid), null);
  await assert.rejects(journal.domains(), AssertionError);
});
