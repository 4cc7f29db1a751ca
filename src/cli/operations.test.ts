// `ferry ops` as a user meets it: the real `bin/ferry`, the real socket, a host in memory. Transcripts in golden/.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { OperationView } from '../host/ferry-host.js';
import { move, moved } from '../http/testing/samples.js';
import { bench, golden, transcript } from './testing/ferry.js';

test('ops list, show and cancel say what an operation waits for', async (t) => {
  const on = await bench(t);
  const stuck: OperationView = {
    ...move,
    id: 8,
    kind: 'snapshot-create',
    status: 'attention',
    reason: 'the image /dst/a is gone',
    story: {
      ...move.story,
      waitsFor: "a person: the image /dst/a is gone; 'ferry doctor vm1' shows what QEMU has open",
      wayBack: 'none: its commit step 2 (mirror) is done',
      commands: [{ type: 'ferry ops resolve 8 --forward', why: 'the cause is mended: try again' }],
    },
  };
  const back: OperationView = {
    ...move,
    id: 10,
    direction: 'back',
    reason: 'cancelled',
    story: {
      ...move.story,
      now: 'taking back step 1: create /dst/vm1.qcow2, 10 GiB',
      said: [{ time: '2026-01-02T03:04:05.000Z', by: 'ann (uid 0)', text: 'back' }],
      next: null,
      waitsFor: 'taking back step 1: create /dst/vm1.qcow2, 10 GiB',
      wayBack: 'it is on it: cancelled',
    },
  };
  const parked: OperationView = { ...move, id: 11, status: 'waiting', reason: 'QEMU is gone' };
  on.host.operationViews.set(8, stuck).set(9, { ...moved, id: 9 });
  on.host.operationViews.set(10, back).set(11, parked);
  const lines = [
    ['ops'],
    ['ops', 'list', '--all'],
    ['ops', 'show', '7'],
    ['ops', 'show', '8'],
    ['ops', 'show', '9'],
    ['ops', 'show', '99'],
    ['ops', 'wait', '8'],
    ['ops', 'wait', '9'],
    ['ops', 'cancel', '7'],
    ['ops', 'show', '10'],
    ['ops', 'resolve', '8'],
    ['ops', 'resolve', '8', '--forward', '--back'],
    ['ops', 'resolve', '8', '--forward', '--done', '--not-done'],
    ['ops', 'resolve', '8', '--forward', '--not-done'],
    ['ops', 'resolve', '9', '--forward'],
  ];
  golden('ops.txt', await transcript(on, lines));
});

test('move --bandwidth says what the copy may read in a second, in bytes or in powers of 1024', async (t) => {
  const on = await bench(t);
  const move = ['move', 'vm1', 'vda', '--to', '/dst', '--detach', '--bandwidth'];
  const sizes = { '1048577': 1048577n, '512K': 512n << 10n, '10M': 10n << 20n, '1G': 1n << 30n };
  for (const [said, bytesPerSecond] of Object.entries(sizes)) {
    on.host.calls.length = 0;
    await on.ferry([...move, said]);
    assert.deepEqual(on.host.calls.find(([verb]) => verb === 'startMove')?.[2], {
      disks: ['vda'],
      to: '/dst',
      rotateBytes: 1n << 30n,
      bytesPerSecond,
      verify: 'full',
      pivot: { how: 'auto' },
      quiesce: false,
      trim: false,
      keepSourceSeconds: null,
      deleteShared: false,
      undoSeconds: null,
    });
  }
  on.host.calls.length = 0;
  await on.ferry([...move, '1G', '--rotate', 'off']);
  assert.deepEqual(on.host.calls.find(([verb]) => verb === 'startMove')?.[2], {
    disks: ['vda'],
    to: '/dst',
    rotateBytes: null,
    bytesPerSecond: 1n << 30n,
    verify: 'full',
    pivot: { how: 'auto' },
    quiesce: false,
    trim: false,
    keepSourceSeconds: null,
    deleteShared: false,
    undoSeconds: null,
  });
  for (const said of ['0', '0M', '-1', '10 M', '10m', '1.5G', 'off']) {
    on.host.calls.length = 0;
    const { code, stderr } = await on.ferry([...move, said]);
    assert.notEqual(code, 0, said);
    assert.match(stderr, /bytes a second/);
    assert.deepEqual(on.host.calls, []);
  }
});
