// When a move is READY and whether it converges, from looks at made-up storages and guests.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Course } from './foresight.js';
import { convergenceOf, readyBand } from './foresight.js';
import { ladderOf } from './ladder.js';
import type { Look } from './meter.js';
import { Meter } from './meter.js';

const MiB = 1 << 20;

interface Story {
  readonly seconds: number;
  /** MiB at second t. */
  readonly copied?: (t: number) => number;
  readonly lag?: (t: number) => number;
  readonly dirty?: number;
  readonly guest?: number;
  readonly leftMiB?: number | null;
  readonly limitMiB?: number | null;
  readonly paused?: true;
  readonly job?: (t: number) => string | null;
}

const bytes = (mib: number): bigint => BigInt(Math.round(mib * MiB));

function courseOf(story: Story): Course {
  const { copied = () => 0, lag = () => 0, dirty = 1, guest = 1, leftMiB = 100 } = story;
  const looks = Array.from({ length: story.seconds + 1 }, (_, t): Look => {
    const id = story.job === undefined ? 'copy-vda-2' : story.job(t);
    const total = dirty * t + 10;
    return {
      atMs: t * 1000,
      copiedBytes: bytes(copied(t)),
      writtenBytes: bytes(guest * t),
      writes: null,
      job: id === null ? null : { id, doneBytes: bytes(total - lag(t)), totalBytes: bytes(total) },
    };
  });
  return {
    leftBytes: leftMiB === null ? null : bytes(leftMiB),
    copies: looks,
    disks: new Map([['vda', looks]]),
    limitBytesPerSecond: story.limitMiB == null ? null : bytes(story.limitMiB),
    isPaused: story.paused === true,
  };
}

for (const [name, story, want] of [
  ['a steady copy', { seconds: 20, copied: (t) => 10 * t }, [9, 11]],
  [
    'a copy that has become slow',
    { seconds: 60, copied: (t) => (t < 50 ? 20 * t : 1000 + 5 * (t - 50)) },
    [5, 22],
  ],
  [
    'a copy that does not move any more',
    { seconds: 60, copied: (t) => Math.min(t, 20) },
    [270, null],
  ],
  [
    'a copy between two pieces, under a limit',
    { seconds: 12, copied: () => 8, limitMiB: 1 },
    [90, 110],
  ],
  ['nothing seen yet', { seconds: 0 }, null],
  ['a paused copy', { seconds: 20, copied: (t) => 10 * t, paused: true }, null],
  ['images whose size is not known', { seconds: 20, copied: (t) => t, leftMiB: null }, null],
  ['all copied, mirror in step', { seconds: 20, leftMiB: 0, lag: () => 1 }, [0, 0]],
  // 40 MiB behind, 2 MiB/s nearer.
  ['a mirror that catches up', { seconds: 20, leftMiB: 0, lag: (t) => 80 - 2 * t }, [18, 44]],
  ['a mirror that falls behind', { seconds: 20, leftMiB: 0, lag: (t) => 10 + t }, null],
  [
    'the slower of copy and mirror',
    { seconds: 20, copied: (t) => 100 * t, lag: (t) => 80 - 2 * t },
    [18, 44],
  ],
] as const satisfies readonly (readonly [
  string,
  Story,
  readonly [number, number | null] | null,
])[]) {
  test(`time to ready: ${name}`, () => {
    const band = readyBand(courseOf(story));
    if (want === null) return assert.equal(band, null);
    const [least, most] = want;
    assert.ok(band !== null && Math.abs(band.least - least) <= 1, JSON.stringify(band));
    if (most === null) return assert.equal(band.most, null);
    assert.ok(band.most !== null && Math.abs(band.most - most) <= 1, JSON.stringify(band));
    assert.ok(band.least <= band.most);
  });
}

const sawtooth = (t: number): number => (t % 10) + (t % 10 === 0 ? 0.5 : 3);

