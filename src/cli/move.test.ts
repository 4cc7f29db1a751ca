// `ferry plan move` and `ferry apply` as a user meets them. The transcript in golden/ is what is printed.

import { test } from 'node:test';

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
    ['apply'],
    ['plan'],
    ['plan', 'move', 'vm1', 'vdz', '--to', '/dst'],
  ];
  golden('move-plan.txt', await transcript(on, lines));
});
