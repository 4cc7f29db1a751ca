// Mirrors that fail on a real QEMU with a writing guest: after the snapshot transaction, and later. Design §4, law 11.

import assert from 'node:assert/strict';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { until } from '../../src/std/deadline.js';
import { Interposer, type Refuse } from '../lib/interposer.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { sources } from '../lib/mirrored.js';
import { run } from '../lib/process.js';
import { cannotMount, cannotServe, HangingFile, SmallStorage } from '../lib/storage.js';
import { verifyChains } from '../lib/verify.js';

const writer = { resume: 1 };
const targets = ['vda', 'vdb'];

interface Interposed {
  readonly guest: LabGuest;
  readonly qmp: Interposer;
}

/** A guest with two disks whose QEMU the daemon talks to by way of the interposer. */
async function interposed(lab: Lab): Promise<Interposed> {
  const first = await lab.ferryd();
  const guest = await lab.guest({ name: 'vm1', disks: 2, writer });
  await lab.mustVirsh('define', guest.xmlFile);
  await lab.mustVirsh('start', 'vm1');
  const uuid = (await lab.mustVirsh('domuuid', 'vm1')).trim();
  await guest.serial.waitAcked(200);
  await first.kill9();
  const qmp = await Interposer.open(join(lab.runDir, 'qemu', `${uuid}.qmp`));
  await lab.ferryd();
  return { guest, qmp };
}

async function snapshotFile(lab: Lab, named: readonly string[] = targets): Promise<string> {
  const disks = named.map(
    (target) =>
      `<disk name='${target}' snapshot='external'><source file='${join(lab.a, `${target}.snap`)}'/>` +
      `<mirror file='${join(lab.b, `${target}.snap`)}'/></disk>`,
  );
  const file = join(lab.directory, 'snapshot.xml');
  await writeFile(
    file,
    `<domainsnapshot><name>s1</name><disks>${disks.join('')}</disks></domainsnapshot>`,
  );
  return file;
}

async function nodes(lab: Lab): Promise<readonly string[]> {
  const query = '{"execute":"query-named-block-nodes","arguments":{"flat":true}}';
  const reply = JSON.parse(await lab.mustVirsh('qemu-monitor-command', 'vm1', query)) as {
    readonly return: readonly { readonly 'node-name': string }[]; // QAPI BlockDeviceInfo
  };
  return reply.return.map((node) => node['node-name']).toSorted();
}

async function nothingLost(lab: Lab, guest: LabGuest, images: readonly string[]): Promise<void> {
  await guest.serial.waitAcked(guest.serial.acked() + 300);
  await lab.mustVirsh('destroy', 'vm1');
  const acked = guest.serial.acked();
  const verdict = await verifyChains(images, { acked, state: 'crashed', writer });
  assert.ok(verdict.ok, JSON.stringify(verdict));
}

/** The mirror of the second disk is refused after the transaction is through. */
const secondMirror: Refuse = ({ execute, arguments: args }) =>
  execute === 'blockdev-mirror' && String(args['job-id']).includes('vdb')
    ? 'No space left on device (struck by the test)'
    : null;

test('the second mirror fails after the transaction: the first is cancelled, the new layers go back and away', async () => {
  await withLab('second-mirror', async (lab) => {
    const { guest, qmp } = await interposed(lab);
    await using _ = qmp;
    const [xml, open] = [await lab.mustVirsh('dumpxml', 'vm1'), await nodes(lab)];
    qmp.refuse = secondMirror;
    const refused = await lab.virsh('snapshot-create', 'vm1', await snapshotFile(lab));
    assert.match(refused.stderr, /blockdev-mirror: No space left on device \(struck by the test\)/);
    const executed = qmp.seen.map(({ execute }) => execute);
    assert.ok(executed.includes('transaction'), 'it came after the transaction');

    assert.equal(await lab.mustVirsh('dumpxml', 'vm1'), xml, 'as it was, byte for byte');
    assert.deepEqual(await nodes(lab), open);
    assert.equal((await lab.mustVirsh('snapshot-list', 'vm1', '--name')).trim(), '');
    assert.deepEqual(await readdir(lab.b), []);
    assert.deepEqual(
      (await readdir(lab.a)).toSorted(),
      guest.files.map((file) => file.replace(`${lab.a}/`, '')),
    );
    // Nothing stands in the way of the next one.
    qmp.refuse = () => null;
    await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab));
    await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--remove-mirror');
    await nothingLost(lab, guest, await sources(lab));
  });
});

/** Nor does QEMU take the second layer back. */
const noWayBack: Refuse = (command) =>
  command.execute === 'block-commit' && String(command.arguments['job-id']).startsWith('undo-')
    ? 'commit is refused (struck by the test)'
    : secondMirror(command);

