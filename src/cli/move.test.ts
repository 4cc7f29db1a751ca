// `ferry plan move` and `ferry apply` as a user meets them. The transcript in golden/ is what is printed.

import { test } from 'node:test';

import { bench, golden, transcript } from './testing/ferry.js';

test('a plan of a move says everything that is asked before one agrees', async (t) => {
  const on = await bench(t);
  const lines = [
    ['plan', 'move', 'vm1', 'vda', '--to', '/dst'],
    ['apply', '0f3a9c41d2be', '--detach'],
    ['apply'],
    ['plan'],
    ['plan', 'move', 'vm1', 'vdz', '--to', '/dst'],
  ];
  golden('move-plan.txt', await transcript(on, lines));
});
