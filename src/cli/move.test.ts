// `ferry plan move` and `ferry apply` as a user meets them. The transcript in golden/ is what is printed.

import { test } from 'node:test';

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
