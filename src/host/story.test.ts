// Operations in words, as a golden file: read it as somebody would who did not begin them.

import { test } from 'node:test';

import { golden } from '../../test/lib/golden.js';
import type { Entry } from '../journal/entry.js';
import { operationOf } from '../journal/applied.js';
import type { Plan, Step } from '../plan/step.js';
import { storyOf } from './story.js';

// What a story looks at; a real move has more steps of the same kinds.
const steps = [
  {
    kind: 'create-image',
    path: '/src/vda.move-7',
    sizeBytes: 1024n,
    backing: { path: '/src/vda.img', format: 'qcow2' },
    clusterSizeBytes: null,
    existed: false,
  },
  {
    kind: 'snapshot',
    disks: [
      {
        target: 'vda',
        node: 'ferry-1-format',
        overlay: 'ferry-2-format',
        overlayPath: '/src/vda.move-7',
        base: { path: '/src/vda.img', format: 'qcow2' },
      },
    ],
    reverts: [],
  },
  {
    kind: 'copy-image',
    from: '/src/vda.img',
    to: '/dst/vda.img',
    format: 'qcow2',
    backing: null,
  },
  {
    kind: 'pivot',
    disks: [
      {
        target: 'vda',
        jobId: 'copy-vda-3',
        job: 'copy',
        from: 'ferry-2-format',
        to: 'ferry-3-format',
        path: '/dst/vda.move-7',
        swing: null,
        swingBack: null,
        header: null,
        offline: null,
      },
    ],
  },
  { kind: 'resume-guest', when: 'if-running' },
  { kind: 'remove-file', path: '/dst/vda.move-7' },
] as const satisfies readonly Step[];

const move: Plan = { operation: 'move', domain: 'u', domainName: 'vm1', steps, commitAt: 4 };
const destroy: Plan = {
  operation: 'destroy',
  domain: 'u',
  domainName: 'vm1',
  steps: [{ kind: 'kill-qemu', pidFile: '/run/vm1.pid' }],
  commitAt: 0,
};

/** The same, held in step before it switches. */
const held: Plan = {
  ...move,
  steps: [
    ...steps.slice(0, 3),
    { kind: 'wait-pivot', when: { how: 'manual' }, jobIds: ['copy-vda-3'] },
    ...steps.slice(3),
  ],
  commitAt: 5,
};

const upTo = (count: number): readonly Entry[] =>
  Array.from({ length: count }, (_, step) => ({ type: 'done' as const, step }));
const copying: Entry = { type: 'doing', step: 2 };
const rollback: Entry = { type: 'rollback', reason: 'move vm1: cancelled at step 3 (copy-image)' };
const stopped = (reason: string): Entry => ({ type: 'attention', reason });

/** [name, plan, journal, whether a daemon is at it] */
const rows: readonly (readonly [string, Plan, readonly Entry[], boolean])[] = [
  ['just begun', move, [], true],
  ['copying', move, [...upTo(2), copying], true],
  ['copying, and ferryd is not there', move, [...upTo(2), copying], false],
  ['on its way back', move, [...upTo(2), copying, rollback, { type: 'undone', step: 2 }], true],
  [
    'the world cannot tell of the copy',
    move,
    [...upTo(2), copying, stopped('it cannot be told whether step 3 (copy-image) was done')],
    false,
  ],
  [
    'the undo failed',
    move,
    [...upTo(3), rollback, stopped('cancelled; then undoing step 3 (copy-image) failed: EROFS')],
    false,
  ],
  [
    'a person spoke',
    move,
    [
      ...upTo(2),
      copying,
      stopped('it cannot be told whether step 3 (copy-image) was done'),
      { type: 'resolved', direction: 'back', answer: { of: 2, was: 'done' }, by: 'ann (uid 0)' },
    ],
    true,
  ],
  ['held before the switch', held, upTo(3), true],
  ['held, and taken back', held, [...upTo(3), rollback], true],
  ['stopped behind the commit step', move, [...upTo(5), stopped('EROFS')], false],
  ['behind the commit step', move, upTo(4), true],
  ['nothing can be taken back', destroy, [], true],
  ['done', move, [...upTo(6), { type: 'end', outcome: 'committed' }], false],
];

test('an operation in words', () => {
  const text = rows.map(([name, plan, entries, isRunning]) => {
    const record = operationOf({
      copies: [],
      id: 7,
      plan,
      startedAtMs: 0,
      endedAtMs: entries.some(({ type }) => type === 'end') ? 1 : null,
      entries: entries.map((entry) => ({ atMs: 0, entry, changes: [] })),
    });
    const { commands, said, ...story } = storyOf(record, isRunning);
    const facts = Object.entries(story).map(([key, value]) => `  ${key}: ${value ?? '-'}`);
    const hints = commands.map(({ type, why }) => `  $ ${type}   # ${why}`);
    const words = said.map(({ time, by, text }) => `  said: ${text}, ${by}, ${time}`);
    return [`${name}:`, ...facts, ...words, ...hints].join('\n');
  });
  golden('src/host/golden/stories.txt', `${text.join('\n\n')}\n`);
});
