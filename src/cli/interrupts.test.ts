// What Ctrl-C does to who watches an operation, with a terminal made of streams.

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';

import { until } from '../std/deadline.js';
import { StateError } from '../std/errors.js';
import { Interrupts } from './interrupts.js';

function watched(cancel: () => Promise<void> = async () => undefined) {
  const signals = new EventEmitter();
  const input = new PassThrough();
  const written: string[] = [];
  let cancels = 0;
  const interrupts = new Interrupts(
    { signals, input, write: (text) => void written.push(text) },
    {
      cancel: async () => {
        cancels++;
        await cancel();
      },
      makeRoom: () => void written.push('|'),
    },
  );
  return {
    interrupts,
    signals,
    input,
    press: () => void signals.emit('SIGINT'),
    type: (text: string) => void input.write(`${text}\n`),
    said: () => written.join(''),
    cancels: () => cancels,
  };
}

const soon = async (what: string, isSo: () => boolean): Promise<void> =>
  void (await until(() => (isSo() ? true : null), 5000, what, 1));

test('Ctrl-C asks; Enter goes on watching, and the next one asks anew', async () => {
  const it = watched();
  for (let times = 0; times < 2; times++) {
    it.press();
    assert.ok(it.interrupts.isAsking);
    assert.match(it.said(), /\|ferry: \[d\]etach .*\[c\]ancel, or Enter to go on watching: $/);
    it.type('');
    await soon('it goes on', () => !it.interrupts.isAsking);
  }
  assert.equal(it.interrupts.signal.aborted, false);
  assert.equal(it.cancels(), 0);
});

for (const [name, answer] of [
  ['d', (it) => it.type('d')],
  ['a second Ctrl-C', (it) => it.press()],
  ['the end of the input', (it) => it.input.end()],
] as const satisfies readonly (readonly [string, (it: ReturnType<typeof watched>) => void])[]) {
  test(`${name} ends the watching and cancels nothing`, async () => {
    const it = watched();
    it.press();
    answer(it);
    await soon('detached', () => it.interrupts.signal.aborted);
    assert.equal(it.interrupts.isAsking, false);
    assert.equal(it.cancels(), 0);
  });
}

test('c cancels and goes on watching, to see it end; a refusal is told', async () => {
  const it = watched(async () => {
    throw new StateError('OPERATION_INVALID', 'it is past its commit step');
  });
  it.press();
  it.type('what?');
  await soon('asked again', () => it.said().match(/Enter/g)?.length === 2);
  it.type('C');
  await soon('told', () => it.said().endsWith('|ferry: it is past its commit step\n'));
  assert.equal(it.cancels(), 1);
  assert.equal(it.interrupts.isAsking, false);
  assert.equal(it.interrupts.signal.aborted, false);
});

test('where nobody can be asked, and after the end of the watching', () => {
  const signals = new EventEmitter();
  const watch = { cancel: async () => undefined, makeRoom: () => assert.fail('no terminal') };
  const write = (): void => assert.fail('nobody reads it');
  const interrupts = new Interrupts({ signals, input: null, write }, watch);
  signals.emit('SIGINT');
  assert.ok(interrupts.signal.aborted);
  interrupts[Symbol.dispose]();
  assert.equal(signals.listenerCount('SIGINT'), 0);
});
