// Moves that take their time: ferryd dies in the middle of the base copy, the live layer grows until it is rotated, QEMU
// dies when most of it is done. What was copied is not copied again, and nothing acknowledged is lost.

import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import type { OperationView } from '../../src/host/ferry-host.js';
import { readJournalCopy } from '../../src/host/doctor/journal-copy.js';
import { present } from '../../src/std/assert.js';
import { until } from '../../src/std/deadline.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { killQemu, nothingLost, sources, writeMore } from '../lib/mirrored.js';
import { beginMove, heavyGuest, operation } from '../lib/moves.js';

const MIB = 1024 * 1024;
const chatty = { args: ['--log-level', 'debug'] };

/** Its copy has done so much, as a part of all that it has to do. */
async function untilCopied(lab: Lab, id: number, part: number): Promise<void> {
  const look = async (): Promise<true | null> => {
    const { progress, status } = await operation(lab, id);
    assert.equal(status, 'running');
    if (progress === null || progress.totalBytes === 0n) return null;
    return Number(progress.doneBytes) >= part * Number(progress.totalBytes) ? true : null;
  };
  await until(look, 60_000, `${part * 100} % are copied`);
}

async function again(lab: Lab): Promise<void> {
  await present(lab.daemons.at(-1), 'it was started').kill9();
  await lab.ferryd(chatty);
}

/** Asks for a rotation and kills ferryd in the middle of it: its own log tells when, everything else is too slow. */
async function rotateAndKill(lab: Lab, id: number): Promise<void> {
  const daemon = present(lab.daemons.at(-1), 'it was started');
  const since = daemon.log.length;
  const asked = lab.ferry('ops', 'rotate', String(id));
  const isAt = () => (daemon.log.slice(since).some(({ kind }) => kind === 'rotate') ? true : null);
  await until(isAt, 60_000, 'the rotation', 1);
  await again(lab);
  assert.notEqual((await asked).code, 0, 'nobody was there to answer');
}

/** The move has ended well, and everything is where it belongs. */
async function arrived(lab: Lab, guest: LabGuest, id: number): Promise<void> {
  // Refused when nothing is left to copy or to verify.
  await lab.ferry('limit', String(id), 'none');
  await lab.mustFerry('ops', 'wait', String(id));
  const { status } = await operation(lab, id);
  assert.equal(status, 'committed');
  const image = join(lab.b, 'vm1-vda.qcow2');
  assert.deepEqual(await sources(lab), [image]);
  assert.deepEqual(await readdir(lab.b), ['vm1-vda.qcow2']);
  await writeMore(guest);
  await lab.mustVirsh('destroy', 'vm1');
  await nothingLost(guest, [image]);
  assert.deepEqual(guest.serial.setbacks, []);
  await lab.qemuImg('check', '-q', image);
}

/** What the copy of an ended operation was, and how often it was gone on with. */
async function copyOf(lab: Lab, id: number) {
  await using kept = await readJournalCopy(lab.stateDir);
  const journal = present(kept.journal, 'the journal is readable');
  const { plan } = present(await journal.operation(id), 'it is kept');
  const step = plan.steps.findIndex(({ kind }) => kind === 'copy-image');
  return present(await journal.copy(id, step), 'it copied');
}

test('ferryd is killed in the middle of a base copy, twice: the next one copies what is missing', async (t) => {
  await withLab('long-copy', async (lab) => {
    const guest = await heavyGuest(lab, 160, chatty);
    const id = await beginMove(lab, '--bandwidth', '12M');
    await untilCopied(lab, id, 0.3);
    await again(lab);
    await untilCopied(lab, id, 0.6);
    await again(lab);
    await arrived(lab, guest, id);

    const { resumes, totalBytes } = await copyOf(lab, id);
    const kept = resumes.map(({ keptBytes }) => keptBytes / totalBytes);
    t.diagnostic(`kept: ${kept.map((part) => `${(100 * part).toFixed(0)} %`).join(', ')}`);
    assert.equal(kept.length, 2);
    // A checkpoint is made every second: what a death costs at 12 MiB a second, and two pieces under way.
    const lost = (32 * MIB) / totalBytes;
    assert.ok((kept[0] ?? 0) >= 0.3 - lost && (kept[1] ?? 0) >= 0.6 - lost, JSON.stringify(kept));
    assert.deepEqual(
      resumes.map(({ brokenBytes }) => brokenBytes),
      [0, 0],
    );
  });
});

const layers = async (lab: Lab): Promise<readonly string[]> =>
  (await readdir(lab.a)).filter((file) => file.includes('.move-')).toSorted();

/** The live layer has a number of its own now: rotated by itself, or by request. */
async function untilLayers(lab: Lab, count: number): Promise<void> {
  const look = async (): Promise<true | null> =>
    (await layers(lab)).length >= count && /\.\d+$/.test((await sources(lab))[0] ?? '')
      ? true
      : null;
  await until(look, 60_000, `${count} layers`);
}

test('the live layer of a long move is rotated by its size and by request, over the death of ferryd', async (t) => {
  await withLab('long-rotate', async (lab) => {
    const guest = await heavyGuest(lab, 160, chatty);
    const id = await beginMove(lab, '--bandwidth', '8M', '--rotate', '1M');
    await untilLayers(lab, 3);
    await rotateAndKill(lab, id);
    const before = (await layers(lab)).length;
    await untilLayers(lab, before + 1);
    await writeMore(guest);
    const operations = JSON.parse(await lab.mustFerry('ops', '--all', '--json')) as OperationView[]; // our own CLI
    const rotations = operations.filter(
      ({ kind, status }) => kind === 'rotate' && status === 'committed',
    );
    assert.ok(rotations.length >= 3, `${rotations.length} rotations`);
    const pauses = rotations.flatMap((one) => one.pauses.map(({ ms }) => `${ms} ms`));
    t.diagnostic(`pauses of rotations: ${pauses.join(', ')}`);
    await arrived(lab, guest, id);
  });
});

test('QEMU is killed when most of a rotated move is done: the next start takes it up, and no copy begins anew', async () => {
  await withLab('long-death', async (lab) => {
    const guest = await heavyGuest(lab, 96, chatty);
    const id = await beginMove(lab, '--bandwidth', '12M');
    await untilLayersReady(lab, id);
    await untilCopied(lab, id, 0.8);
    await killQemu(lab);
    await nothingLost(guest, await sources(lab));
    await lab.mustVirsh('start', 'vm1');
    assert.match((await sources(lab))[0] ?? '', /\.move-\d+\.1$/, 'on the layer that was live');
    await arrived(lab, guest, id);
    const { resumes } = await copyOf(lab, id);
    assert.deepEqual(resumes, [], 'the copy was never cut off');
  });
});

/** Rotated by request, once the mirror is in step. */
async function untilLayersReady(lab: Lab, id: number): Promise<void> {
  const look = async (): Promise<true | null> =>
    (await lab.ferry('ops', 'rotate', String(id))).code === 0 ? true : null;
  await until(look, 60_000, 'the mirror is READY, and the move is rotated');
}
