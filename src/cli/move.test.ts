// `ferry plan move` and `ferry apply` as a user meets them. The transcript in golden/ is what is printed.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { MoveRequest } from '../host/ferry-host.js';
import { moved, plan, vda } from '../http/testing/samples.js';
import { movePlanText } from './move-plan-text.js';
import { movedText } from './operation-text.js';
import { bench, golden, transcript } from './testing/ferry.js';

test('a move is planned, applied, slowed down and paused', async (t) => {
  const on = await bench(t);
  const lines = [
    ['plan', 'move', 'vm1', 'vda', '--to', '/dst'],
    ['apply', '0f3a9c41d2be', '--detach'],
    ['limit', '7', '10M'],
    ['limit', '7', 'none'],
    ['limit', '7', 'fast'],
    ['limit', '8', '1G'],
    ['limit', '7', 'auto'],
    ['limit', '7', 'auto', '--latency', '20ms'],
    ['limit', '7', 'auto', '--latency', 'soon'],
    ['limit', '7', '10M', '--latency', '20ms'],
    ['pause', '7'],
    ['resume', '7'],
    ['cancel', '7'],
    ['pivot', '7'],
    ['pivot', '8'],
    ['plan', 'move', 'vm1', 'vda', '--to', '/dst', '--pivot', 'soon'],
    ['move', 'vm1', 'vda', '--to', '/dst', '--pivot', 'at', '2020-01-02T03:04'],
    ['move', 'vm1', 'vda', '--to', '/dst', '--pivot', 'when', 'lag<0'],
    ['apply'],
    ['plan'],
    ['plan', 'move', 'vm1', 'vdz', '--to', '/dst'],
  ];
  golden('move-plan.txt', await transcript(on, lines));
});

test('where a move puts its images and in what form is said as the host hears it', async (t) => {
  const on = await bench(t);
  const move = ['move', 'vm1', 'vda', '--detach', '--to'];
  const asked = async (...options: readonly string[]) => {
    on.host.calls.length = 0;
    await on.ferry([...move, ...options]);
    return on.host.calls.find(([verb]) => verb === 'startMove')?.[2] as MoveRequest | undefined;
  };
  const formed = await asked('/dst/', '--overlay-dir', '/spare/', '--share-base');
  assert.deepEqual(
    [formed?.to, formed?.overlayDir, formed?.shareBase],
    ['/dst/', '/spare', true],
    'a slash at the end stays: it says that it is a directory',
  );
  const file = await asked('/dst/a.raw', '--flatten', '--format', 'raw');
  assert.deepEqual([file?.to, file?.flatten, file?.format], ['/dst/a.raw', true, 'raw']);
  for (const [said, bytes] of [
    ['64K', 1n << 16n],
    ['64k', 1n << 16n],
    ['2M', 1n << 21n],
  ] as const)
    assert.equal((await asked('/dst', '--cluster-size', said))?.clusterSizeBytes, bytes);
  for (const wrong of [
    ['--cluster-size', 'much'],
    ['--format', 'vmdk'],
  ])
    assert.equal(await asked('/dst', ...wrong), undefined);
});

test('a plan shows what becomes of each image', () => {
  const [disk] = plan.disks;
  assert.ok(disk !== undefined);
  const shown = (...after: (typeof disk)['after']): string =>
    movePlanText({ ...plan, disks: [{ ...disk, after }] });
  golden(
    'move-forms.txt',
    [
      shown(
        { path: '/dst/top.qcow2', format: 'qcow2', how: 'converted' },
        { path: '/dst/vm1.qcow2', format: 'qcow2', how: 'shared' },
      ),
      shown({ path: '/dst/vm1-s1.raw', format: 'raw', how: 'flattened' }),
    ]
      .map((text) => text.split('\n').slice(0, 6).join('\n'))
      .join('\n\n'),
  );
});

test('a move of a domain that is shut off says nothing of a guest', () => {
  const offline = movePlanText({
    ...plan,
    strategy: { name: 'offline-copy', why: 'the domain is shut off' },
    rates: { ...plan.rates, guestBytesPerSecond: 0n },
    pauses: [],
    risks: ["'ferry start vm1' is refused until the move has ended or is cancelled"],
    stages: [{ stage: 'until all is copied', wayBack: 'the definition names the source' }],
  });
  const ended = {
    ...moved,
    steps: [{ kind: 'arrive', text: 'let the definition name it', mark: 'done' }],
    pauses: [],
  } as const;
  const after = { ...vda, chain: vda.chain.map((one) => ({ ...one, path: `/dst${one.path}` })) };
  golden('move-offline.txt', `${offline}\n\n${movedText(ended, ['vda'], [vda], [after])}\n`);
});
