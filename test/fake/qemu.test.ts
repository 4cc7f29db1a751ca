import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { BlockdevOptions } from '../../src/qapi/blockdev.js';
import type { CommandName, MirrorArgs } from '../../src/qapi/types.js';
import { waitJob, waitJobs, type Monitor } from '../../src/qmp/monitor.js';
import { FakeGuest } from './guest.js';
import { FakeQemu, type FakeQemuOptions } from './qemu.js';
import { FakeStorage } from './storage.js';

const MiB = 1024n * 1024n;
const vda = '/machine/peripheral/vda/virtio-backend';
const vdb = '/machine/peripheral/vdb/virtio-backend';

test('a mirrored snapshot of two disks ends on the destination, and no write is lost', async () => {
  const world = await mirroredWorld();
  await pivot(world);
  assert.equal(world.qemu.rootOf(vda), 'ma');
  assert.equal(world.qemu.rootOf(vdb), 'mb');
  await world.monitor.execute('blockdev-del', { 'node-name': 'sa' });

  assert.deepEqual(problems(world, '/dst'), []);
  assert.deepEqual(world.storage.rudeness, []);
  assert.deepEqual(world.qemu.leftovers().jobs, []);
});

test('a crash inside the pause leaves source and destination complete', async () => {
  for (const moment of ['stop', 'job-complete', 'job-finalize'] as const) {
    const world = await mirroredWorld({ dieAfter: moment });
    await pivot(world).catch(() => undefined);
    assert.equal(world.qemu.alive, false, `${moment} was reached`);
    assert.deepEqual(problems(world, '/src'), [], `source after ${moment}`);
    // Until the jobs are pending the destination may still lack what the mirror had not copied.
    if (moment === 'job-finalize') assert.deepEqual(problems(world, '/dst'), []);
  }
});

test('a crash while the mirror is ready leaves the source whole and the destination not', async () => {
  const world = await mirroredWorld();
  for (let n = 0; n < 200; n++) await world.monitor.execute('query-status', {});
  world.qemu.kill('none');
  assert.deepEqual(problems(world, '/src'), []);
  assert.notDeepEqual(problems(world, '/dst'), []);
});

test('a pivot of a running guest is recorded as rude, and a crash then loses writes on the source', async () => {
  const world = await mirroredWorld();
  await world.monitor.execute('job-complete', { id: 'ja' });
  await waitJob(world.monitor, 'ja', ['pending'], 1000);
  await world.monitor.execute('job-finalize', { id: 'ja' });
  for (let n = 0; n < 60; n++) await world.monitor.execute('query-status', {});
  world.qemu.kill();
  assert.notDeepEqual(problems(world, '/src'), []);
  assert.match(world.storage.rudeness.join('\n'), /job-complete ja while the guest runs/);
});

test('write-blocking into an overlay without its backing corrupts it, and is recorded as rude', async () => {
  const world = await mirroredWorld({ backing: null, copyMode: 'write-blocking' });
  for (let n = 0; n < 100; n++) await world.monitor.execute('query-status', {});
  await pivot(world);
  assert.notDeepEqual(problems(world, '/dst'), []);
  assert.match(world.storage.rudeness.join('\n'), /opened without its backing/);
});

test('write-blocking into an overlay with its backing loses nothing', async () => {
  const world = await mirroredWorld({ copyMode: 'write-blocking' });
  for (let n = 0; n < 100; n++) await world.monitor.execute('query-status', {});
  await pivot(world);
  assert.deepEqual(problems(world, '/dst'), []);
});

test('a target that holds data of its own is recorded as rude', async () => {
  const world = await mirroredWorld({ dirtyTarget: true });
  assert.match(world.storage.rudeness.join('\n'), /has clusters of its own/);
});

test('a full target pauses the job, the guest runs on, and a resume brings it to ready', async () => {
  const world = await mirroredWorld();
  world.qemu.setHealth('/dst/snapa', 'nospace');
  using errors = world.monitor.events('BLOCK_JOB_ERROR');
  for (let n = 0; n < 5; n++) await world.monitor.execute('query-status', {});
  await errors.next();
  const before = world.guest.writes;
  const [job] = await world.monitor.execute('query-block-jobs', {});
  assert.equal(job?.['io-status'], 'nospace');
  assert.equal(job.status, 'standby');
  assert.ok(world.guest.writes > before);

  world.qemu.setHealth('/dst/snapa', 'ok');
  await world.monitor.execute('block-job-resume', { device: 'ja' });
  await waitJob(world.monitor, 'ja', ['ready'], 1000);
});

