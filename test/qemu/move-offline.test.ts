// `ferry move` of a domain that is shut off: what its guest wrote arrives whatever dies meanwhile, and nobody writes to
// what is being copied.

import assert from 'node:assert/strict';
import { readdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { imageNode } from '../lib/bare.js';
import { withLab, type Lab } from '../lib/lab.js';
import { endsWell, nothingLost, resuming, sources } from '../lib/mirrored.js';
import { beginMove, heavyGuest, operation } from '../lib/moves.js';
import { must, run } from '../lib/process.js';

/** A copy that lasts as long as a test wants. */
const slowly = ['--bandwidth', '1M'];

const holders = async (lab: Lab): Promise<readonly string[]> =>
  (await lab.leftovers()).processes.filter((command) => command.startsWith('qemu-io'));

/** Something of it is at the destination. */
async function untilCopying(lab: Lab, id: number): Promise<void> {
  const look = async (): Promise<true | null> => {
    const { progress, status } = await operation(lab, id);
    assert.equal(status, 'running');
    return progress !== null && progress.doneBytes > 0n ? true : null;
  };
  await until(look, 60_000, 'the copy goes on');
}

async function restart(lab: Lab): Promise<void> {
  await present(lab.daemons.at(-1), 'it was started').kill9();
  const look = async (): Promise<true | null> => ((await holders(lab)).length === 0 ? true : null);
  await until(look, 10_000, 'nothing is held when nobody is there to let it go');
  await lab.ferryd();
}

test('ferryd is killed in the middle of it: the next one goes on, and the guest starts where its disk is', async () => {
  await withLab('move-off', async (lab) => {
    const guest = await heavyGuest(lab, 48);
    await lab.mustVirsh('snapshot-create-as', 'vm1', 's1', '--disk-only');
    await guest.serial.waitProgress(200);
    await lab.mustVirsh('destroy', 'vm1');
    const id = await beginMove(lab, ...slowly);
    await untilCopying(lab, id);
    const refused = await lab.virsh('start', 'vm1');
    assert.match(refused.stderr, /being moved while it is shut off.*ferry cancel/);
    await restart(lab);
    await untilCopying(lab, id);
    assert.equal((await holders(lab)).length, 2, 'both images are held again');
    assert.match(await lab.mustFerry('doctor', 'vm1'), /LIVE ▶ \S+\/a\/vm1-vda\.s1\n/);

    await lab.mustFerry('limit', String(id), 'none');
    await lab.mustFerry('ops', 'wait', String(id));
    assert.deepEqual(await holders(lab), []);
    assert.deepEqual((await readdir(lab.b)).toSorted(), ['vm1-vda.qcow2', 'vm1-vda.s1']);
    assert.deepEqual((await readdir(lab.a)).toSorted(), ['vm1-vda.qcow2', 'vm1-vda.s1']);
    const image = join(lab.b, 'vm1-vda.s1');
    assert.deepEqual(await sources(lab), [image]);
    const snapshot = await lab.mustVirsh('snapshot-dumpxml', 'vm1', 's1');
    assert.match(snapshot, new RegExp(`<source file='${image}'/>`));
    await nothingLost(guest, [image]);
    const below = await lab.qemuImg('info', '--output=json', image);
    assert.match(below, new RegExp(`"full-backing-filename": "${lab.b}/vm1-vda.qcow2"`));

    await lab.mustVirsh('start', 'vm1');
    await endsWell(lab, guest);
  });
});

test('nobody writes to what is copied; a move that is cancelled, or whose source was touched, leaves everything as it was', async () => {
  await withLab('move-off-held', async (lab) => {
    await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1', disks: 1, writer: resuming });
    const image = present(guest.files[0], 'it has one disk');
    const qemuIo = join(dirname(lab.qemu.img), 'qemu-io');
    await must(qemuIo, ['-f', 'qcow2', '-c', 'write -P 165 64M 40M', image]);
    await lab.mustVirsh('define', guest.xmlFile);
    const other = join(lab.directory, 'vm2.xml');
    await writeFile(other, guest.xml.replace('<name>vm1<', '<name>vm2<'));
    await lab.mustVirsh('define', other);
    const xml = join(lab.directory, 'other.xml');
    const defined = await lab.mustVirsh('dumpxml', 'vm1');
    await writeFile(xml, defined.replace('vm1-vda.qcow2', 'other.qcow2'));
    const before = await readFile(image);
    const asItWas = async (): Promise<void> => {
      assert.deepEqual(await readdir(lab.b), []);
      assert.deepEqual(await holders(lab), []);
      assert.equal(await lab.mustVirsh('dumpxml', 'vm1'), defined);
      assert.ok(before.equals(await readFile(image)), 'the source is untouched');
    };

    const plan = await lab.mustFerry('plan', 'move', 'vm1', 'vda', '--to', lab.b);
    const hash = /ferry apply (\w+)/.exec(plan)?.[1] ?? '';
    await utimes(image, new Date(), new Date());
    const old = await lab.ferry('apply', hash);
    assert.match(old.stderr, /the world has changed since it was planned: image \S+vm1-vda\.qcow2/);
    assert.match(plan, /offline-copy/);
    assert.doesNotMatch(plan, /pauses|the guest writes/);

    const writer = ['-f', 'qcow2', '-c', 'write 0 512', image];
    const id = await beginMove(lab, ...slowly);
    await untilCopying(lab, id);
    const foreign = await run(qemuIo, writer);
    assert.match(foreign.stderr, /Failed to get "write" lock/);
    for (const [command, expected] of [
      [['start', 'vm2'], /start vm2: image \S+ of disk 'vda': .*'vm1' are being moved/],
      [['undefine', 'vm1'], /being moved while it is shut off/],
      [['define', xml], /other images for disk 'vda'/],
      [['move', 'vm1', 'vda', '--to', lab.directory], /operation \d+ \(move\).*has not ended/],
    ] as const) {
      const { code, stderr } = await lab.ferry(...command);
      assert.match(stderr, expected);
      assert.equal(code, 4, stderr);
    }
    await lab.mustFerry('cancel', String(id));
    assert.notEqual((await lab.ferry('ops', 'wait', String(id))).code, 0);
    await asItWas();

    const second = await beginMove(lab, ...slowly);
    await untilCopying(lab, second);
    await present(lab.daemons.at(-1), 'it was started').kill9();
    await utimes(image, new Date(), new Date());
    await lab.ferryd();
    const { stderr } = await lab.ferry('ops', 'wait', String(second));
    assert.match(stderr, /was written to since the move was planned.*everything is as it was/);
    await asItWas();

    const stranger = await lab.bare({ nodes: [imageNode('disk', image)] });
    const busy = await lab.ferry('move', 'vm1', 'vda', '--to', lab.b);
    assert.match(busy.stderr, /open for writing in another program/);
    await stranger[Symbol.asyncDispose]();
    await lab.mustFerry('move', 'vm1', 'vda', '--to', lab.b);
    assert.deepEqual(await readdir(lab.b), ['vm1-vda.qcow2']);
    assert.ok(before.equals(await readFile(join(lab.b, 'vm1-vda.qcow2'))), 'byte by byte');
  });
});
