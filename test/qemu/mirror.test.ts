// Mirrored snapshots on real QEMU with a writing guest, asked for by stock clients; at the end the verifier says whether
// anything was lost. Design §4.

import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import { running as guestRuns, sources, untilReady, writeMore } from '../lib/mirrored.js';
import { verifyChains } from '../lib/verify.js';

const writer = { resume: 1 };

async function running(
  lab: Lab,
  disks: number,
  kind: 'persistent' | 'transient' = 'persistent',
): Promise<LabGuest> {
  await lab.ferryd();
  return await guestRuns(lab, disks, kind);
}

const targets = ['vda', 'vdb', 'vdc'];

/** Snapshot XML with a mirror per disk: new layers `NAME.snap` on A and on B. */
async function snapshotFile(
  lab: Lab,
  disks: number,
  change: (xml: string) => string = (xml) => xml,
): Promise<string> {
  const list = targets
    .slice(0, disks)
    .map(
      (target) =>
        `<disk name='${target}' snapshot='external'><source file='${join(lab.a, `${target}.snap`)}'/>` +
        `<mirror file='${join(lab.b, `${target}.snap`)}'/></disk>`,
    );
  const file = join(lab.directory, 'snapshot.xml');
  await writeFile(
    file,
    change(`<domainsnapshot><name>s1</name><disks>${list.join('')}</disks></domainsnapshot>`),
  );
  return file;
}

/** Ends the guest and asks the verifier about `images`. */
async function nothingLost(lab: Lab, guest: LabGuest, images: readonly string[]): Promise<void> {
  await writeMore(guest);
  await lab.mustVirsh('destroy', 'vm1');
  const verdict = await verifyChains(images, {
    acked: guest.serial.acked(),
    state: 'crashed',
    writer,
  });
  assert.ok(verdict.ok, JSON.stringify(verdict));
}

/** Pauses of all operations, the newest first. */
async function pausesOf(lab: Lab) {
  const operations = JSON.parse(await lab.mustFerry('ops', '--all', '--json')) as readonly {
    readonly pauses: readonly { readonly what: string; readonly ms: number }[]; // our own CLI
  }[];
  return operations.flatMap(({ pauses }) => pauses);
}

test('two disks are mirrored by virsh and go over together by libvirt-python', async () => {
  await withLab('reopen', async (lab) => {
    const guest = await running(lab, 2);
    await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab, 2));
    await untilReady(lab, 2);

    const xml = await lab.mustVirsh('dumpxml', 'vm1');
    assert.match(
      xml,
      new RegExp(
        `<mirror type='file' file='${lab.b}/vda.snap' format='qcow2' job='copy' ready='yes'>`,
      ),
    );
    assert.match(
      await lab.mustVirsh('snapshot-dumpxml', 'vm1', 's1'),
      /<mirror type='file' file='/,
    );
    assert.match(
      (await lab.virsh('blockjob', 'vm1', 'vda', '--info')).stderr,
      /Block Copy: \[ *\d+ %\]/,
    );

    const second = await lab.virsh('snapshot-create-as', 'vm1', '--disk-only', 's2');
    assert.match(second.stderr, /block copy still active: disk 'vda' already in active block job/);
    const alone = await lab.virsh('blockjob', 'vm1', 'vda', '--pivot');
    assert.match(alone.stderr, /mirrored together with vdb by snapshot 's1'/);

    const reopened = await lab.python(
      "conn.lookupByName('vm1').snapshotLookupByName('s1').delete(8)",
    );
    assert.equal(reopened.code, 0, reopened.stderr);
    assert.deepEqual(await sources(lab), [join(lab.b, 'vda.snap'), join(lab.b, 'vdb.snap')]);
    assert.equal((await lab.mustVirsh('snapshot-list', 'vm1', '--name')).trim(), '');
    assert.match(
      await lab.mustVirsh('dumpxml', 'vm1', '--inactive'),
      new RegExp(`file='${lab.b}/vda.snap'`),
    );
    await nothingLost(lab, guest, await sources(lab));

    const pauses = await pausesOf(lab);
    assert.deepEqual(
      pauses.map(({ what }) => what),
      ['pivot', 'snapshot'],
    );
    assert.ok(pauses.every(({ ms }) => ms > 0));
    await lab.daemons.at(-1)?.kill9();
    await lab.ferryd();
    assert.deepEqual(await pausesOf(lab), pauses, 'a later daemon knows them too');

    // Law 13: the layer that was live is not any more.
    const stale = guest.xml.replace(guest.files[0] ?? '', join(lab.a, 'vda.snap'));
    await writeFile(
      guest.xmlFile,
      stale.replace(
        /<name>vm1<\/name>/,
        `$&<uuid>${(await lab.mustVirsh('domuuid', 'vm1')).trim()}</uuid>`,
      ),
    );
    await lab.mustVirsh('define', guest.xmlFile);
    const refused = await lab.virsh('start', 'vm1');
    assert.match(
      refused.stderr,
      /operation is not valid: image .*vda\.snap of disk 'vda' .* is stale since .* the live image is .*\/b\/vda\.snap/,
    );
  });
});

