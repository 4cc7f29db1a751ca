// What `ferry move` and `ferry keep-source` ask for the source of a move, and how `ferry undo` says no.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { StateError } from '../std/errors.js';
import { move } from '../http/testing/samples.js';
import { keepTime } from './source-commands.js';
import { operationText } from './operation-text.js';
import { bench } from './testing/ferry.js';

for (const [text, want] of [
  ['30m', 1800],
  ['24h', 86_400],
  ['7d', 604_800],
  ['90s', 90],
  ['forever', 'forever'],
] as const) {
  test(`a source is kept ${text}`, () => assert.equal(keepTime(text), want));
}

for (const text of ['', '0h', '24', '1.5h', '-1h', '2 h', '1w', 'ever', '99999d']) {
  test(`'${text}' is no time to keep a source`, () =>
    assert.throws(() => keepTime(text), /a time such as 30m/));
}

test('a move says what becomes of its source', async (t) => {
  const on = await bench(t);
  const line = ['move', 'vm1', 'vda', '--to', '/dst', '--detach'];
  for (const [options, keepSourceSeconds, deleteShared] of [
    [[], null, false],
    [['--delete-source'], 0, false],
    [['--keep-source', '24h', '--delete-shared'], 86_400, true],
    [['--keep-source', 'forever'], null, false],
  ] as const) {
    on.host.calls.length = 0;
    const { code, stderr } = await on.ferry([...line, ...options]);
    assert.equal(code, 0, stderr);
    const request = on.host.calls.find(([verb]) => verb === 'startMove')?.[2];
    const wanted = { keepSourceSeconds, deleteShared };
    assert.deepEqual({ ...(request as object), ...wanted }, request, options.join(' '));
  }
  on.host.calls.length = 0;
  const both = await on.ferry([...line, '--delete-source', '--keep-source', '2h']);
  assert.equal(both.code, 2);
  assert.match(both.stderr, /--delete-source and --keep-source exclude one another/);
  const bad = await on.ferry([...line, '--keep-source', 'long']);
  assert.equal(bad.code, 2);
  assert.match(bad.stderr, /It has to be a time such as 30m, 24h or 7d, or forever/);
  assert.deepEqual(on.host.calls, []);
});

test('keep-source asks for the time, undo tells why not', async (t) => {
  const on = await bench(t);
  const kept = await on.ferry(['keep-source', '7', '2h']);
  assert.match(kept.stdout, /The source of operation 7 is kept for 2h/);
  await on.ferry(['keep-source', '7', 'forever']);
  const asked = on.host.calls.filter(([verb]) => verb === 'keepSource');
  assert.deepEqual(asked, [
    ['keepSource', 7, 7200],
    ['keepSource', 7, null],
  ]);
  const next = ['ferry move vm1 vda --to /src'];
  on.host.failures.set(
    'undoOperation',
    new StateError('OPERATION_INVALID', 'undo 7: it has no undo window', { next }),
  );
  const undone = await on.ferry(['undo', '7']);
  assert.equal(undone.code, 4);
  assert.match(undone.stderr, /undo 7: it has no undo window\n.*ferry move vm1 vda --to \/src/s);
});

test('a move says how long its way back is open; undo goes it, and closes it', async (t) => {
  const on = await bench(t);
  const line = ['move', 'vm1', 'vda', '--to', '/dst', '--detach', '--undo-window'];
  assert.equal((await on.ferry([...line, '2h'])).code, 0);
  const request = on.host.calls.find(([verb]) => verb === 'startMove')?.[2];
  assert.deepEqual({ ...(request as object), undoSeconds: 7200 }, request);
  const bad = await on.ferry([...line, 'forever']);
  assert.match(bad.stderr, /It has to be a time such as 30m, 2h or 1d/);
  on.host.operationViews.set(7, { ...move, status: 'committed' });
  on.host.calls.length = 0;
  const undone = await on.ferry(['undo', '7', '--progress', 'none']);
  assert.match(undone.stdout, /Operation 7 is taken back; its disks are where they were/);
  const closed = await on.ferry(['undo', '7', '--close', '--progress', 'none']);
  assert.match(closed.stdout, /The way back of operation 7 is closed/);
  const said = on.host.calls.filter(([verb]) => verb === 'undoOperation');
  assert.deepEqual(said, [
    ['undoOperation', 7, false],
    ['undoOperation', 7, true],
  ]);
});

test('an operation shows which old images are kept, why, how much older, and which are deleted', () => {
  const older = { seconds: 19, writtenBytes: 4_404_020n, isAtLeast: true };
  const keptUntil = '2026-01-02T03:04:05.000Z';
  const text = operationText({
    ...move,
    source: {
      keepSeconds: 0,
      keptUntil,
      undoUntil: '2026-01-02T01:04:05.000Z',
      images: [
        { path: '/src/a', state: 'deleted', why: null, older: null },
        { path: '/src/b', state: 'kept', why: '/src/c names it', older },
      ],
    },
  });
  assert.match(text, /source +kept until 2026-01-0\d .*, and then deleted/);
  assert.match(text, /way back +open until 2026-01-0\d /);
  assert.match(text, /source +\/src\/a: deleted/);
  assert.match(
    text,
    /source +\/src\/b: kept, for \/src\/c names it, older by 19s and at least 4\.2 MiB/,
  );
});
