// What a person may type as the place that a move goes to.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Destination } from './destination.js';
import { absoluteDestination, destinationOf } from './destination.js';

const nbd = (name: string, port: number, isTls = false): Destination => ({
  kind: 'nbd',
  name,
  host: { transport: 'tcp', name: 'h', port },
  isTls,
});

for (const [text, wanted] of [
  ['/mnt/new', { kind: 'folder', path: '/mnt/new' }],
  ['block:/dev/vg/a', { kind: 'block', path: '/dev/vg/a' }],
  ['nbd://h/x', nbd('x', 10809)],
  ['nbd://h:1234/a%20b', nbd('a b', 1234)],
  ['nbd://h:1234', nbd('', 1234)],
  ['nbds://h:1/x', nbd('x', 1, true)],
  [
    'nbd://[::1]:7/x',
    { kind: 'nbd', name: 'x', host: { transport: 'tcp', name: '::1', port: 7 }, isTls: false },
  ],
  [
    'nbd+unix:///x?socket=/run/s',
    { kind: 'nbd', name: 'x', host: { transport: 'unix', socket: '/run/s' }, isTls: false },
  ],
] as const satisfies readonly (readonly [string, Destination])[]) {
  test(`${text} is a place`, () => assert.deepEqual(destinationOf(text), wanted));
}

for (const [text, wanted] of [
  ['block:dev/a', /absolute path/],
  ['nbd:///x', /host is missing/],
  ['nbd+unix:///x', /path of its socket is missing/],
  ['nbd+unix:///x?socket=s', /path of its socket is missing/],
  ['nbds+unix:///x?socket=/s', /no NBD URI/],
  ['nbd://h/x?socket=/s&y=1', /more than socket=/],
  ['nbd://u@h/x', /a user/],
  ['nbd://h/%zz', /no NBD URI/],
] as const) {
  test(`${text} is none, and says why`, () => {
    const said = destinationOf(text);
    assert.ok(typeof said === 'string');
    assert.match(said, wanted);
  });
}

test('only paths are made absolute', () => {
  const here = process.cwd();
  assert.equal(absoluteDestination('new'), `${here}/new`);
  assert.equal(absoluteDestination('block:loop0'), `block:${here}/loop0`);
  assert.equal(absoluteDestination('nbd://h/x'), 'nbd://h/x');
});
