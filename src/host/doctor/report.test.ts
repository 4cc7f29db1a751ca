// The doctor's report, case by case, as a golden file: read it as a tired person would. Below it the verdicts alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { golden } from '../../../test/lib/golden.js';
import { doctorText } from '../../cli/doctor-text.js';
import type { Entry } from '../../journal/entry.js';
import type { DoctorFacts } from './facts.js';
import { report } from './report.js';
import {
  answered,
  base,
  busy,
  chain,
  disk,
  domain,
  facts,
  image,
  mirrorRecord,
  mirrorTo,
  missing,
  noDaemon,
  nowSeconds,
  open,
  qemu,
  record,
  running,
  seen,
  snap,
  twin,
  uuid,
} from './testing/facts.js';

// The times in the golden file are of this zone.
process.env['TZ'] = 'UTC';

const doing: Entry = { type: 'doing', step: 0 };
const undoing: readonly Entry[] = [
  { type: 'done', step: 0 },
  { type: 'rollback', reason: 'cancelled' },
];
const whole = chain(snap, base);
const mirrored = disk([snap, base], mirrorTo(twin, 'yes'));
const ready = { id: 'copy-vda-3', isReady: true, problem: null };
const twinOverBase = seen(twin, { names: base });
const stale = {
  path: base,
  role: 'stale',
  domainName: 'vm1',
  domain: uuid,
  target: 'vda',
  live: '/dst/vda.qcow2',
  sinceSeconds: nowSeconds - 98_000,
} as const;

const onlyBase = disk([base]);
const nbd = {
  type: 'network',
  protocol: 'nbd',
  name: 'disk',
  host: { transport: 'unix', socket: '/run/nbd.sock' },
} as const;
const snapshotUnderWay = (overlay: ReturnType<typeof seen>): DoctorFacts =>
  facts(
    domain(running(onlyBase), { open: [open('snapshot', doing)] }),
    [...chain(base), overlay],
    noDaemon,
  );

