// The command line as a user meets it: the real `bin/ferry`, the real socket, a host in memory.
// The transcripts in golden/ are the specification of what is printed; review them as a diff.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import type { OperationView } from '../host/ferry-host.js';
import { move, moved, plainMove, s1, vda } from '../http/testing/samples.js';
import {
  BusyError,
  NeedsOperatorError,
  QemuError,
  RequestError,
  StateError,
} from '../std/errors.js';
import { bench, checkout, finished, golden, spawnFerry, transcript } from './testing/ferry.js';

test('every verb prints what a user of virsh expects', async (t) => {
  const on = await bench(t);
  await writeFile(join(on.directory, 'vm1.xml'), '<domain/>');
  await writeFile(join(on.directory, 's1.xml'), '<domainsnapshot/>');
  const lines = [
    ['list'],
    ['list', '--all'],
    ['list', '--inactive', '--name'],
    ['list', '--all', '--uuid', '--name'],
    ['define', 'vm1.xml'],
    ['create', 'vm1.xml', '--paused'],
    ['start', 'vm2'],
    ['shutdown', 'vm1'],
    ['destroy', 'vm1'],
    ['undefine', 'vm2', '--snapshots-metadata'],
    ['dumpxml', 'vm1', '--inactive'],
    ['snapshot-create', 'vm1', 's1.xml', '--disk-only', '--atomic'],
    ['snapshot-list', 'vm1'],
    ['snapshot-list', 'vm1', '--tree'],
    ['snapshot-list', 'vm1', '--name'],
    ['snapshot-delete', 'vm1', 's1', '--reopen-mirror'],
    ['snapshot-delete', 'vm1', 's1', '--remove-mirror'],
    ['snapshot-delete', 'vm1', 's1', '--metadata'],
    ['blockjob', 'vm1', 'vda'],
    ['blockjob', 'vm1', 'vda', '--abort'],
    ['blockjob', 'vm1', 'vda', '--pivot'],
  ];
  golden('verbs.txt', await transcript(on, lines));
  on.host.job = null;
  assert.equal(
    (await on.ferry(['blockjob', 'vm1', 'vdb'])).stdout,
    'No current block job for vdb\n',
  );
});

test('chain marks the live image, the mirror, and what must not be started', async (t) => {
  const on = await bench(t);
  golden(
    'chain.txt',
    await transcript(on, [
      ['chain', 'vm1'],
      ['chain', 'vm1', 'vdb'],
      ['chain', 'vm2', 'vda'],
    ]),
  );
});

const readyMirror = {
  ...vda,
  mirror: {
    ...vda.mirror!,
    state: 'ready' as const,
    owner: { snapshot: null, move: 7, made: 'ours' as const },
    wayBack: null,
  },
};

test('chain says READY when the mirror is, and that nothing is switched', async (t) => {
  const on = await bench(t);
  on.host.disks = [
    readyMirror,
    { ...vda, target: 'sda', device: 'cdrom', readonly: true, chain: [], mirror: null, former: [] },
  ];
  golden('chain-ready.txt', await transcript(on, [['chain', 'vm1']]));
});

test('events are printed as virsh prints them', async (t) => {
  const on = await bench(t);
  on.host.emit({ type: 'lifecycle', id: 3, event: 'started', detail: 'booted' });
  on.host.emit({ type: 'block-job', path: null, target: 'vda', job: 'copy', status: 'ready' });
  on.host.emit({ type: 'lifecycle', id: -1, event: 'stopped', detail: 'destroyed' }, 'vm2');
  on.host.emit({ type: 'monitor', event: 'MIRROR_DROPPED', details: '{"target":"vda"}' });
  on.host.emit({
    type: 'operation',
    operation: 7,
    kind: 'move',
    status: 'running',
    message: 'copying',
  });
  on.host.emit({ type: 'new-thing', a: 1 }, null);
  golden(
    'events.txt',
    await transcript(on, [
      ['events'],
      ['events', 'vm2'],
      ['events', '--after', '4', '--timestamp'],
      ['events', '--json', '--after', '5'],
    ]),
  );
});