for (const [name, story, want] of [
  ['a mirror in step', { seconds: 20, copied: (t) => 10 * t }, 'converges'],
  ['too short a time', { seconds: 5, lag: (t) => 10 * t }, 'unknown'],
  [
    'a mirror that gets ever further behind',
    { seconds: 20, copied: (t) => 10 * t, lag: (t) => 5 * t },
    'diverges mirror',
  ],
  [
    'a mirror that is far behind and catches up',
    { seconds: 20, copied: (t) => 10 * t, lag: (t) => 300 - 5 * t },
    'converges',
  ],
  [
    'a mirror that is behind now and then',
    { seconds: 20, copied: (t) => 10 * t, lag: sawtooth },
    'converges',
  ],
  [
    'a job that has just begun',
    { seconds: 20, lag: (t) => 5 * t, job: (t) => (t < 15 ? 'a' : 'b') },
    'unknown',
  ],
  [
    'a guest that writes more than is copied',
    { seconds: 20, copied: (t) => t, guest: 3, limitMiB: 1 },
    'diverges copy',
  ],
  ['the same, all copied', { seconds: 20, guest: 3, leftMiB: 0 }, 'converges'],
  ['the same, paused by a person', { seconds: 20, guest: 3, paused: true }, 'converges'],
  [
    'no mirror, as before the first snapshot',
    { seconds: 20, copied: (t) => 10 * t, job: () => null },
    'converges',
  ],
] as const satisfies readonly (readonly [string, Story, string])[]) {
  test(`convergence: ${name}`, () => {
    const { state, of } = convergenceOf(courseOf(story));
    assert.equal([state, of ?? ''].join(' ').trim(), want);
  });
}

test('what diverges says by which rates', () => {
  const mirror = convergenceOf(courseOf({ seconds: 20, dirty: 8, lag: (t) => 5 * t }));
  assert.equal(
    mirror.why,
    'vda: its mirror carries 3.0 MiB/s and the guest changes 8.0 MiB/s, so it falls behind',
  );
  const copy = convergenceOf(
    courseOf({ seconds: 20, copied: (t) => t / 2, guest: 3, limitMiB: 0.5 }),
  );
  assert.match(
    copy.why ?? '',
    /^the frozen images are copied at 512 KiB\/s \(at most 512 KiB\/s\) and the guest writes 3\.0 MiB\/s: /,
  );
});

const rungs = {
  operation: 7,
  domainName: 'vm1',
  uri: 'qemu+unix:///system?socket=/run/s',
  jobIds: ['copy-vda-2'],
  isCopying: true,
  isLimited: true,
  canForce: false,
};
const wait = ['ferry watch 7', 'ferry cancel 7'];
const force = `virsh -c 'qemu+unix:///system?socket=/run/s' qemu-monitor-command vm1 '{"execute":"block-job-change","arguments":{"id":"copy-vda-2","type":"mirror","copy-mode":"write-blocking"}}'`;

for (const [name, of, change, want] of [
  ['nothing', null, {}, []],
  ['a copy with a limit', 'copy', {}, ['ferry limit 7 none', ...wait]],
  ['a copy without one', 'copy', { isLimited: false }, wait],
  ['a mirror beside a copy', 'mirror', {}, ['ferry pause 7', ...wait]],
  ['a mirror alone', 'mirror', { isCopying: false }, wait],
  [
    'a mirror, on a QEMU with block-job-change',
    'mirror',
    { isCopying: false, canForce: true },
    [force, ...wait],
  ],
] as const) {
  test(`the ladder for ${name}`, () => {
    const convergence =
      of === null
        ? ({ state: 'converges', why: null, of } as const)
        : ({ state: 'diverges', why: '', of } as const);
    const types = ladderOf(convergence, { ...rungs, ...change }).map(({ type }) => type);
    assert.deepEqual(types, want);
  });
}

test('rates are of the last ten seconds, of one job, and none is made up', () => {
  const meter = new Meter();
  const look = (t: number, id: string, done: number): Look => ({
    atMs: t * 1000,
    copiedBytes: bytes(t < 20 ? 0 : 10 * (t - 20)),
    writtenBytes: bytes(2 * t),
    writes: null,
    job: { id, doneBytes: bytes(done), totalBytes: bytes(done + 4) },
  });
  meter.add(look(0, 'a', 0));
  assert.equal(meter.rates.copyBytesPerSecond, null);
  for (let t = 1; t <= 30; t++) meter.add(look(t, t < 25 ? 'a' : 'b', t < 25 ? t : 3 * (t - 25)));
  assert.deepEqual(meter.rates, {
    copyBytesPerSecond: bytes(10),
    mirrorBytesPerSecond: bytes(3),
    dirtyBytesPerSecond: bytes(3),
    guestBytesPerSecond: bytes(2),
  });
  assert.equal(meter.lagBytes, bytes(4));
  meter.forget();
  assert.equal(meter.rates.copyBytesPerSecond, null);
});