/** [what is so, facts, the live image or null, healthy] */
const rows: readonly (readonly [string, DoctorFacts, string | null, boolean])[] = [
  [
    'a guest runs, all is well',
    facts(domain(running(disk([snap, base])), { qemu: qemu(answered([snap, base])) }), whole),
    snap,
    true,
  ],
  [
    'the disk is on the network',
    facts(
      domain(running({ ...onlyBase, source: nbd }), {
        qemu: qemu(answered(['nbd+unix:///disk?socket=/run/nbd.sock'])),
      }),
      [],
    ),
    'nbd://unix:/run/nbd.sock/disk',
    true,
  ],
  [
    'a mirror is READY',
    facts(
      domain(running(mirrored, { mirrors: [mirrorRecord] }), {
        qemu: qemu(answered([snap, base], { jobs: [ready], alsoWritten: [twin] })),
      }),
      [...whole, twinOverBase],
    ),
    snap,
    true,
  ],
  [
    'the target of a mirror is full',
    facts(
      domain(running(mirrored), {
        qemu: qemu(
          answered([snap, base], {
            jobs: [{ ...ready, problem: 'an error of its target (io-status nospace)' }],
          }),
        ),
      }),
      [...whole, twinOverBase],
    ),
    snap,
    false,
  ],
  [
    'ferryd and QEMU died with a mirror on',
    facts(domain(running(mirrored)), [...whole, twinOverBase], noDaemon),
    snap,
    false,
  ],
  [
    'the mirror is owed',
    facts(
      domain(
        record(disk([snap, base]), {
          owed: [
            {
              record: mirrorRecord,
              source: { type: 'file', path: snap },
              image: { source: { type: 'file', path: twin }, format: 'qcow2', index: null },
              below: [],
              sinceSeconds: nowSeconds - 185,
              stamp: null,
            },
          ],
        }),
        {
          roles: [
            {
              ...stale,
              path: twin,
              role: 'unfinished',
              live: snap,
              sinceSeconds: nowSeconds - 185,
            },
          ],
        },
      ),
      [...whole, twinOverBase],
    ),
    snap,
    true,
  ],
  [
    'QEMU has switched, ferryd died before it wrote that down',
    facts(
      domain(running(mirrored), {
        qemu: qemu(answered([twin, base], { runState: 'paused' })),
        open: [open('reopen', doing)],
      }),
      [...whole, twinOverBase],
      noDaemon,
    ),
    twin,
    false,
  ],
  [
    'a switch was under way and everything died',
    facts(
      domain(running(mirrored), { open: [open('reopen', doing)] }),
      [...whole, twinOverBase],
      noDaemon,
    ),
    snap,
    false,
  ],
  [
    'a switch is under way and somebody else has the monitor',
    facts(
      domain(running(mirrored), { qemu: qemu(busy), open: [open('reopen', doing)] }),
      [...whole, twinOverBase],
      noDaemon,
    ),
    null,
    false,
  ],
  [
    'somebody else has the monitor, nothing is under way',
    facts(domain(running(disk([snap, base])), { qemu: qemu(busy) }), whole, noDaemon),
    snap,
    false,
  ],
  [
    'a snapshot was under way, and the guest wrote to the new layer',
    snapshotUnderWay(seen(snap, { names: base, isEmpty: false })),
    snap,
    false,
  ],
  [
    'a snapshot was under way, and nothing is in the new layer',
    snapshotUnderWay(seen(snap, { names: base, isEmpty: true })),
    base,
    false,
  ],
  [
    'a snapshot was under way, and the new layer is not there',
    snapshotUnderWay(missing(snap)),
    null,
    false,
  ],
  [
    'a snapshot was under way, and its storage does not answer',
    snapshotUnderWay({ ...missing(snap), problem: 'no answer within 5000 ms' }),
    null,
    false,
  ],
  [
    'a snapshot was being taken back, its data is down already',
    facts(
      domain(running(disk([snap, base])), { open: [open('snapshot', ...undoing)] }),
      [...chain(base), seen(snap, { sizeBytes: 0n, info: null, problem: 'not in qcow2 format' })],
      noDaemon,
    ),
    base,
    false,
  ],
  [
    'a snapshot was being taken back, its data is not down',
    facts(
      domain(running(disk([snap, base])), { open: [open('snapshot', ...undoing)] }),
      [...chain(base), seen(snap, { names: base, isEmpty: false })],
      noDaemon,
    ),
    snap,
    false,
  ],
  [
    'an operation waits for a person',
    facts(
      domain(running(mirrored), {
        qemu: qemu(answered([snap, base], { jobs: [ready] })),
        open: [open('reopen', doing, { type: 'attention', reason: 'step 1 cannot be told' })],
      }),
      [...whole, twinOverBase],
    ),
    snap,
    false,
  ],
  [
    'ferryd died while it moved a domain that is shut off',
    facts(
      domain(record(onlyBase), { open: [open('move', doing)] }),
      [...chain(base), seen(`${twin}.part`, { info: null })],
      noDaemon,
    ),
    base,
    false,
  ],
  [
    'all of a domain that is shut off is copied, and it is not known yet',
    facts(
      domain(record(onlyBase), {
        open: [open('move', { type: 'done', step: 0 }, { type: 'doing', step: 1 })],
      }),
      [...chain(base), ...chain(twin)],
      noDaemon,
    ),
    base,
    false,
  ],
  [
    'after a move',
    facts(
      domain(running(disk(['/dst/vda.qcow2'])), {
        qemu: qemu(answered(['/dst/vda.qcow2'])),
        roles: [stale],
      }),
      [...chain('/dst/vda.qcow2'), seen(base, { info: null })],
    ),
    '/dst/vda.qcow2',
    true,
  ],
  [
    'the definition names a stale image',
    facts(domain(record(onlyBase), { roles: [stale] }), [
      ...chain(base),
      ...chain('/dst/vda.qcow2'),
    ]),
    '/dst/vda.qcow2',
    false,
  ],
  [
    'the definition was changed while the guest ran',
    facts(
      domain(
        { ...running(disk([snap, base])), persistent: record(onlyBase).persistent },
        { qemu: qemu(answered([snap, base])) },
      ),
      whole,
    ),
    snap,
    true,
  ],
  [
    'a base is gone',
    facts(domain(record(disk([snap, base]))), [...chain(snap, base).slice(0, 1), missing(base)]),
    snap,
    false,
  ],
  [
    'a header names something else',
    facts(
      domain(
        record(
          { ...disk([snap]), backing: null },
          { chains: [{ target: 'vda', images: [image(snap), image(base)] }] },
        ),
      ),
      [seen(snap, { names: '/elsewhere/vda.qcow2' }), ...chain(base)],
    ),
    snap,
    false,
  ],
  [
    'somebody else writes to the live image',
    facts(domain(record(onlyBase)), [
      seen(base, { holders: [{ pid: 77, command: 'qemu-nbd', writes: true }] }),
    ]),
    base,
    false,
  ],
  [
    'somebody else reads the live image',
    facts(domain(record(onlyBase)), [
      seen(base, { holders: [{ pid: 77, command: 'qemu-img', writes: false }] }),
    ]),
    base,
    true,
  ],
  [
    'QEMU runs with another run directory',
    facts(
      domain(running(onlyBase), {
        qemu: qemu({ state: 'silent', problem: 'its monitor is not in /run/ferry' }, false),
      }),
      chain(base),
      noDaemon,
    ),
    base,
    false,
  ],
  [
    'the guest stands still in a pause of ours',
    facts(
      domain(running(onlyBase), { qemu: qemu(answered([base], { runState: 'paused' })) }),
      chain(base),
      noDaemon,
    ),
    base,
    false,
  ],
  [
    'the guest stands still because its storage is full',
    facts(
      domain(running(onlyBase), { qemu: qemu(answered([base], { runState: 'io-error' })) }),
      chain(base),
    ),
    base,
    false,
  ],
  [
    'a ferryd has the state directory but does not answer here',
    facts(null, [], { ...noDaemon, daemon: { ...noDaemon.daemon, holder: 55 } }),
    null,
    false,
  ],
];