test('--json prints the whole objects, sizes exact', async (t) => {
  const on = await bench(t);
  await writeFile(join(on.directory, 'vm1.xml'), '<domain/>');
  const lines = [
    ['--json', 'list'],
    ['list', '--all', '--json'],
    ['define', 'vm1.xml', '--json'],
    ['destroy', 'vm1', '--json'],
    ['dumpxml', 'vm1', '--json'],
    ['chain', 'vm1', 'vda', '--json'],
    ['snapshot-list', 'vm1', '--json'],
    ['snapshot-delete', 'vm1', 's1', '--metadata', '--json'],
    ['blockjob', 'vm1', 'vda', '--json'],
    ['ops', 'list', '--json'],
    ['ops', 'show', '7', '--json'],
    ['move', 'vm1', 'vda', '--to', '/dst', '--detach', '--json'],
    ['plan', 'move', 'vm1', 'vda', '--to', '/dst', '--json'],
  ];
  golden('json.txt', await transcript(on, lines));
});

test('wrong command lines are refused with 2 and a way out', async (t) => {
  const on = await bench(t);
  await writeFile(join(on.directory, 's1.xml'), '<domainsnapshot/>');
  const lines = [
    ['lst'],
    ['start'],
    ['start', 'vm1', 'vm2'],
    ['list', '--bogus'],
    ['list', '--bogus', '--json'],
    ['define', 'missing.xml'],
    ['snapshot-create', 'vm1', 's1.xml', '--mirror', 'vda=/dst/a'],
    ['snapshot-create', 'vm1', '--mirror', 'vda'],
    ['snapshot-create', 'vm1', '--diskspec', 'vda,size=3'],
    ['snapshot-create', 'vm1', '--diskspec', 'vda,mirror=/a', '--mirror', 'vda=/b'],
    ['snapshot-delete', 'vm1', 's1'],
    ['snapshot-delete', 'vm1', 's1', '--metadata', '--reopen-mirror'],
    ['blockjob', 'vm1', 'vda', '--abort', '--pivot'],
    ['chain', 'vm1', 'vdz'],
    ['ops', 'show', 'x'],
    ['ops', 'shw'],
    ['move', 'vm1', '--to', '/dst'],
    ['move', 'vm1', 'vda'],
    ['move', 'vm1', 'vdz', '--to', '/dst'],
    ['move', 'vm1', 'vda', '--to', '/dst', '--progress', 'fast'],
    ['events', '--after', '-1'],
    ['start', ''],
  ];
  golden('usage.txt', await transcript(on, lines));
  assert.ok(
    !on.host.calls.some(([verb]) =>
      ['startMove', 'createSnapshot', 'deleteSnapshot'].includes(verb),
    ),
  );
});

test('errors of the daemon say what, why and what next, with the exit code of their class', async (t) => {
  const on = await bench(t);
  const { failures } = on.host;
  failures.set(
    'start',
    new StateError(
      'OPERATION_INVALID',
      'the mirror of vda is owed and /dst is not there; bring it back',
      { sourceIntact: true, next: ['ferry snapshot-delete vm2 s1 --remove-mirror'] },
    ),
  );
  failures.set('shutdown', new BusyError('vm1 is locked by operation 7', { operation: 7 }));
  failures.set(
    'deleteSnapshot',
    new StateError(
      'BLOCK_COPY_ACTIVE',
      "snapshot-delete vm1/vda: job 'mirror-vda' is copying; wait until it is ready",
    ),
  );
  failures.set(
    'createSnapshot',
    new QemuError('snapshot-create vm1/vda: no space left', { sourceIntact: true }),
  );
  failures.set(
    'endBlockJob',
    new NeedsOperatorError('blockjob vm1/vda: the switch of vda was done half', {
      operation: 8,
      sourceIntact: false,
    }),
  );
  failures.set('define', new RequestError('XML_ERROR', 'line 3: <disk> without a target'));
  failures.set('listSnapshots', new TypeError('x is undefined'));
  const lines = [
    ['start', 'vm2'],
    ['start', 'vm2', '--json'],
    ['shutdown', 'vm1'],
    ['snapshot-delete', 'vm1', 's1', '--reopen-mirror'],
    ['snapshot-create', 'vm1'],
    ['blockjob', 'vm1', 'vda', '--pivot'],
    ['define', '-'],
    ['snapshot-list', 'vm1'],
    ['destroy', 'nosuch'],
    ['destroy', 'nosuch', '--json'],
  ];
  golden('errors.txt', await transcript(on, lines));
});

