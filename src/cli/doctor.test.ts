// `ferry doctor` and `ferry gc` as a user meets them: asked of a daemon, and where there is none. Transcripts in golden/.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { domainXml } from '../../test/lib/guest.js';
import { qcow2Header } from '../../test/lib/qcow2.js';
import { report } from '../host/doctor/report.js';
import {
  answered,
  chain,
  disk,
  domain,
  facts,
  mirrorRecord,
  qemu,
  record,
  running,
  snap,
  base,
} from '../host/doctor/testing/facts.js';
import type { GcItem } from '../host/gc/types.js';
import { openJournal } from '../journal/sqlite.js';
import type { Bench } from './testing/ferry.js';
import { bench, checkout, finished, golden, transcript } from './testing/ferry.js';

const healthy = report(
  facts(
    domain(running(disk([snap, base])), { qemu: qemu(answered([snap, base])) }),
    chain(snap, base),
  ),
);
const owing = report(
  facts(
    domain(
      record(disk([snap, base]), {
        owed: [
          {
            record: mirrorRecord,
            source: { type: 'file', path: snap },
            image: {
              source: { type: 'file', path: '/dst/vda.snap' },
              format: 'qcow2',
              index: null,
            },
            below: [],
            sinceSeconds: 1,
            stamp: null,
          },
        ],
      }),
    ),
    chain(snap, base),
  ),
);

test('doctor says which image is live, and leaves with 7 when something waits for a person', async (t) => {
  const on = await bench(t);
  on.host.report = healthy;
  const first = await transcript(on, [
    ['doctor'],
    ['doctor', 'vm1', '--json'],
    ['doctor', 'nix'],
    ['doctor', 'vm1', '--xml', 'vm1.xml'],
  ]);
  on.host.report = owing;
  golden('doctor.txt', `${first}\n${await transcript(on, [['doctor', 'vm1']])}`);
});

const item = (path: string, more: Partial<GcItem>): GcItem => ({
  path,
  kind: 'unfinished',
  domain: 'u',
  domainName: 'vm1',
  target: 'vda',
  allocatedBytes: 3n * 1024n ** 2n,
  sinceSeconds: 1_767_322_000,
  older: null,
  operation: 3,
  keptUntilSeconds: null,
  fate: 'removable',
  proof: [
    'operation 3 made it (step 2)',
    "a mirror's target holds nothing more",
    'nobody has it open',
  ],
  against: [],
  namedBy: [],
  ...more,
});

test('gc lists with the proofs, and removes on --yes', async (t) => {
  const on = await bench(t);
  on.host.garbage = {
    time: '2026-01-02T03:04:05.000Z',
    lookedBy: 'ferryd',
    items: [
      item('/dst/vm1.s1', {}),
      item('/src/vm1.qcow2', { kind: 'stale', fate: 'by-name', against: ['kept until named'] }),
      item('/dst/old.s1', {
        fate: 'kept',
        domainName: null,
        target: null,
        sinceSeconds: null,
        proof: [],
        against: ['it is open in qemu-nbd (pid 7)', 'nothing shows that it is ours'],
      }),
    ],
  };
  golden(
    'gc.txt',
    await transcript(on, [
      ['gc'],
      ['gc', '--yes'],
      ['gc', '--yes', '/src/vm1.qcow2'],
      ['gc', '/src/vm1.qcow2'],
      ['gc', '--json'],
    ]),
  );
  on.host.garbage = { ...on.host.garbage, items: [] };
  assert.equal((await on.ferry(['gc'])).stdout, 'Nothing that we left is there.\n');
  assert.match((await on.ferry(['gc', '--yes'])).stdout, /^Nothing was removed/);
});

/** A command line where no daemon answers, with a state directory of its own. */
async function alone(on: Bench, state: string, ...args: readonly string[]) {
  const env = {
    PATH: process.env['PATH'],
    TZ: 'UTC',
    FERRY_RUN_DIR: join(on.directory, 'nowhere'),
    FERRY_STATE_DIR: state,
  };
  const child = spawn(process.execPath, [join(checkout, 'bin/ferry'), ...args], { env });
  return await finished(child);
}

test('without a daemon and without a journal it says what can be said, and guesses nothing', async (t) => {
  const on = await bench(t);
  const state = join(on.directory, 'state');
  const { code, stdout } = await alone(on, state, 'doctor');
  assert.equal(code, 7);
  assert.match(stdout, /ferryd is not running on .*nowhere\/ferry\.sock/);
  assert.match(stdout, /there is no journal \(.*ferry\.db: there is no such file\)/);
  const gc = await alone(on, state, 'gc');
  assert.equal(gc.code, 4);
  assert.match(gc.stderr, /without it nothing can be proven to be ours/);
});

test('without a daemon a kept definition is looked at, and nothing is called live', async (t) => {
  const on = await bench(t);
  const image = join(on.directory, 'vm1.qcow2');
  await writeFile(image, qcow2Header(null));
  await writeFile(join(on.directory, 'vm1.s1'), qcow2Header(image));
  const xml = join(on.directory, 'vm1.xml');
  const serialFile = join(on.directory, 'serial');
  await writeFile(xml, await domainXml({ name: 'vm1', disks: [{ file: image }], serialFile }));
  const { code, stdout } = await alone(on, join(on.directory, 'state'), 'doctor', '--xml', xml);
  assert.equal(code, 7);
  assert.match(stdout, /vda {2}CANNOT BE TOLD; it may be .*vm1\.qcow2 or .*vm1\.s1\n/);
});

test('without a daemon the journal is read, and an unknown domain is no domain', async (t) => {
  const on = await bench(t);
  const state = join(on.directory, 'state');
  await mkdir(state);
  const journal = openJournal({ stateDir: state });
  const { persistent } = record(disk([join(on.directory, 'vm1.qcow2')]));
  assert.ok(persistent !== null);
  await journal.record(persistent.uuid, [{ change: 'define', definition: persistent, chains: [] }]);
  await journal[Symbol.asyncDispose]();
  const { code, stdout } = await alone(on, state, 'doctor', 'vm1', '--json');
  assert.equal(code, 7);
  const said = JSON.parse(stdout) as typeof healthy; // our own CLI
  assert.equal(said.domains[0]?.disks[0]?.live, join(on.directory, 'vm1.qcow2'));
  assert.equal(said.domains[0]?.disks[0]?.saidBy, 'journal');
  assert.match(
    said.domains[0]?.disks[0]?.findings[0]?.text ?? '',
    /cannot be used: it is not there/,
  );
  const unknown = await alone(on, state, 'doctor', 'nix');
  assert.equal(unknown.code, 3);
  assert.match(unknown.stderr, /no domain with matching name 'nix'/);
  assert.equal((await alone(on, state, 'gc')).stdout, 'Nothing that we left is there.\n');
});