const unread: Partial<DoctorFacts> = {
  ...noDaemon,
  journal: { state: 'missing', path: '/state/ferry.db', problem: 'there is no such file' },
};
const withoutJournal: readonly (readonly [string, DoctorFacts, string | null, boolean])[] = [
  [
    'no journal, QEMU answers',
    facts(null, whole, {
      ...unread,
      strangers: [qemu(answered([snap, base], { alsoWritten: [twin] }))],
    }),
    snap,
    false,
  ],
  ['no journal, no QEMU', facts(null, [], { ...unread, asked: 'vm1' }), null, false],
  [
    'no journal, QEMU does not',
    facts(null, [], { ...unread, strangers: [qemu(busy)] }),
    null,
    false,
  ],
  [
    'the journal is damaged, a definition was kept',
    facts(null, [...chain(base), seen(snap, { names: base, modifiedSeconds: nowSeconds })], {
      ...unread,
      journal: { state: 'unreadable', path: '/state/ferry.db', problem: 'file is not a database' },
      xml: [{ name: 'vm1', uuid, disks: [{ target: 'vda', path: base, namedBy: [snap] }] }],
    }),
    null,
    false,
  ],
  [
    'a QEMU that the journal does not know',
    facts(null, whole, { strangers: [qemu(answered([snap, base]))] }),
    snap,
    false,
  ],
  [
    'a transient domain died in an operation that waits for a person',
    facts(null, [...chain(base), seen(snap, { names: base, isEmpty: false })], {
      orphans: [open('snapshot', ...undoing, { type: 'attention', reason: 'EIO' })],
    }),
    snap,
    false,
  ],
  ['nothing at all', facts(null, []), null, true],
];

const all = [...rows, ...withoutJournal];

test('the report of each case is as it was when somebody last read it', () => {
  const text = all.map(([what, seenSo]) => `=== ${what} ===\n${doctorText(report(seenSo))}\n`);
  golden('src/host/doctor/golden/reports.txt', text.join('\n'));
});

for (const [what, seenSo, live, healthy] of all) {
  test(`${what}: ${live ?? 'nothing is called live'}, ${healthy ? 'nothing' : 'something'} waits for a person`, () => {
    const said = report(seenSo);
    assert.equal(said.domains[0]?.disks[0]?.live ?? null, live);
    assert.equal(said.healthy, healthy);
  });
}

test('what cannot be told is not called live, and names what it may be', () => {
  for (const [what, seenSo] of all)
    for (const { disks } of report(seenSo).domains)
      for (const { live, saidBy, candidates } of disks)
        assert.equal(live === null, saidBy === 'nobody' && candidates.length > 0, what);
});

test('an image that is not live is never in the list of what to start from', () => {
  const after = report(rows.find(([what]) => what === 'after a move')?.[1] ?? facts(null, []));
  const [old] = after.domains[0]?.disks[0]?.others ?? [];
  assert.equal(old?.path, base);
  assert.equal(old?.ageSeconds, 98_000);
  assert.equal(old?.differsAtMostBytes, null);
});

test('what two chains hold above the image that both stand on is the most that can differ', () => {
  const [, dead] = rows.find(([what]) => what === 'ferryd and QEMU died with a mirror on') ?? [];
  const [other] = report(dead ?? facts(null, [])).domains[0]?.disks[0]?.others ?? [];
  assert.equal(other?.differsAtMostBytes, 2n * 39n * 1024n ** 2n);
});