for (const [name, args, want] of [
  ['create --paused', ['create', '-', '--paused'], ['createXml', '<in/>', { paused: true }]],
  ['define -', ['define', '-'], ['define', '<in/>']],
  [
    'start --paused',
    ['start', 'vm1', '--paused'],
    ['start', 'vm1', { paused: true, mirrorLater: false }],
  ],
  ['undefine', ['undefine', 'vm1'], ['undefine', 'vm1', { snapshotsMetadata: false, nvram: null }]],
  [
    'undefine --nvram',
    ['undefine', 'vm1', '--nvram'],
    ['undefine', 'vm1', { snapshotsMetadata: false, nvram: 'remove' }],
  ],
  [
    'undefine --keep-nvram',
    ['undefine', 'vm1', '--keep-nvram'],
    ['undefine', 'vm1', { snapshotsMetadata: false, nvram: 'keep' }],
  ],
  [
    'snapshot-create with all flags',
    ['snapshot-create', 'vm1', '-', '--no-metadata', '--reuse-external', '--disk-only', '--atomic'],
    [
      'createSnapshot',
      'vm1',
      '<in/>',
      { diskOnly: true, noMetadata: true, reuseExternal: true, atomic: true },
    ],
  ],
  [
    'blockjob with a path',
    ['blockjob', 'vm1', '/src/a b.img', '--pivot'],
    ['endBlockJob', 'vm1', '/src/a b.img', 'pivot'],
  ],
  ['ops list --domain', ['ops', '--domain', 'vm1'], ['operations', { domain: 'vm1', all: false }]],
] as const) {
  test(`${name} asks the host for just that`, async (t) => {
    const on = await bench(t);
    const { code, stderr } = await on.ferry(args, '<in/>');
    assert.equal(code, 0, stderr);
    assert.deepEqual(on.host.calls.at(-1), want);
  });
}

test('a snapshot made from options has absolute paths and one disk for both options', async (t) => {
  const on = await bench(t);
  on.host.snapshots = [s1];
  const args = [
    'snapshot-create',
    'vm1',
    '--name',
    "a<b>&'c",
    '--diskspec',
    'vda,file=x,,y.qcow2,driver=qcow2',
    '--mirror',
    'vda=dst/m.qcow2',
    '--diskspec',
    'vdb,snapshot=no',
  ];
  const { stdout } = await on.ferry(args);
  const [, , xml, flags] = on.host.calls.at(-1) ?? [];
  golden('snapshot-options.txt', `${String(xml).replaceAll(on.directory, 'CWD')}\n${stdout}`);
  assert.deepEqual(flags, {
    diskOnly: true,
    noMetadata: false,
    reuseExternal: false,
    atomic: false,
  });
});