/** The number of the operation that stays. */
async function halfDone(lab: Lab, { guest, qmp }: Interposed): Promise<string> {
  qmp.refuse = noWayBack;
  const refused = await lab.virsh('snapshot-create', 'vm1', await snapshotFile(lab));
  const [one, two] = targets.map((target, i) => `${lab.a}/${target}.snap over ${guest.files[i]}`);
  assert.match(refused.stderr, /No space left on device \(struck by the test\)/);
  const [, number = ''] = /'ferry ops resolve (\d+) --back'/.exec(refused.stderr) ?? [];
  assert.ok(
    refused.stderr.includes(
      `the new layers stay in use and nothing is lost: ${one}, ${two}; to collapse them`,
    ),
    refused.stderr,
  );
  const layers = targets.map((target) => join(lab.a, `${target}.snap`));
  assert.deepEqual(await sources(lab), layers);
  assert.match(await lab.mustFerry('ops'), /attention/);
  await guest.serial.waitAcked(guest.serial.acked() + 200);
  return number;
}

test('and when the way back fails too, the error says that the layers stay and how they go', async () => {
  await withLab('no-way-back', async (lab) => {
    const bench = await interposed(lab);
    await using qmp = bench.qmp;
    const [xml, open] = [await lab.mustVirsh('dumpxml', 'vm1'), await nodes(lab)];
    const number = await halfDone(lab, bench);
    // Nothing is built on top of what is half done.
    const second = await lab.virsh('snapshot-create-as', 'vm1', 's2', '--disk-only');
    assert.match(second.stderr, /operation is not valid: operation \d+ .* is half done and waits/);
    const move = await lab.ferry('move', 'vm1', 'vda', '--to', lab.b);
    assert.match(move.stderr, /is half done and waits for a person/);

    // What the error told to do.
    qmp.refuse = () => null;
    await lab.mustFerry('ops', 'resolve', number, '--back');
    const settled = async (): Promise<true | null> =>
      (await lab.mustFerry('ops', '--json')).trim() === '[]' ? true : null;
    await until(settled, 60_000, 'the layers are collapsed');
    assert.equal(await lab.mustVirsh('dumpxml', 'vm1'), xml);
    assert.deepEqual(await nodes(lab), open);
    assert.deepEqual(await readdir(lab.b), []);
    assert.equal((await readdir(lab.a)).length, 2, 'the layers are removed');
    await nothingLost(lab, bench.guest, await sources(lab));
  });
});

test('layers that stay are collapsed before the domain starts again', async () => {
  await withLab('collapse-at-start', async (lab) => {
    const bench = await interposed(lab);
    await using _ = bench.qmp;
    await halfDone(lab, bench);
    await lab.mustVirsh('destroy', 'vm1');
    await lab.mustVirsh('start', 'vm1');
    assert.deepEqual(await sources(lab), bench.guest.files);
    assert.deepEqual((await readdir(lab.a)).length, 2, 'the layers are removed');
    await bench.guest.serial.waitProgress();
    assert.deepEqual(bench.guest.serial.setbacks, []);
    await nothingLost(lab, bench.guest, await sources(lab));
  });
});

const monitorEvents = async (lab: Lab): Promise<readonly string[]> =>
  (await lab.mustFerry('events', '--after', '0', '--json'))
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { event: Record<string, string> }).event) // our own CLI
    .filter(({ type }) => type === 'monitor')
    .map((event) => `${event['event']} ${event['details']}`);

async function untilXml(lab: Lab, what: RegExp): Promise<void> {
  const look = async (): Promise<true | null> =>
    what.test(await lab.mustVirsh('dumpxml', 'vm1')) ? true : null;
  await until(look, 60_000, `XML has ${what}`);
}

const toldStalled = async (lab: Lab): Promise<string> =>
  await until(
    async () => {
      const chain = await lab.mustFerry('chain', 'vm1');
      return chain.includes('STANDS STILL') ? chain : null;
    },
    60_000,
    'the mirror stands still',
  );

const options = { skip: cannotMount };

test(
  'a full destination stops the copy, not the guest; it goes on by itself when there is room',
  options,
  async () => {
    await withLab('full', async (lab) => {
      await using storage = await SmallStorage.mount(lab.b, 2);
      await lab.ferryd();
      const guest = await lab.guest({ name: 'vm1', disks: 1, writer });
      await lab.mustVirsh('define', guest.xmlFile);
      await lab.mustVirsh('start', 'vm1');
      await guest.serial.waitAcked(200);
      await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab, ['vda']));

      const chain = await toldStalled(lab);
      assert.match(chain, /STANDS STILL after .*, the guest runs on: no space left .* make room/);
      await guest.serial.waitProgress(500);
      assert.match(await lab.mustVirsh('domstate', 'vm1', '--reason'), /running/);
      assert.match(
        await lab.mustVirsh('dumpxml', 'vm1'),
        /<mirror .*ready='no'|<mirror (?!.*ready)/,
      );
      assert.doesNotMatch((await lab.virsh('blockjob', 'vm1', 'vda', '--info')).stderr, /100 %/);
      const refused = await lab.ferry('snapshot-delete', 'vm1', 's1', '--reopen-mirror');
      assert.match(
        refused.stderr,
        /mirror of disk 'vda' stands still \(no space\) and is not in step/,
      );
      assert.equal(refused.code, 4);

      // A daemon that comes later sees it too, and looks after it.
      await lab.daemons.at(-1)?.kill9();
      await lab.ferryd();
      await toldStalled(lab);
      await storage.resize(512);
      await untilXml(lab, /ready='yes'/);
      assert.doesNotMatch(await lab.mustFerry('chain', 'vm1'), /STANDS STILL/);
      const events = await monitorEvents(lab);
      assert.deepEqual(
        events.map((event) => event.split(' ')[0]),
        ['MIRROR_PAUSED', 'MIRROR_RESUMED'],
      );
      assert.match(events[0] ?? '', /"reason":"no space"/);

      await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--reopen-mirror');
      const [live = ''] = await sources(lab);
      assert.equal(live, join(lab.b, 'vda.snap'));
      await nothingLost(lab, guest, [live]);
    });
  },
);

