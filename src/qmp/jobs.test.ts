import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Commands, EventName } from '../qapi/types.js';
import { BusyError } from '../std/errors.js';
import { FakeQemu } from '../../test/fake/qemu.js';
import { FakeStorage } from '../../test/fake/storage.js';
import { EventHub } from './hub.js';
import { waitJob, waitJobs, type JobMonitor } from './jobs.js';
import { firstEvent, type Monitor } from './monitor.js';

test('a job that is there already needs no event', async () => {
  const { monitor } = await mirroring();
  await waitJob(monitor, 'j', ['ready'], 1000);
  await waitJob(monitor, 'j', ['ready', 'standby'], 1000);
});

test('a job that was never started, or is dismissed, ends the waiting', async () => {
  const { monitor } = await mirroring();
  await assert.rejects(waitJob(monitor, 'nope', ['ready'], 1000), { qmpClass: 'JobGone' });
  await monitor.execute('job-cancel', { id: 'j' });
  const both = waitJobs(monitor, ['j', 'nope'], ['concluded', 'null'], 1000);
  assert.equal((await both).get('j')?.info.error, 'Operation canceled');
});

test('a job that failed ends the waiting for ready, with its error', async () => {
  const { monitor, qemu } = await mirroring();
  qemu.hold('j');
  const ready = waitJob(monitor, 'j', ['pending'], 1000);
  await monitor.execute('job-cancel', { id: 'j' });
  await assert.rejects(ready, { qmpClass: 'JobFailed', message: /concluded: Operation canceled/ });
});

test('too late is an error that tells status and io-status of each job', async () => {
  const { monitor, qemu } = await mirroring();
  await waitJob(monitor, 'j', ['ready'], 1000);
  qemu.setHealth('/m', 'nospace');
  qemu.storage.put(imageAt(qemu.storage, '/s'), 0, 1, () => 0);
  qemu.machine.jobs.get('j')?.spec.dirty.add(0);
  qemu.machine.pump();
  await waitJob(monitor, 'j', ['standby'], 1000);
  await assert.rejects(waitJob(monitor, 'j', ['pending'], 20), (error: unknown) => {
    assert.ok(error instanceof BusyError);
    assert.match(error.message, /j is standby \(io-status nospace\)/);
    return true;
  });
});

test('the death of QEMU ends the waiting', async () => {
  const { monitor, qemu } = await mirroring();
  qemu.hold('j');
  const waiting = waitJob(monitor, 'j', ['ready'], 1000);
  qemu.kill();
  await assert.rejects(waiting, { qmpClass: 'Gone' });
});

test('dozens of flapping events cost a look or two, not dozens', async () => {
  const hub = new EventHub();
  let looks = 0;
  let status: 'running' | 'ready' = 'running';
  const info = (): Commands['query-jobs']['reply'] => [
    { id: 'j', type: 'mirror', status, 'current-progress': 0n, 'total-progress': 0n },
  ];
  const answers: Readonly<Record<string, () => unknown>> = {
    'query-jobs': () => (looks++, info()),
    'query-block-jobs': () => [],
  };
  const monitor = {
    // Only what waiting asks, so the reply fits the command.
    execute: (async (command: string) => answers[command]?.()) as JobMonitor['execute'],
    events: <E extends EventName>(names: E | readonly E[]) => hub.events(names),
  };
  const waiting = waitJob(monitor, 'j', ['ready'], 1000);
  await new Promise(setImmediate);
  status = 'ready';
  const timestamp = { seconds: 0, microseconds: 0 };
  for (let n = 0; n < 50; n++)
    hub.emit({ event: 'JOB_STATUS_CHANGE', data: { id: 'j', status: 'standby' }, timestamp });
  await waiting;
  assert.ok(looks <= 3, `${looks} looks`);
});

test('firstEvent takes the event that is meant and no other, and has an end', async () => {
  const hub = new EventHub();
  using changes = hub.events('JOB_STATUS_CHANGE');
  const timestamp = { seconds: 0, microseconds: 0 };
  for (const status of ['created', 'running', 'ready'])
    hub.emit({ event: 'JOB_STATUS_CHANGE', data: { id: 'j', status }, timestamp });
  const found = await firstEvent(changes, ({ data }) => data.status === 'running', 1000);
  assert.equal(found.data.status, 'running');
  await assert.rejects(
    firstEvent(changes, () => false, 10),
    BusyError,
  );
});

/** One disk under -S, with a mirror job 'j' from /s to /m. */
async function mirroring(): Promise<{ monitor: Monitor; qemu: FakeQemu }> {
  const storage = new FakeStorage();
  for (const path of ['/s', '/m'])
    await storage.create({ path, format: 'qcow2', sizeBytes: 1024n * 1024n, backing: null });
  const node = (name: string, filename: string) =>
    ({
      driver: 'qcow2',
      'node-name': name,
      backing: null,
      file: { driver: 'file', filename },
    }) as const;
  const blockdevs = [node('s', '/s'), node('m', '/m')];
  const qemu = new FakeQemu({ storage, state: 'prelaunch', blockdevs, disks: { vda: 's' } });
  const monitor = await qemu.connect();
  await monitor.execute('blockdev-mirror', {
    ...{ 'job-id': 'j', device: 's', target: 'm', sync: 'top', 'filter-node-name': 'f' },
    ...{ 'on-target-error': 'stop', 'auto-finalize': false, 'auto-dismiss': false },
  });
  return { monitor, qemu };
}

function imageAt(storage: FakeStorage, path: string) {
  const image = storage.files.get(path);
  assert.ok(image);
  return image;
}