test('a removed mirror leaves the guest on the source, with everything', async () => {
  await withLab('remove', async (lab) => {
    const guest = await running(lab, 1);
    await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab, 1));
    await untilReady(lab, 1);
    await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--remove-mirror');
    assert.deepEqual(await sources(lab), [join(lab.a, 'vda.snap')]);
    assert.doesNotMatch(await lab.mustVirsh('dumpxml', 'vm1'), /<mirror/);
    await nothingLost(lab, guest, await sources(lab));
  });
});

test('a forgotten snapshot leaves copy jobs: one disk pivots, one is aborted', async () => {
  await withLab('forget', async (lab) => {
    const guest = await running(lab, 2);
    await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab, 2));
    await untilReady(lab, 2);
    await lab.mustVirsh('snapshot-delete', 'vm1', 's1', '--metadata');
    await lab.mustVirsh('blockjob', 'vm1', 'vda', '--pivot');
    await lab.mustVirsh('blockjob', 'vm1', 'vdb', '--abort');
    assert.deepEqual(await sources(lab), [join(lab.b, 'vda.snap'), join(lab.a, 'vdb.snap')]);
    await nothingLost(lab, guest, await sources(lab));
  });
});

test("with REUSE_EXT the pivot swings to the caller's chain, and the source is no longer needed", async () => {
  await withLab('reuse', async (lab) => {
    const guest = await running(lab, 1);
    const base = guest.files[0] ?? '';
    const copy = join(lab.b, 'base.qcow2');
    for (const [overlay, below] of [
      [join(lab.a, 'vda.snap'), base],
      [join(lab.b, 'vda.snap'), copy],
    ] as const) {
      if (below === copy) await lab.createImage(copy);
      await lab.qemuImg(
        'create',
        '-q',
        '-f',
        'qcow2',
        '-u',
        '-b',
        below,
        '-F',
        'qcow2',
        overlay,
        '128M',
      );
    }
    await lab.mustVirsh(
      'snapshot-create',
      'vm1',
      await snapshotFile(lab, 1),
      '--reuse-external',
      '--no-metadata',
    );
    await untilReady(lab, 1);
    for (const [size, told] of [
      ['64M', /base.qcow2 .* has 67108864 bytes where .* has 134217728; copy it completely/],
      ['256M', /base.qcow2 .* is larger than the disk/],
      [null, /Cannot access backing file '.*base.qcow2'/],
    ] as const) {
      await rm(copy);
      if (size !== null) await lab.qemuImg('create', '-q', '-f', 'qcow2', copy, size);
      const early = await lab.virsh('blockjob', 'vm1', 'vda', '--pivot');
      assert.match(early.stderr, told);
    }
    // What the caller promised: the base is copied while the mirror runs.
    await lab.qemuImg('convert', '-U', '-O', 'qcow2', base, copy);
    await lab.mustVirsh('blockjob', 'vm1', 'vda', '--pivot');
    assert.deepEqual(await sources(lab), [join(lab.b, 'vda.snap')]);
    assert.match(
      await lab.mustVirsh('dumpxml', 'vm1'),
      new RegExp(
        `<backingStore type='file' index='\\d+'>\\s*<format type='qcow2'/>\\s*<source file='${copy}'`,
      ),
    );
    await rm(base);
    await rm(join(lab.a, 'vda.snap'));
    await nothingLost(lab, guest, await sources(lab));
  });
});