test('stop towards a hung target does not answer, and killing QEMU ends the waiting', async () => {
  const world = await mirroredWorld();
  world.qemu.setHealth('/dst/snapa', 'hung');
  const stopped = world.monitor.execute('stop', {});
  await assert.rejects(world.monitor.execute('stop', {}, { timeoutMs: 5 }), {
    qmpClass: 'NoAnswer',
  });
  world.qemu.kill();
  await assert.rejects(stopped, { qmpClass: 'Gone' });
  assert.equal((await world.monitor.closed).by, 'qemu');
});

test('active commit moves the root down and loses nothing', async () => {
  const world = await mirroredWorld();
  await cancelAll(world, 'job-cancel');
  await world.monitor.execute('block-commit', {
    'job-id': 'ca',
    device: 'sa',
    'base-node': 'da',
    'filter-node-name': 'fc',
    ...ours,
  });
  await waitJob(world.monitor, 'ca', ['ready'], 1000);
  await world.monitor.execute('stop', {});
  await world.monitor.execute('job-complete', { id: 'ca' });
  await waitJob(world.monitor, 'ca', ['pending'], 1000);
  await world.monitor.execute('job-finalize', { id: 'ca' });
  await world.monitor.execute('cont', {});
  await world.monitor.execute('job-dismiss', { id: 'ca' });
  assert.equal(world.qemu.rootOf(vda), 'da');
  assert.deepEqual(
    world.guest.problems(vda, (block) => world.storage.read('/src/basea', block), 'exact'),
    [],
  );
  assert.deepEqual(world.storage.rudeness, []);
});

test('an inner commit and a stream keep every write and rewrite the headers', async () => {
  const world = await mirroredWorld();
  await cancelAll(world, 'job-cancel');
  const { monitor, storage } = world;
  await storage.create({
    path: '/src/top',
    format: 'qcow2',
    sizeBytes: MiB,
    backing: { path: '/src/snapa', format: 'qcow2' },
  });
  await monitor.execute('blockdev-add', disk('ta', '/src/top', null));
  await monitor.execute('transaction', {
    actions: [{ type: 'blockdev-snapshot', data: { node: 'sa', overlay: 'ta' } }],
  });
  for (let n = 0; n < 40; n++) await monitor.execute('query-status', {});

  await monitor.execute('block-commit', {
    'job-id': 'ca',
    device: 'ta',
    'top-node': 'sa',
    'base-node': 'da',
    'backing-file': '/src/basea',
    ...ours,
  });
  await waitJob(monitor, 'ca', ['pending'], 1000);
  await monitor.execute('job-finalize', { id: 'ca' });
  await monitor.execute('job-dismiss', { id: 'ca' });
  await monitor.execute('blockdev-del', { 'node-name': 'sa' });
  assert.equal((await storage.info('/src/top'))?.backing?.path, '/src/basea');
  const read = (block: number): number => storage.read('/src/top', block);
  assert.deepEqual(world.guest.problems(vda, read, 'exact'), []);

  await monitor.execute('block-stream', { 'job-id': 'st', device: 'ta', ...ours });
  await waitJob(monitor, 'st', ['pending'], 1000);
  await monitor.execute('job-finalize', { id: 'st' });
  await monitor.execute('job-dismiss', { id: 'st' });
  await monitor.execute('blockdev-del', { 'node-name': 'da' });
  assert.equal((await storage.info('/src/top'))?.backing, null);
  assert.deepEqual(world.guest.problems(vda, read, 'exact'), []);
});

test('a soft cancel of a ready mirror leaves a consistent target and the root in place', async () => {
  const world = await mirroredWorld();
  await world.monitor.execute('stop', {});
  await world.monitor.execute('block-job-cancel', { device: 'ja' });
  await waitJob(world.monitor, 'ja', ['pending'], 1000);
  await world.monitor.execute('job-finalize', { id: 'ja' });
  const job = await waitJob(world.monitor, 'ja', ['concluded'], 1000);
  assert.equal(job.info.error, undefined);
  assert.equal(world.qemu.rootOf(vda), 'sa');
  assert.deepEqual(
    world.guest.problems(vda, (block) => world.storage.read('/dst/snapa', block), 'exact'),
    [],
  );
});

