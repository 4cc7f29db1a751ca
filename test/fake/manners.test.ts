// The fake against the real thing: the same commands on both, and the same refusals, in the same words, the same
// job events, the same roots. No guest runs: QEMU stays under -S.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

import type { JsonObject } from '../../src/qapi/json.js';
import type { JobStatus } from '../../src/qapi/replies.js';
import { CommandError, connect, waitJob, type Monitor } from '../../src/qmp/monitor.js';
import { until } from '../../src/std/deadline.js';
import { testQemus, type TestQemu } from '../lib/qemu.js';
import { FakeQemu } from './qemu.js';
import { FakeStorage } from './storage.js';

/** One command, and the job status to wait for after it. */
type Step = readonly [command: string, args: JsonObject, job?: string, status?: JobStatus];

const ours = { 'auto-finalize': false, 'auto-dismiss': false };
const images = ['base', 'other', 's0', 'm0', 't1'] as const;

test('the fake has QEMU’s manners: refusals, job events and roots are the same', async (t) => {
  for (const qemu of testQemus()) {
    const directory = await mkdtemp(join(tmpdir(), 'ferry-manners-'));
    try {
      const real = await onReal(qemu, directory);
      const fake = await onFake(directory);
      // The fake has the words of 7.2; of another version what was done and what refused is compared.
      const told = real.version === '7.2' ? (text: string) => text : withoutWords;
      assert.deepEqual(fake.outcomes.map(told), real.outcomes.map(told));
      assert.deepEqual(fake.events, real.events);
      t.diagnostic(
        `${qemu.name}: ${real.outcomes.length} outcomes and ${real.events.length} events`,
      );
      assert.ok(real.events.length > 40, 'the jobs have run');
    } finally {
      await rm(directory, { recursive: true });
    }
  }
});

test('a real QEMU: the schema is cached, a second client is told, reconnecting works', async () => {
  for (const qemu of testQemus()) {
    const directory = await mkdtemp(join(tmpdir(), 'ferry-monitor-'));
    try {
      await using process = await start(qemu, directory, ['-M', 'none', '-nodefaults']);
      const cache = { directory: join(directory, 'cache'), binary: qemu.system };
      const options = { path: process.path, schemaCache: cache, greetingTimeoutMs: 20_000 };
      const first = await connect(options);
      assert.equal((await readdir(cache.directory)).length, 1);
      assert.equal(first.oob, true);
      const busy = connect({ ...options, greetingTimeoutMs: 100 });
      await assert.rejects(busy, /monitor busy/);

      const size = 2n ** 40n;
      await first.execute('blockdev-add', { driver: 'null-co', 'node-name': 'n', size });
      await first[Symbol.asyncDispose]();
      await using second = await connect(options);
      const [node] = await second.execute('query-named-block-nodes', { flat: true });
      assert.equal(node?.image['virtual-size'], size);
      assert.deepEqual(second.schema.entities.size, first.schema.entities.size);
      await second.execute('quit', {});
      assert.equal((await second.closed).by, 'qemu');
    } finally {
      await rm(directory, { recursive: true });
    }
  }
});

/** Through a mirrored snapshot, its pivot, and commits, with everything refused on the way. */
function steps(at: Paths): readonly Step[] {
  return [...mirrored(at), ...cancelledAndPivoted(at), ...committed(at)];
}

function mirrored(at: Paths): readonly Step[] {
  const node = nodesIn(at);
  return [
    ['blockdev-add', node('x', 'base')],
    ['blockdev-add', node('x', 'nosuch', null)],
    ['blockdev-add', node('d0', 'other')],
    ['blockdev-add', node('x', 't1')],
    ['blockdev-add', { driver: 'qcow2', 'node-name': 'x', file: 'nonode' }],
    ['blockdev-add', node('x', 't1', 'nonode')],
    ['blockdev-add', { driver: 'qcow2', 'node-name': 'x', file: { driver: 'file' } }],
    ['blockdev-del', { 'node-name': 'd0' }],
    ['blockdev-del', { 'node-name': 'd0-f' }],
    ['blockdev-del', { 'node-name': 'nope' }],
    ['no-such-command', {}],
    ['blockdev-add', node('s0', 's0', null)],
    ['transaction', snapshot('nope', 's0')],
    ['transaction', snapshot('d0', 'nope')],
    ['transaction', snapshot('d0', 'd0')],
    ['blockdev-add', node('w0', 't1', 'd0')],
    ['transaction', snapshot('d0', 's0')],
    ['blockdev-del', { 'node-name': 'w0' }],
    ['transaction', snapshot('d0', 's0')],
    ['blockdev-add', node('m0', 'm0', 'd0')],
    ['blockdev-mirror', mirror('j0', 's0', 'nope', 'f0')],
    ['blockdev-mirror', mirror('j0', 's0', 'd0', 'f0')],
    ['blockdev-mirror', mirror('j0', 'd0', 'm0', 'f0')],
    ['blockdev-mirror', mirror('j0', 's0', 'm0', 'f0'), 'j0', 'ready'],
    ['blockdev-mirror', mirror('j1', 's0', 'm0', 'f1')],
    ['blockdev-del', { 'node-name': 's0' }],
    ['blockdev-del', { 'node-name': 'm0' }],
    ['blockdev-del', { 'node-name': 'f0' }],
    ['transaction', snapshot('s0', 'other')],
    ['block-stream', { 'job-id': 'st', device: 's0' }],
    ['block-commit', { 'job-id': 'cm', device: 's0' }],
    ['job-finalize', { id: 'j0' }],
    ['job-dismiss', { id: 'j0' }],
    ['block-job-resume', { device: 'j0' }],
    ['job-complete', { id: 'zz' }],
    ['block-job-cancel', { device: 'zz' }],
    ['change-backing-file', { device: 'm0', 'image-node-name': 'm0', 'backing-file': at('other') }],
    ['block-job-pause', { device: 'j0' }, 'j0', 'standby'],
    ['block-job-pause', { device: 'j0' }],
    ['block-job-resume', { device: 'j0' }, 'j0', 'ready'],
  ];
}