test('without a daemon: exit 5 and how to start it, also as JSON', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-cli-'));
  t.after(() => rm(directory, { recursive: true }));
  for (const args of [['list'], ['move', 'vm1', 'vda', '--to', '/dst'], ['events', '--follow']]) {
    const ran = await finished(spawnFerry(directory, args));
    assert.equal(ran.code, 5);
    assert.match(ran.stderr, /ferryd is not running on .*ferry\.sock; start it: ferryd --run-dir/);
    assert.equal(ran.stdout, '');
  }
  const ran = await finished(spawnFerry(directory, ['list', '--json']));
  const body = JSON.parse(ran.stderr) as { code: string; next: readonly string[] };
  assert.equal(body.code, 'OPERATION_TIMEOUT');
  assert.deepEqual(body.next, [`ferryd --run-dir ${directory}`]);
});

test('--run-dir goes before FERRY_RUN_DIR', async (t) => {
  const on = await bench(t);
  const ran = await finished(spawnFerry('/', ['--run-dir', on.directory, 'list', '--name']));
  assert.deepEqual([ran.code, ran.stdout], [0, 'vm1\n']);
});

test('a checkout that is not built says how to build it', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-cli-'));
  t.after(() => rm(directory, { recursive: true }));
  await mkdir(join(directory, 'bin'));
  await copyFile(join(checkout, 'bin/ferry'), join(directory, 'bin/ferry'));
  await writeFile(join(directory, 'package.json'), '{"type":"module"}');
  // Through a link too, as npm installs commands.
  await symlink('bin/ferry', join(directory, 'link'));
  const ran = await finished(spawn(process.execPath, [join(directory, 'link')]));
  assert.deepEqual(ran, {
    code: 2,
    stdout: '',
    stderr: 'ferry: it is not built yet; run: npm ci && npm run build\n',
  });
});

test('help and version leave with 0, no command at all with 2', async (t) => {
  const on = await bench(t);
  for (const args of [['--help'], ['help', 'move'], ['move', '--help'], ['-V'], ['--version']]) {
    const ran = await on.ferry(args);
    assert.deepEqual([ran.code, ran.stderr, ran.stdout === ''], [0, '', false], args.join(' '));
  }
  const bare = await on.ferry([]);
  assert.equal(bare.code, 2);
  assert.match(bare.stderr, /Usage: ferry/);
});

/** What a move goes through; the third step is all copied, and still not READY. */
const course: readonly OperationView[] = [
  { ...move, progress: { ...move.progress!, percent: 99.97 } },
  { ...move, progress: { ...move.progress!, percent: 99.98 } },
  { ...move, progress: { ...move.progress!, percent: 100, doneBytes: move.progress!.totalBytes } },
  {
    ...move,
    progress: {
      ...move.progress!,
      phase: 'mirroring',
      percent: 100,
      doneBytes: move.progress!.totalBytes,
      ready: true,
    },
  },
  {
    ...move,
    progress: {
      ...move.progress!,
      phase: 'pivoting',
      percent: 100,
      doneBytes: move.progress!.totalBytes,
      ready: true,
    },
    pauses: moved.pauses,
  },
];

const afterMove = [
  {
    ...vda,
    chain: [
      { ...vda.chain[0]!, path: '/dst/vm1-s1.qcow2' },
      { ...vda.chain[1]!, path: '/dst/vm1.qcow2' },
    ],
    mirror: null,
  },
];

test('move shows a line per change, never 100 % before READY, and where the live image is', async (t) => {
  const on = await bench(t);
  on.host.onWait = () => {
    for (const view of course) on.host.advance(view);
    on.host.advance(moved);
    on.host.disks = afterMove;
    on.host.settle(7);
  };
  const text = await transcript(on, [['move', 'vm1', '/src/vm1-s1.qcow2', '--to', '/dst']]);
  golden('move.txt', text);
  assert.ok(!/100 %.*not ready/.test(text));
  assert.deepEqual(
    on.host.calls.find(([verb]) => verb === 'startMove'),
    ['startMove', 'vm1', plainMove],
  );
});

