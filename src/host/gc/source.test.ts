// Which images of a move's source are deleted when their time has come: law 14 on real files, and why the others stay.

import assert from 'node:assert/strict';
import { open, rm } from 'node:fs/promises';
import { basename } from 'node:path';
import type { TestContext } from 'node:test';
import { test } from 'node:test';

import type { VerifyMode } from '../../block/copy.js';
import type { MoveWay } from '../../domain/undo-window.js';
import { planDeleteSource } from '../../plan/source.js';
import type { Plan, Step } from '../../plan/step.js';
import { present } from '../../std/assert.js';
import { History, uuid } from './testing/history.js';
import { chooseSource } from './source.js';

const pivot: Step = { kind: 'pivot', disks: [] };

/** A move from `old` over `base` to `live.qcow2`, its overlays on top of `old` (the newest last). */
class Moved {
  readonly history: History;
  id = 0;

  private constructor(history: History) {
    this.history = history;
  }

  static async open(
    t: TestContext,
    {
      shared = true,
      verify = 'full' as VerifyMode,
      overlays = ['old.move'] as readonly string[],
      keepSeconds = 0 as number | null,
    } = {},
  ): Promise<Moved> {
    const history = await History.open(t);
    const moved = new Moved(history);
    await history.image('base');
    await history.image('old', 'base');
    let below = 'old';
    for (const name of overlays) {
      await history.image(name, below);
      below = name;
    }
    const steps = [
      history.copy('base', 'base.copy'),
      history.copy('old', 'live.qcow2', verify),
      pivot,
    ];
    const names = [...overlays.toReversed(), 'old', 'base'];
    const roles = names.map((name) => history.role(name, 'stale'));
    const layer = (name: string, index: number) =>
      ({ source: { type: 'file', path: history.at(name) }, format: 'qcow2', index }) as const;
    // Only what is looked at.
    const way = {
      target: 'vda',
      from: [layer('old', 2), layer('base', 1)],
      to: [layer('live.qcow2', 8), layer('base.copy', 9)],
      epochs: overlays.map((name, i) => ({
        source: layer(name, 3 + i),
        twin: layer(`twin-${i}`, 5 + i),
      })),
    } as unknown as MoveWay;
    const more: Partial<Plan> = {
      move: { ways: [way], rotateBytes: null },
      source: { keepSeconds, shared },
    };
    moved.id = await history.ended('move', steps, { 2: roles }, more);
    return moved;
  }

  async choice() {
    const { journal } = this.history;
    const move = present(await journal.operation(this.id), 'it is remembered');
    return chooseSource(await this.history.items(), move);
  }

  /** `old.move > old; base: why`: what goes, in its order, and what stays. */
  async text(): Promise<string> {
    const { paths, kept } = await this.choice();
    const stays = kept.map(({ path, why }) => `${basename(path)}: ${why}`);
    return [paths.map((path) => basename(path)).join(' > '), ...stays].join('; ');
  }
}

test('the former top layer goes with the layers of the move, those below only when it was said', async (t) => {
  assert.equal(await (await Moved.open(t, { shared: false })).text(), 'old.move > old');
  assert.equal(await (await Moved.open(t)).text(), 'old.move > old > base');
});

test('sealed layers of a rotated move go too: their twins were equal', async (t) => {
  const moved = await Moved.open(t, { overlays: ['old.move', 'old.move.1', 'old.move.2'] });
  assert.equal(await moved.text(), 'old.move.2 > old.move.1 > old.move > old > base');
});

test('a base on which an image of somebody stands stays, and only that', async (t) => {
  const moved = await Moved.open(t);
  await moved.history.image('theirs', 'base');
  assert.match(await moved.text(), /^old\.move > old; base: \S+theirs names it$/);
});

test('what is below an image that stays, stays with it', async (t) => {
  const moved = await Moved.open(t);
  await moved.history.image('theirs', 'old.move');
  assert.match(
    await moved.text(),
    /^; old\.move: \S+theirs names it; old: it goes only after \S+old\.move; base: it goes only after \S+old\.move$/,
  );
});

test('a copy that was not read back proves nothing', async (t) => {
  const moved = await Moved.open(t, { verify: 'none' });
  assert.match(
    await moved.text(),
    /^old\.move; old: operation 1 copied it whole to \S+live\.qcow2 \(step 2\) without reading it back \(--verify none\); base: it goes only after/,
  );
  const item = await moved.history.item('old');
  assert.equal(item?.fate, 'kept', 'nor for gc, named or not');
});

test('who has one open keeps it', async (t) => {
  const moved = await Moved.open(t, { shared: false });
  const file = await open(moved.history.at('old'));
  t.after(async () => await file.close());
  assert.match(await moved.text(), /^old\.move; old: it is open in node/);
});

test('a definition that names one keeps it, also another domain’s open operation', async (t) => {
  const moved = await Moved.open(t);
  await moved.history.define(['live.qcow2', 'base']);
  assert.match(await moved.text(), /^old\.move > old; base: domain 'vm1' or a snapshot of it/);
  await moved.history.begun('move', [moved.history.copy('old', 'x')]);
  assert.match(await moved.text(), /^old\.move; old: operation 2 \(move\), which has not ended/);
});

test('what is gone is neither deleted nor kept', async (t) => {
  const moved = await Moved.open(t, { shared: false });
  for (const name of ['old.move', 'old']) await rm(moved.history.at(name));
  assert.deepEqual(await moved.choice(), { paths: [], kept: [] });
});

test('gc says until when a source is kept, and that of another operation is not taken for it', async (t) => {
  const moved = await Moved.open(t, { keepSeconds: 86_400 });
  const { journal } = moved.history;
  const move = present(await journal.operation(moved.id), 'it is remembered');
  const switchedMs = present(move.entries.find(({ changes }) => changes.length > 0)?.atMs, 'it');
  const item = await moved.history.item('old');
  assert.equal(item?.keptUntilSeconds, Math.floor(switchedMs / 1000) + 86_400);
  assert.deepEqual(item?.older, { seconds: 1, writtenBytes: 5n, isAtLeast: false });
  assert.match(item?.against.join() ?? '', /its time is not over yet/);
  await journal.putSetting(
    'sources',
    JSON.stringify([[moved.id, { keepSeconds: null, fromMs: null }]]),
  );
  const forever = await moved.history.item('old');
  assert.equal(forever?.keptUntilSeconds, null);
  assert.match(forever?.against.join() ?? '', /kept until somebody names it/);
  const items = (await moved.history.items()).map((one) => ({ ...one, operation: 99 }));
  assert.deepEqual(chooseSource(items, move), { paths: [], kept: [] });
});

test('the plan removes in that order, forgets the roles, and tells what stays', async (t) => {
  const moved = await Moved.open(t);
  await moved.history.image('theirs', 'base');
  const { paths, kept } = await moved.choice();
  const plan = planDeleteSource({ move: 1, domain: uuid, domainName: 'vm1', paths, kept });
  assert.deepEqual(
    plan.steps.map((step) => (step.kind === 'remove-file' ? basename(step.path) : step.kind)),
    ['old.move', 'old', 'record'],
  );
  const changes = plan.steps.at(-1)?.changes ?? [];
  const events = changes.flatMap((change) =>
    change.change === 'event' && change.event.type === 'monitor' ? [change.event.event] : [],
  );
  assert.deepEqual(events, ['SOURCE_DELETED', 'SOURCE_KEPT']);
  assert.equal(changes.filter(({ change }) => change === 'forget-role').length, 2);
  assert.equal(plan.deletes?.kept[0]?.path, moved.history.at('base'));
});