test('a guest that boots after a crash goes on from what is there', async () => {
  const world = await mirroredWorld();
  world.qemu.kill('none');
  for (const [device, name] of pairs)
    world.guest.reboot(device, (block) => world.storage.read(`/src/snap${name}`, block));
  const next = new FakeQemu({
    storage: world.storage,
    guest: world.guest,
    state: 'prelaunch',
    blockdevs: [disk('n1', '/src/snapa'), disk('n2', '/src/snapb')],
    disks: { [vda]: 'n1', [vdb]: 'n2' },
  });
  const monitor = await next.connect();
  const before = world.guest.writes;
  await monitor.execute('query-status', {});
  assert.equal(world.guest.writes, before, 'a guest under -S writes nothing');
  await monitor.execute('cont', {});
  for (let n = 0; n < 50; n++) await monitor.execute('query-status', {});
  await monitor.execute('quit', {});
  assert.deepEqual(problems(world, '/src'), []);
});

test('what is open cannot be removed, renamed or copied over, and trying is rude', async () => {
  const world = await mirroredWorld();
  const { storage } = world;
  await assert.rejects(storage.remove('/src/snapa'), /it is open/);
  await assert.rejects(storage.rename('/src/basea', '/x'), /it is open/);
  await assert.rejects(storage.copy({ from: '/src/snapa', to: '/x' }), /it is open/);
  await assert.rejects(storage.copy({ from: '/src/basea', to: '/dst/snapa' }), /it is open/);
  assert.equal(storage.rudeness.length, 4);
});

test('another process cannot open what one writes', async () => {
  const world = await mirroredWorld();
  const open = (): unknown =>
    new FakeQemu({ storage: world.storage, blockdevs: [disk('x', '/src/snapa')], disks: {} });
  assert.throws(open, /Failed to get "write" lock/);
  world.qemu.kill();
  assert.doesNotThrow(open);
});

test('a write to a sealed layer is rude', async () => {
  const world = await mirroredWorld();
  world.storage.seal('/src/snapa', 'the canary says so');
  for (let n = 0; n < 4; n++) await world.monitor.execute('query-status', {});
  assert.match(world.storage.rudeness[0] ?? '', /sealed: the canary says so/);
});

test('a transaction that fails half-way changes nothing', async () => {
  const world = await mirroredWorld();
  await cancelAll(world, 'job-cancel');
  const { monitor, storage } = world;
  await storage.create({ path: '/src/t', format: 'qcow2', sizeBytes: MiB, backing: null });
  await monitor.execute('blockdev-add', disk('t', '/src/t', null));
  const actions = [
    { type: 'blockdev-snapshot', data: { node: 'sa', overlay: 't' } },
    { type: 'blockdev-snapshot', data: { node: 'sb', overlay: 'nope' } },
  ] as const;
  await assert.rejects(monitor.execute('transaction', { actions }), /nope/);
  assert.equal(world.qemu.rootOf(vda), 'sa');
  await monitor.execute('blockdev-del', { 'node-name': 't' });
});

test('an overlay smaller than its base is taken, as QEMU takes it, and recorded as rude', async () => {
  const storage = new FakeStorage();
  await storage.create({ path: '/a', format: 'qcow2', sizeBytes: 2n * MiB, backing: null });
  await storage.create({ path: '/b', format: 'qcow2', sizeBytes: MiB, backing: null });
  const monitor = await new FakeQemu({
    storage,
    blockdevs: [disk('a', '/a'), disk('b', '/b')],
    disks: { [vda]: 'a' },
  }).connect();
  await monitor.execute('blockdev-snapshot', { node: 'a', overlay: 'b' });
  assert.match(storage.rudeness[0] ?? '', /law 6/);
});

test('every query answers by its schema, on both recorded versions', async () => {
  const queries = [
    'query-status',
    'query-block',
    'query-named-block-nodes',
    'query-blockstats',
    'query-jobs',
    'query-block-jobs',
    'x-debug-query-block-graph',
    'query-version',
    'query-kvm',
    'query-target',
  ] as const satisfies readonly CommandName[];
  for (const version of ['7.2.22', '10.0.2'] as const) {
    const world = await mirroredWorld({ version });
    // perform() throws when a reply does not fit.
    for (const query of queries) await world.monitor.execute(query, {});
  }
});

test('a second client is told that the monitor is busy, until the first leaves', async () => {
  const world = await mirroredWorld();
  await assert.rejects(world.qemu.connect(), /monitor busy/);
  await world.monitor[Symbol.asyncDispose]();
  await (await world.qemu.connect()).execute('query-status', {});
});

const pairs = [
  [vda, 'a'],
  [vdb, 'b'],
] as const;
const ours = { 'auto-finalize': false, 'auto-dismiss': false } as const;