/** Name, change to the snapshot XML, flags, and what virsh is told. */
type RefusalRow = readonly [string, (xml: string) => string, readonly string[], RegExp];

const refusals = (lab: Lab, guest: LabGuest): readonly RefusalRow[] => [
  [
    'relative mirror',
    (xml) => xml.replace(`file='${lab.b}/vda.snap'`, "file='vda.snap'"),
    [],
    /must be absolute/,
  ],
  [
    'mirror on the source',
    (xml) => xml.replace(`file='${lab.b}/vda.snap'`, `file='${guest.files[0]}'`),
    [],
    /in use by this domain already/,
  ],
  ['missing folder', (xml) => xml.replace(lab.b, '/nowhere'), [], /nowhere/],
  [
    'missing with REUSE_EXT',
    (xml) => xml,
    ['--reuse-external'],
    /missing existing file for disk vda/,
  ],
  ['unknown disk', (xml) => xml.replace("name='vda'", "name='vdx'"), [], /no disk named 'vdx'/],
  ['HALT', (xml) => xml, ['--halt'], /cannot halt/],
  [
    'not validated',
    (xml) => xml.replace('<disks>', '<bogus/><disks>'),
    ['--validate'],
    /failed to validate/,
  ],
];

test('what cannot be mirrored is refused before anything is touched', async () => {
  await withLab('refuse', async (lab) => {
    const guest = await running(lab, 1);
    const before = await lab.mustVirsh('dumpxml', 'vm1');
    for (const [name, change, flags, expected] of refusals(lab, guest)) {
      const { code, stderr } = await lab.virsh(
        'snapshot-create',
        'vm1',
        await snapshotFile(lab, 1, change),
        ...flags,
      );
      assert.equal(code, 1, name);
      assert.match(stderr, expected, name);
      assert.equal(await lab.mustVirsh('dumpxml', 'vm1'), before, name);
    }
    // Law 6: QEMU itself would take an overlay that cuts the disk short.
    await lab.qemuImg(
      'create',
      '-q',
      '-f',
      'qcow2',
      '-u',
      '-b',
      guest.files[0] ?? '',
      '-F',
      'qcow2',
      join(lab.a, 'vda.snap'),
      '64M',
    );
    const small = await lab.virsh(
      'snapshot-create',
      'vm1',
      await snapshotFile(lab, 1),
      '--reuse-external',
    );
    assert.match(small.stderr, /has 67108864 bytes where the disk has 134217728/);
    assert.deepEqual(
      (await lab.leftovers()).files.filter((file) => file.startsWith('b/')),
      [],
    );
    await nothingLost(lab, guest, await sources(lab));
  });
});

test('a transient domain is gone with its QEMU, and its mirror with it', async () => {
  await withLab('transient', async (lab) => {
    const guest = await running(lab, 1, 'transient');
    await lab.mustVirsh('snapshot-create', 'vm1', await snapshotFile(lab, 1));
    await untilReady(lab, 1);
    const [live] = await sources(lab);
    await nothingLost(lab, guest, [live ?? '']);
    assert.equal((await lab.mustVirsh('list', '--all', '--name')).trim(), '');
  });
});