function cancelledAndPivoted(at: Paths): readonly Step[] {
  const node = nodesIn(at);
  return [
    // A soft cancel ends with a consistent target; it too has to be finalized.
    ['block-job-cancel', { device: 'j0' }, 'j0', 'pending'],
    ['job-complete', { id: 'j0' }],
    ['job-finalize', { id: 'j0' }, 'j0', 'concluded'],
    ['job-cancel', { id: 'j0' }],
    ['blockdev-mirror', mirror('j0', 's0', 'm0', 'f0')],
    ['job-dismiss', { id: 'j0' }],
    ['job-dismiss', { id: 'j0' }],
    ['blockdev-mirror', mirror('j0', 's0', 'm0', 'f0'), 'j0', 'ready'],
    ['job-cancel', { id: 'j0' }, 'j0', 'concluded'],
    ['job-dismiss', { id: 'j0' }],
    // Cancelled in pending.
    ['blockdev-mirror', mirror('j0', 's0', 'm0', 'f0'), 'j0', 'ready'],
    ['job-complete', { id: 'j0' }, 'j0', 'pending'],
    ['block-job-cancel', { device: 'j0' }, 'j0', 'concluded'],
    ['job-dismiss', { id: 'j0' }],
    // The pivot, with a swing of the backing.
    ['blockdev-mirror', mirror('j0', 's0', 'm0', 'f0'), 'j0', 'ready'],
    ['blockdev-add', { ...node('b0', 'other', null), 'read-only': true }],
    ['blockdev-reopen', { options: [{ ...node('m0', 'm0', 'nope'), file: 'm0-f' }] }],
    ['blockdev-reopen', { options: [{ ...node('m0', 'm0'), file: 'm0-f' }] }],
    ['blockdev-reopen', { options: [{ ...node('zz', 'm0', null), file: 'm0-f' }] }],
    ['blockdev-reopen', { options: [{ ...node('m0', 'm0', 'b0'), file: 'm0-f' }] }],
    ['job-complete', { id: 'j0' }, 'j0', 'pending'],
    ['job-finalize', { id: 'j0' }, 'j0', 'concluded'],
    ['change-backing-file', { device: 'm0', 'image-node-name': 'm0', 'backing-file': at('other') }],
    ['job-dismiss', { id: 'j0' }],
    ['blockdev-del', { 'node-name': 'd0' }],
    ['blockdev-del', { 'node-name': 's0' }],
    ['blockdev-del', { 'node-name': 'd0' }],
    ['blockdev-del', { 'node-name': 'd0-f' }],
  ];
}

function committed(at: Paths): readonly Step[] {
  const node = nodesIn(at);
  return [
    // An active commit, an inner one, a stream.
    ['blockdev-add', node('t1', 't1', null)],
    ['transaction', snapshot('m0', 't1')],
    ['block-commit', { 'job-id': 'c0', device: 't1', 'base-node': 'm0', ...ours }, 'c0', 'ready'],
    ['job-complete', { id: 'c0' }, 'c0', 'pending'],
    ['job-finalize', { id: 'c0' }, 'c0', 'concluded'],
    ['job-dismiss', { id: 'c0' }],
    ['blockdev-del', { 'node-name': 't1' }],
    ['blockdev-add', node('t1', 't1', null)],
    ['transaction', snapshot('m0', 't1')],
    [
      'block-commit',
      { 'job-id': 'c1', device: 't1', 'top-node': 'm0', 'base-node': 'b0', ...ours },
      'c1',
      'pending',
    ],
    ['job-finalize', { id: 'c1' }, 'c1', 'concluded'],
    ['job-dismiss', { id: 'c1' }],
    ['blockdev-del', { 'node-name': 'm0' }],
    ['block-stream', { 'job-id': 'st', device: 't1', ...ours }, 'st', 'pending'],
    ['job-finalize', { id: 'st' }, 'st', 'concluded'],
    ['job-dismiss', { id: 'st' }],
    ['blockdev-del', { 'node-name': 'b0' }],
  ];
}

