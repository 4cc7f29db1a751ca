// The enumerator itself: one that strikes nothing passes every test.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Crash, crash, everyFault, everyPair, Striker, struck, trouble } from './faults.js';

const threeCalls = (hear: (calls: string) => void) => async (striker: Striker) => {
  const calls: string[] = [];
  const world = struck({ call: async (name: string) => void calls.push(name) }, striker);
  try {
    for (const name of ['a', 'b', 'c']) await world.call(name);
  } catch {
    calls.push('!');
  }
  hear(calls.join(''));
};

test('every call is struck before and after it takes effect', async () => {
  const seen: string[] = [];
  assert.equal(
    await everyFault(
      trouble,
      threeCalls((calls) => seen.push(calls)),
    ),
    6,
  );
  assert.deepEqual(seen, ['!', 'a!', 'a!', 'ab!', 'ab!', 'abc!', 'abc']);
});

test('a pair strikes only calls that come after the first fault', async () => {
  const retry = async (striker: Striker) => {
    const world = struck({ call: async () => undefined }, striker);
    await world.call().catch(() => undefined);
    await world.call().catch(() => undefined);
  };
  // Call 0 in two ways, then call 1 in two ways; after call 1 there is nothing left to strike.
  assert.equal(await everyPair(trouble, trouble, retry), 4);
});

test('after a crash nothing happens until the restart', async () => {
  const calls: string[] = [];
  const striker = new Striker({ call: 0, moment: 'after', error: crash });
  const world = struck({ call: async (name: string) => void calls.push(name) }, striker);
  await assert.rejects(world.call('a'), Crash);
  await assert.rejects(world.call('b'), Crash);
  striker.restart();
  await world.call('c');
  assert.deepEqual(calls, ['a', 'c']);
  assert.equal(striker.calls, 2);
});

test('a scenario that fails names the fault it failed with', async () => {
  const scenario = async (striker: Striker) => {
    const world = struck({ call: async () => undefined }, striker);
    await world.call().catch(() => assert.fail('noticed'));
  };
  await assert.rejects(everyFault(crash, scenario), /with Crash before call 0: noticed/);
});