test('move --progress=json is one object a line, the last one the end', async (t) => {
  const on = await bench(t);
  on.host.onWait = () => {
    for (const view of course) on.host.advance(view);
    on.host.advance(moved);
    on.host.settle(7);
  };
  const { code, stdout } = await on.ferry(['move', 'vm1', 'vda', '--to', 'rel', '--progress=json']);
  assert.equal(code, 0);
  const lines = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { type: string; ready?: boolean; percent?: number });
  assert.deepEqual(
    lines.map((l) => `${l.type} ${l.percent ?? ''} ${l.ready ?? ''}`.trim()),
    [
      'progress 45 false',
      'progress 99 false',
      'progress 99 false',
      'progress 100 true',
      'progress 100 true',
      'end',
    ],
  );
  assert.deepEqual(on.host.calls.find(([verb]) => verb === 'startMove')?.[2], {
    ...plainMove,
    to: join(on.directory, 'rel'),
  });
});

test('a move that is rolled back ends with its error; one that needs a person with 7', async (t) => {
  const on = await bench(t);
  on.host.onWait = () =>
    on.host.settle(
      7,
      new QemuError('move vm1: /dst is full; make room and repeat', {
        sourceIntact: true,
        operation: 7,
      }),
    );
  const back = await transcript(on, [['move', 'vm1', 'vda', '--to', '/dst', '--progress', 'none']]);
  on.host.onWait = () => {
    on.host.advance({ ...move, status: 'attention', reason: 'the copy is not what was copied' });
    on.host.settle(7);
  };
  const person = await transcript(on, [
    ['move', 'vm1', 'vda', '--to', '/dst', '--progress', 'none'],
  ]);
  golden('move-failed.txt', `${back}\n${person}`);
});

test('a move that was rolled back before a restart of the daemon fails too', async (t) => {
  const on = await bench(t);
  on.host.operationViews.set(7, { ...move, status: 'rolled-back', reason: '/dst is full' });
  const ran = await on.ferry(['ops', 'wait', '7', '--progress=none']);
  assert.equal(ran.code, 4);
  assert.match(ran.stderr, /rolled back: \/dst is full; see its steps: ferry ops show 7/);
});

test('a mirror without a snapshot object is ended disk by disk', async (t) => {
  const on = await bench(t);
  const ran = await on.ferry(['snapshot-create', 'vm1', '--no-metadata', '--mirror', 'vda=/dst/a']);
  assert.match(ran.stdout, /when it is READY: ferry blockjob vm1 vda --pivot\n$/);
});

test('Ctrl-C ends the waiting and tells that the move goes on', async (t) => {
  const on = await bench(t);
  const child = on.spawned(['move', 'vm1', 'vda', '--to', '/dst']);
  const ended = finished(child);
  assert.ok(child.stdout !== null);
  await once(child.stdout, 'data'); // The first line of progress: it is watching.
  child.kill('SIGINT');
  const { code, stderr } = await ended;
  assert.equal(code, 130);
  assert.match(
    stderr,
    /operation 7 goes on in the daemon\n {2}next: ferry ops wait 7\n {2}next: ferry ops cancel 7/,
  );
  assert.ok(!on.host.calls.some(([verb]) => verb === 'cancelOperation'));
});

test('events --follow prints what comes, and a reader that leaves ends it quietly', async (t) => {
  const on = await bench(t);
  on.host.emit({ type: 'lifecycle', id: 3, event: 'started', detail: 'booted' });
  const child = on.spawned(['events', '--follow', '--after', '0']);
  assert.ok(child.stdout && child.stderr);
  const closed = once(child, 'close');
  const first = String(await once(child.stdout, 'data'));
  assert.equal(first, "event 'lifecycle' for domain 'vm1': Started Booted\n");
  let complaints = '';
  child.stderr.on('data', (chunk) => (complaints += String(chunk)));
  child.stdout.destroy();
  await once(child.stdout, 'close');
  for (let i = 0; i < 50; i++) on.host.emit({ type: 'reboot' });
  assert.deepEqual(await closed, [0, null]);
  assert.equal(complaints, '');
});