type Paths = (name: string) => string;

const nodesIn =
  (at: Paths) =>
  (name: string, image: string, backing?: string | null): JsonObject => ({
    driver: 'qcow2',
    'node-name': name,
    ...(backing === undefined ? {} : { backing }),
    file: { driver: 'file', 'node-name': `${name}-f`, filename: at(image) },
  });

const mirror = (id: string, device: string, target: string, filter: string): JsonObject => ({
  ...{ 'job-id': id, device, target, sync: 'top', 'filter-node-name': filter },
  ...{ 'on-target-error': 'stop', ...ours },
});

const snapshot = (base: string, overlay: string): JsonObject => ({
  actions: [{ type: 'blockdev-snapshot', data: { node: base, overlay } }],
});

const withoutWords = (outcome: string): string => outcome.replace(/: (\w+): .*; /, ': $1; ');

interface Account {
  readonly version: string;
  readonly outcomes: readonly string[];
  readonly events: readonly string[];
}

async function onReal(qemu: TestQemu, directory: string): Promise<Account> {
  const path = (name: string): string => join(directory, name);
  const create = async (...args: readonly string[]): Promise<unknown> =>
    await promisify(execFile)(qemu.img, ['create', '-q', '-f', 'qcow2', ...args]);
  for (const name of images) {
    const backing =
      name === 'base' || name === 'other' ? [] : ['-u', '-b', path('base'), '-F', 'qcow2'];
    await create(...backing, path(name), '1M');
  }
  const disk = {
    driver: 'qcow2',
    'node-name': 'd0',
    file: { driver: 'file', 'node-name': 'd0-f', filename: path('base') },
  };
  const machine = ['-M', 'pc', '-m', '32', '-S', '-nodefaults'];
  const device = ['-device', 'virtio-blk-pci,drive=d0,id=vda'];
  await using process = await start(qemu, directory, [
    ...machine,
    '-blockdev',
    JSON.stringify(disk),
    ...device,
  ]);
  await using monitor = await connect({ path: process.path, greetingTimeoutMs: 20_000 });
  return await play(monitor, steps(path), directory);
}

async function onFake(directory: string): Promise<Account> {
  const storage = new FakeStorage();
  const path = (name: string): string => join(directory, name);
  for (const name of images) {
    const backing =
      name === 'base' || name === 'other'
        ? null
        : ({ path: path('base'), format: 'qcow2' } as const);
    await storage.create({ path: path(name), format: 'qcow2', sizeBytes: 1024n * 1024n, backing });
  }
  const file = { driver: 'file', 'node-name': 'd0-f', filename: path('base') } as const;
  const qemu = new FakeQemu({
    storage,
    state: 'prelaunch',
    blockdevs: [{ driver: 'qcow2', 'node-name': 'd0', file }],
    disks: { '/machine/peripheral/vda/virtio-backend': 'd0' },
  });
  await using monitor = await qemu.connect();
  return await play(monitor, steps(path), directory);
}

async function play(
  monitor: Monitor,
  script: readonly Step[],
  directory: string,
): Promise<Account> {
  const outcomes: string[] = [];
  const events: string[] = [];
  using _ = monitor.onEvent(({ event, data }) => {
    // A drain makes ready jobs flap; how often is nobody's business.
    if (data['status'] === 'standby' || data['status'] === 'ready') return;
    if (event !== 'JOB_STATUS_CHANGE') events.push(`${event} ${String(data['error'] ?? '')}`);
    else events.push(`${String(data['id'])} ${String(data['status'])}`);
  });
  for (const [command, args, job, status] of script) {
    const outcome = await monitor.executeRaw(command, args).then(
      () => 'done',
      (error: unknown) => {
        if (!(error instanceof CommandError) || error.reply === null) throw error;
        return `${error.reply.class}: ${error.reply.desc}`;
      },
    );
    if (job !== undefined && status !== undefined) await waitJob(monitor, job, [status], 20_000);
    const roots = await monitor.execute('query-block', {});
    const root = roots
      .map((one) => `${one.qdev ?? ''}=${one.inserted?.['node-name'] ?? ''}`)
      .join();
    outcomes.push(`${command}: ${outcome.replaceAll(directory, '')}; ${root}`);
  }
  const { major, minor } = monitor.version.qemu;
  return { version: `${major}.${minor}`, outcomes, events };
}

interface Process extends AsyncDisposable {
  readonly path: string;
}

async function start(qemu: TestQemu, directory: string, args: readonly string[]): Promise<Process> {
  const path = join(directory, 'qmp.sock');
  const monitor = ['-display', 'none', '-qmp', `unix:${path},server=on,wait=off`];
  const child = spawn(qemu.system, [...args, ...monitor], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const ended = once(child, 'exit');
  await until(async () => (await readdir(directory)).includes('qmp.sock') || null, 20_000, path);
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