test(
  'a mirror that is READY when its destination runs full is not READY any more, and can be dropped',
  options,
  async () => {
    await withLab('full-later', async (lab) => {
      await using _ = await SmallStorage.mount(lab.b, 64);
      await lab.ferryd();
      const guest = await lab.guest({ name: 'vm1', disks: 1, writer });
      await lab.mustVirsh('define', guest.xmlFile);
      await lab.mustVirsh('start', 'vm1');
      await guest.serial.waitAcked(200);
      await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab, ['vda']));
      await untilXml(lab, /ready='yes'/);
      const filler = join(lab.b, 'filler');
      await fill(filler);
      await toldStalled(lab);
      await guest.serial.waitProgress(500);
      assert.doesNotMatch(await lab.mustVirsh('dumpxml', 'vm1'), /ready='yes'/);
      assert.match(
        (await lab.virsh('blockjob', 'vm1', 'vda', '--pivot')).stderr,
        /operation is not valid: the mirror of disk 'vda' stands still/,
      );

      await rm(filler);
      await untilXml(lab, /ready='yes'/);
      await fill(filler);
      await toldStalled(lab);
      await lab.mustVirsh('blockjob', 'vm1', 'vda', '--abort');
      assert.doesNotMatch(await lab.mustVirsh('dumpxml', 'vm1'), /<mirror/);
      await nothingLost(lab, guest, [join(lab.a, 'vda.snap')]);
    });
  },
);

/** Takes every byte that is left. */
async function fill(path: string): Promise<void> {
  const { code, stderr } = await run('/bin/dd', ['if=/dev/zero', `of=${path}`, 'bs=64k']);
  assert.notEqual(code, 0);
  assert.match(stderr, /No space left/);
}

test(
  'a destination that hangs holds nobody: what would stand still with it is refused, and later all goes on',
  { skip: cannotServe },
  async () => {
    await withLab('hangs', async (lab) => {
      await lab.ferryd();
      const guest = await lab.guest({ name: 'vm1', disks: 1, writer });
      await lab.mustVirsh('define', guest.xmlFile);
      await lab.mustVirsh('start', 'vm1');
      await guest.serial.waitAcked(200);
      const [base = ''] = guest.files;
      const over = ['create', '-q', '-f', 'qcow2', '-u', '-b', base, '-F', 'qcow2'];
      await lab.qemuImg(...over, join(lab.a, 'vda.snap'), '128M');
      await lab.qemuImg(...over, join(lab.directory, 'served.qcow2'), '128M');
      await using target = await HangingFile.serve(
        join(lab.b, 'vda.snap'),
        join(lab.directory, 'served.qcow2'),
      );
      const file = await snapshotFile(lab, ['vda']);
      await lab.mustVirsh('snapshot-create', 'vm1', file, '--reuse-external');
      await untilXml(lab, /ready='yes'/);

      target.hang();
      const acked = guest.serial.acked();
      const refused = await Promise.all([
        lab.virsh('suspend', 'vm1'),
        lab.ferry('snapshot-delete', 'vm1', 's1', '--reopen-mirror'),
        lab.ferry('snapshot-delete', 'vm1', 's1', '--remove-mirror'),
      ]);
      for (const { code, stderr } of refused) {
        assert.notEqual(code, 0);
        assert.match(stderr, /the mirror of disk 'vda' does not answer: .* the guest runs on/);
      }
      assert.ok(guest.serial.acked() > acked + 200, 'the guest runs on');
      assert.match(await lab.mustVirsh('domstate', 'vm1'), /running/);

      target.heal();
      await lab.mustVirsh('suspend', 'vm1');
      await lab.mustVirsh('resume', 'vm1');
      await untilXml(lab, /ready='yes'/);
      await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--reopen-mirror');
      assert.deepEqual(await sources(lab), [target.path]);
      await nothingLost(lab, guest, [target.path]);
    });
  },
);