interface World {
  readonly storage: FakeStorage;
  readonly guest: FakeGuest;
  readonly qemu: FakeQemu;
  readonly monitor: Monitor;
}

interface Variation {
  readonly backing?: null;
  readonly copyMode?: MirrorArgs['copy-mode'];
  readonly dirtyTarget?: boolean;
  readonly dieAfter?: string;
  readonly version?: FakeQemuOptions['version'];
}

/** Two disks with a snapshot each, mirrored to /dst and ready; the bases are copied. */
async function mirroredWorld(vary: Variation = {}): Promise<World> {
  const storage = new FakeStorage();
  const guest = new FakeGuest([vda, vdb]);
  for (const [, name] of pairs)
    await storage.create({
      path: `/src/base${name}`,
      format: 'qcow2',
      sizeBytes: MiB,
      backing: null,
    });
  const qemu: FakeQemu = new FakeQemu({
    storage,
    guest,
    version: vary.version ?? '7.2.22',
    blockdevs: [disk('da', '/src/basea'), disk('db', '/src/baseb')],
    disks: { [vda]: 'da', [vdb]: 'db' },
    strike: (phase, command) => {
      if (phase === 'after' && command === vary.dieAfter) qemu.kill();
    },
  });
  const monitor = await qemu.connect();
  for (let n = 0; n < 50; n++) await monitor.execute('query-status', {});

  for (const [, name] of pairs) {
    const backing = { path: `/src/base${name}`, format: 'qcow2' } as const;
    for (const side of ['/src', '/dst'])
      await storage.create({
        path: `${side}/snap${name}`,
        format: 'qcow2',
        sizeBytes: MiB,
        backing,
      });
    await monitor.execute('blockdev-add', disk(`s${name}`, `/src/snap${name}`, null));
  }
  const actions = pairs.map(
    ([, name]) =>
      ({ type: 'blockdev-snapshot', data: { node: `d${name}`, overlay: `s${name}` } }) as const,
  );
  await monitor.execute('transaction', { actions });

  if (vary.dirtyTarget === true) storage.put(present(storage, '/dst/snapa'), 0, 999, () => 0);
  for (const [, name] of pairs) {
    const backing = vary.backing === null ? null : `d${name}`;
    await monitor.execute('blockdev-add', disk(`m${name}`, `/dst/snap${name}`, backing));
    await monitor.execute('blockdev-mirror', {
      'job-id': `j${name}`,
      device: `s${name}`,
      target: `m${name}`,
      sync: 'top',
      'copy-mode': vary.copyMode ?? 'background',
      'filter-node-name': `f${name}`,
      'on-target-error': 'stop',
      ...ours,
    });
  }
  await waitJobs(monitor, ['ja', 'jb'], ['ready'], 1000);
  return { storage, guest, qemu, monitor };
}

/** Law 4, in short. */
async function pivot({ monitor }: World): Promise<void> {
  const ids = ['ja', 'jb'];
  await monitor.execute('stop', {});
  for (const id of ids) await monitor.execute('job-complete', { id });
  await waitJobs(monitor, ids, ['pending'], 1000);
  for (const id of ids) await monitor.execute('job-finalize', { id });
  const jobs = await waitJobs(monitor, ids, ['concluded'], 1000);
  for (const job of jobs.values()) assert.equal(job.info.error, undefined);
  await monitor.execute('cont', {});
  for (const id of ids) await monitor.execute('job-dismiss', { id });
}

async function cancelAll({ monitor }: World, verb: 'job-cancel'): Promise<void> {
  for (const [, name] of pairs) {
    await monitor.execute(verb, { id: `j${name}` });
    await waitJob(monitor, `j${name}`, ['concluded'], 1000);
    await monitor.execute('job-dismiss', { id: `j${name}` });
    await monitor.execute('blockdev-del', { 'node-name': `m${name}` });
  }
}

const problems = ({ guest, storage }: World, side: string): readonly string[] =>
  pairs.flatMap(([device, name]) =>
    guest.problems(device, (block) => storage.read(`${side}/snap${name}`, block)),
  );

function disk(name: string, path: string, backing?: string | null): BlockdevOptions {
  const file = { driver: 'file', 'node-name': `${name}-f`, filename: path } as const;
  return {
    driver: 'qcow2',
    'node-name': name,
    ...(backing === undefined ? {} : { backing }),
    file,
  };
}

function present(storage: FakeStorage, path: string) {
  const image = storage.files.get(path);
  assert.ok(image);
  return image;
}
