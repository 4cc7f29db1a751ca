// How much a disk was written since a switch: over lives of QEMU and of the daemon, never more than is known.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { ImageRole } from '../domain/record.js';
import { MemoryJournal } from '../journal/memory.js';
import { afterLife, afterLook, atLeastOlderOf, readCounts } from './ages.js';

const fresh = {
  domain: 'u',
  target: 'vda',
  sinceSeconds: 100,
  beforeBytes: 0n,
  life: null,
  isAtLeast: false,
};

const soFar = ({ beforeBytes, life }: ReturnType<typeof afterLook>): bigint =>
  beforeBytes + (life === null ? 0n : life.lastBytes - life.fromBytes);

test('what the same QEMU wrote before the switch does not count', () => {
  const later = afterLook(afterLook(fresh, 1, 5000n), 1, 5700n);
  assert.equal(soFar(later), 700n);
  assert.equal(later.isAtLeast, false);
});

test('the next QEMU counts on; what the dead one wrote at last was not seen', () => {
  const dead = afterLife(afterLook(afterLook(fresh, 1, 5000n), 1, 5700n));
  assert.equal(soFar(dead), 700n);
  assert.equal(dead.isAtLeast, true);
  const next = afterLook({ ...dead, life: { id: 2, fromBytes: 0n, lastBytes: 0n } }, 2, 40n);
  assert.equal(soFar(next), 740n);
  assert.equal(next.isAtLeast, true);
});

test('a QEMU that nobody told of, or a count that went back, ends the life before it', () => {
  const was = afterLook(afterLook(fresh, 1, 5000n), 1, 5700n);
  for (const [id, bytes] of [
    [2, 30n],
    [1, 30n],
  ] as const) {
    const now = afterLook(was, id, bytes);
    assert.equal(soFar(now), 730n);
    assert.equal(now.isAtLeast, true);
  }
});

test('the journal has what was counted, to the byte; without a daemon that is a least', async () => {
  const journal = new MemoryJournal({ nowMs: () => 0 });
  const life = { id: 1, fromBytes: 1n << 60n, lastBytes: (1n << 60n) + 7n };
  const text = JSON.stringify([{ ...fresh, life }], (_, value: unknown) =>
    typeof value === 'bigint' ? value.toString() : value,
  );
  await journal.putSetting('written', text);
  const counts = await readCounts(journal);
  const role: ImageRole = {
    path: '/a/vda',
    role: 'stale',
    domain: 'u',
    domainName: 'vm1',
    target: 'vda',
    live: '/b/vda',
    sinceSeconds: 100,
  };
  assert.deepEqual(atLeastOlderOf(counts, role, 119), {
    seconds: 19,
    writtenBytes: 7n,
    isAtLeast: true,
  });
  const other = { ...role, sinceSeconds: 101 };
  assert.deepEqual(atLeastOlderOf(counts, other, 119), {
    seconds: 18,
    writtenBytes: null,
    isAtLeast: false,
  });
});
