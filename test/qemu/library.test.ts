// The examples of the library, as a user runs them, on a real guest with two disks that writes all the time.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { text } from 'node:stream/consumers';

import { connect } from 'blockferry';

import { withLab, type Lab } from '../lib/lab.js';
import { nothingLost, running, sources, writeMore } from '../lib/mirrored.js';
import { must, root, run, type Finished } from '../lib/process.js';

test('the examples move, plan, follow and evacuate, and nothing is lost', async () => {
  await withLab('examples', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 2);
    const [a, b] = [lab.a, lab.b];
    const events = await followEvents(lab);

    const moved = await mustExample(lab, 'move', 'vm1', 'vda', b);
    assert.match(moved, /^copying: \d+ %$/m);
    assert.match(moved, /^done: 100 %\n(the guest stood still for \d+(\.\d+)? ms: \w+\n){3}$/m);
    assert.deepEqual(await sources(lab), [join(b, 'vm1-vda.qcow2'), join(a, 'vm1-vdb.qcow2')]);

    const planned = await mustExample(lab, 'plan-and-apply', 'vm1', 'vdb', b, '--yes');
    assert.match(planned, /^vdb: \S+\/a\/vm1-vdb\.qcow2 goes to \S+\/b\/vm1-vdb\.qcow2$/m);
    assert.match(planned, /^done: operation \d+$/m);

    // As if an earlier run of it had died with one disk under way.
    const last = join(lab.directory, 'c');
    await must('/bin/mkdir', [last]);
    const ferry = await connect({ runDir: lab.runDir });
    await ferry.move('vm1', { disks: 'vda', to: last });
    const evacuated = await mustExample(lab, 'evacuate', b, last);
    assert.deepEqual(evacuated.match(/vd[ab] is there$/gm), ['vdb is there']);
    assert.deepEqual(await sources(lab), inFolder(last));

    const refused = await example(lab, 'move', 'vm1', 'vdz', b);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /Refused|Gone/);

    await writeMore(guest);
    await lab.mustVirsh('destroy', 'vm1');
    const told = await events.ended;
    assert.equal(told.match(/^\S+Z block-job \{.*"status":"completed"/gm)?.length, 4);
    assert.match(told, /^\S+Z lifecycle \{.*"event":"stopped"/m);
    await nothingLost(guest, inFolder(last));
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

const inFolder = (folder: string): readonly string[] =>
  ['vda', 'vdb'].map((target) => join(folder, `vm1-${target}.qcow2`));

const script = (name: string): string => join(root, 'dist/examples', `${name}.js`);

async function example(lab: Lab, name: string, ...args: readonly string[]): Promise<Finished> {
  const env = { FERRY_RUN_DIR: lab.runDir };
  return await run(process.execPath, [script(name), ...args], { env });
}

async function mustExample(lab: Lab, name: string, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await example(lab, name, ...args);
  assert.equal(code, 0, `${name} ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

/** The one that runs beside all others until the guest is off. */
async function followEvents(lab: Lab): Promise<{ readonly ended: Promise<string> }> {
  const child = spawn(process.execPath, [script('follow-events'), 'vm1'], {
    env: { ...process.env, FERRY_RUN_DIR: lab.runDir },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child, 'spawn');
  return { ended: text(child.stdout) };
}
