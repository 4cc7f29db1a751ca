// What becomes of mirrored snapshots when their QEMU dies: the source has everything, the next start takes the mirrors up
// again before the guest runs, and a destination that is not there is no reason to be stuck. Design §4, laws 1, 2, 13.

import assert from 'node:assert/strict';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { until } from '../../src/std/deadline.js';
import type { Lab } from '../lib/lab.js';
import { withLab } from '../lib/lab.js';
import {
  killQemu,
  mirror,
  nothingLost,
  qemuPid,
  running,
  sources,
  untilOff,
  untilReady,
  writeMore,
} from '../lib/mirrored.js';
import { killNow, must } from '../lib/process.js';

/** Chains over both storages, as `REOPEN` leaves them: the mirror's header names the source's base. */
const mirrors = (lab: Lab, disks: number): readonly string[] =>
  ['vda', 'vdb', 'vdc'].slice(0, disks).map((target) => join(lab.b, `${target}.s1`));

const events = async (lab: Lab): Promise<string> =>
  await lab.mustFerry('events', '--after', '0', '--json');

test('QEMU dies with mirrors on: the next start mirrors again, and the guest goes over with nothing lost', async () => {
  await withLab('owed', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 2);
    await mirror(lab, 2);
    await writeMore(guest);
    await killQemu(lab);
    await nothingLost(guest, await sources(lab));

    const told = await events(lab);
    assert.ok(told.indexOf('MIRROR_OWED') > told.indexOf('"failed"'), 'FAILED, then MIRROR_OWED');
    assert.ok(told.lastIndexOf('"stopped"') > told.lastIndexOf('MIRROR_OWED'), 'STOPPED is last');
    assert.match(await lab.mustFerry('list', '--all'), /mirror of vda .* at its next start/);

    await lab.mustVirsh('start', 'vm1');
    assert.match(await lab.mustVirsh('dumpxml', 'vm1'), /<mirror .*vda\.s1'.*job='copy'/);
    await untilReady(lab, 2);
    await writeMore(guest);
    await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--reopen-mirror');
    assert.deepEqual(await sources(lab), mirrors(lab, 2));
    await writeMore(guest);
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, mirrors(lab, 2));
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

type Harm = readonly [() => Promise<unknown>, RegExp, () => Promise<unknown>];

/** What can be wrong with a destination, what is said then, and what mends it. */
function harms(lab: Lab, image: string): readonly Harm[] {
  return [
    [
      () => rename(image, `${image}.away`),
      /vda\.s1 is not there/,
      () => rename(`${image}.away`, image),
    ],
    [
      () => rename(lab.b, `${lab.b}.away`),
      /vda\.s1 is not there/,
      () => rename(`${lab.b}.away`, lab.b),
    ],
    [
      async () => {
        await rename(image, `${image}.away`);
        await lab.createImage(image, { sizeMiB: 64 });
      },
      /has 67108864 bytes where the disk has 134217728/,
      () => rename(`${image}.away`, image),
    ],
    [
      async () => {
        await rename(image, `${image}.away`);
        await lab.createImage(image);
      },
      /was changed: it stood over .*vm1-vda\.qcow2 and stands over nothing/,
      () => rename(`${image}.away`, image),
    ],
    [
      async () => {
        await rename(image, `${image}.away`);
        await writeFile(image, 'something else');
      },
      /is no qcow2 image any more/,
      () => rename(`${image}.away`, image),
    ],
  ];
}

test('a destination that cannot be used refuses the start with three ways out, and each of them works', async () => {
  await withLab('owed-refused', async (lab) => {
    await lab.ferryd({ args: ['--mirror-retry', '0.3'] });
    const guest = await running(lab, 1);
    await mirror(lab, 1);
    await writeMore(guest);
    await killQemu(lab);

    const refusals = harms(lab, join(lab.b, 'vda.s1'));
    for (const [harm, expected, mend] of refusals) {
      await harm();
      const refused = await lab.virsh('start', 'vm1');
      assert.match(refused.stderr, expected);
      assert.match(refused.stderr, /operation is not valid: start vm1: the mirror of vda/);
      assert.match(refused.stderr, /the source is complete.*--remove-mirror.*--mirror-later/);
      assert.match(await lab.mustVirsh('domstate', 'vm1'), /shut off/);
      await mend();
    }

    // The third way: it runs at once, and is mirrored when the destination is back.
    await rename(lab.b, `${lab.b}.away`);
    await lab.mustFerry('start', 'vm1', '--mirror-later');
    await writeMore(guest);
    assert.doesNotMatch(await lab.mustVirsh('dumpxml', 'vm1'), /<mirror/);
    const early = await lab.ferry('snapshot-delete', 'vm1', 's1', '--reopen-mirror');
    assert.match(early.stderr, /taken up again once .*vda\.s1 is back/);
    const second = await lab.virsh('snapshot-create-as', 'vm1', '--disk-only', 's2');
    assert.match(second.stderr, /has a mirror that is taken up again/);
    await rename(`${lab.b}.away`, lab.b);
    await untilReady(lab, 1);
    await writeMore(guest);
    await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--reopen-mirror');
    await writeMore(guest);
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, mirrors(lab, 1));
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('a mirror that is owed can be given up on the shut-off domain, by its snapshot or with its definition', async () => {
  await withLab('owed-given-up', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 1);
    await mirror(lab, 1);
    await killQemu(lab);
    const source = join(lab.a, 'vda.s1');
    const kept = await lab.virsh('undefine', 'vm1');
    assert.match(kept.stderr, /cannot delete inactive domain/);
    await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--remove-mirror');
    await lab.mustVirsh('start', 'vm1');
    await writeMore(guest);
    assert.doesNotMatch(await lab.mustVirsh('dumpxml', 'vm1'), /<mirror/);

    // And once more, with the snapshot forgotten before: then it is a copy job that is owed.
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, [source]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('copy jobs that no snapshot owns are owed as well, and an abort gives them up', async () => {
  await withLab('owed-job', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 1);
    await mirror(lab, 1, '--no-metadata');
    await killQemu(lab);
    await lab.mustVirsh('start', 'vm1');
    await untilReady(lab, 1);
    await killQemu(lab);
    assert.match((await lab.virsh('undefine', 'vm1')).stderr, /mirror of vda/);
    await lab.mustFerry('blockjob', 'vm1', 'vda', '--abort');
    await lab.mustVirsh('start', 'vm1');
    assert.doesNotMatch(await lab.mustVirsh('dumpxml', 'vm1'), /<mirror/);
    await writeMore(guest);
    await killQemu(lab);
    await lab.mustVirsh('undefine', 'vm1');
    await nothingLost(guest, [join(lab.a, 'vda.s1')]);
  });
});

test('a guest that powers off, or is sealed, leaves both sides equal, and its next start copies nothing', async () => {
  await withLab('sealed', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 2);
    await mirror(lab, 2);
    await writeMore(guest);
    await lab.mustFerry('seal', '--all', '--timeout', '120');
    const isOff = ({ text }: { readonly text: string }) => text.startsWith('POWEROFF');
    assert.ok(guest.serial.lines.some(isOff), 'the guest powered itself off');
    assert.match(await lab.mustVirsh('domstate', 'vm1'), /shut off/);
    const source = await sources(lab);
    await nothingLost(guest, source, 'settled');
    await nothingLost(guest, mirrors(lab, 2), 'settled');
    for (const [i, image] of mirrors(lab, 2).entries())
      await lab.qemuImg('compare', source[i] ?? '', image);

    await lab.mustVirsh('start', 'vm1');
    await untilReady(lab, 2);
    const { operations } = {
      operations: JSON.parse(await lab.mustFerry('ops', '--all', '--json')) as readonly {
        kind: string;
        steps: readonly { kind: string }[];
      }[],
    }; // our own CLI
    const start = operations.find(({ kind }) => kind === 'start');
    assert.ok(start !== undefined && start.steps.every(({ kind }) => kind !== 'recreate-image'));
    await writeMore(guest);

    // No time for the guest: it is ended where it stands. What is touched in between is made anew.
    await lab.mustFerry('seal', 'vm1', '--timeout', '0');
    await lab.qemuImg('snapshot', '-c', 'touched', mirrors(lab, 2)[0] ?? '');
    await lab.mustVirsh('start', 'vm1');
    await untilReady(lab, 2);
    await writeMore(guest);
    await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--reopen-mirror');
    await writeMore(guest);
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, mirrors(lab, 2));
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('the daemon dies while a start takes mirrors up: the next one finishes it', async () => {
  await withLab('owed-daemon', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 2);
    await mirror(lab, 2);
    await killQemu(lab);
    const starting = lab.virsh('start', 'vm1');
    const begun = async (): Promise<true | null> =>
      (await lab.ferry('ops', '--json')).stdout.includes('"start"') ? true : null;
    await until(begun, 20_000, 'the start is under way', 5).catch(() => undefined);
    await lab.daemons.at(-1)?.kill9();
    await starting;
    await lab.ferryd();
    await until(
      async () => ((await lab.mustFerry('ops', '--json')).trim() === '[]' ? true : null),
      30_000,
      'the start is settled',
    );
    if ((await lab.mustVirsh('domstate', 'vm1')).includes('shut off'))
      await lab.mustVirsh('start', 'vm1');
    await untilReady(lab, 2);
    await writeMore(guest);
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, [join(lab.a, 'vda.s1'), join(lab.a, 'vdb.s1')]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('a transient domain is created again on its live image only', async () => {
  await withLab('owed-transient', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 1, 'transient');
    await mirror(lab, 1);
    await writeMore(guest);
    killNow(await qemuPid(lab));
    await untilOff(lab);
    const told = await events(lab);
    assert.ok(told.indexOf('MIRROR_DROPPED') > told.indexOf('"failed"'));

    const create = async (image: string) => {
      await writeFile(guest.xmlFile, guest.xml.replace(guest.files[0] ?? '', image));
      return await lab.virsh('create', guest.xmlFile);
    };
    const base = await create(guest.files[0] ?? '');
    assert.match(base.stderr, /lies below the live image.*the live image is .*\/a\/vda\.s1/);
    const destination = await create(join(lab.b, 'vda.s1'));
    assert.match(destination.stderr, /is the unfinished destination.*live image is .*\/a\/vda\.s1/);
    const live = await create(join(lab.a, 'vda.s1'));
    assert.equal(live.code, 0, live.stderr);
    // What a libvirt client mirrored ended with its QEMU: the 2012 rule.
    assert.doesNotMatch(await lab.mustVirsh('dumpxml', 'vm1'), /<mirror/);
    await writeMore(guest);
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, [join(lab.a, 'vda.s1')]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('autostart does not wait for a destination: it runs now, tells so, and mirrors later', async () => {
  await withLab('owed-autostart', async (lab) => {
    const daemon = await lab.ferryd({ args: ['--mirror-retry', '0.3'] });
    const guest = await running(lab, 1);
    await lab.mustVirsh('autostart', 'vm1');
    await mirror(lab, 1);
    await killQemu(lab);
    await daemon.kill9();
    // A reboot empties the run directory; the storage comes late.
    await rename(lab.runDir, `${lab.runDir}.old`);
    await mkdir(lab.runDir);
    await rename(lab.b, `${lab.b}.away`);
    await lab.ferryd({ args: ['--mirror-retry', '0.3'] });
    await writeMore(guest);
    assert.match(await events(lab), /MIRROR_OWED[^\n]*is not there/);
    await rename(`${lab.b}.away`, lab.b);
    await untilReady(lab, 1);
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, [join(lab.a, 'vda.s1')]);
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('a guest that resets itself, or panics and is to be restarted, keeps its mirrors', async () => {
  await withLab('owed-reset', async (lab) => {
    await lab.ferryd();
    const guest = await running(lab, 1, 'persistent', {
      xml: (xml) =>
        xml
          .replace(
            "<domain type='qemu'>",
            "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>",
          )
          .replace('<on_crash>destroy', '<on_crash>restart')
          .replace(
            '</domain>',
            "<qemu:commandline><qemu:arg value='-device'/><qemu:arg value='pvpanic'/></qemu:commandline></domain>",
          ),
    });
    await mirror(lab, 1);
    const pid = await qemuPid(lab);
    for (const harm of [
      ['reset', 'vm1'],
      [
        'qemu-monitor-command',
        'vm1',
        '{"execute":"human-monitor-command","arguments":{"command-line":"o /b 0x505 1"}}',
      ],
    ] as const) {
      const before = guest.serial.acked();
      await lab.mustVirsh(...harm);
      await guest.serial.waitAcked(before + 200);
      assert.equal(await qemuPid(lab), pid, 'the same QEMU');
      assert.match(await lab.mustVirsh('dumpxml', 'vm1'), /ready='yes'/);
    }
    await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--reopen-mirror');
    await writeMore(guest);
    await lab.mustVirsh('destroy', 'vm1');
    await nothingLost(guest, mirrors(lab, 1));
    assert.deepEqual(guest.serial.setbacks, []);
  });
});

test('a destination whose storage is full or read-only is a refusal, not an error in the middle', async (t) => {
  if (process.getuid?.() !== 0) {
    t.diagnostic('NOT TRIED: only root can mount a small file system');
    return;
  }
  await withLab('owed-full', async (lab) => {
    await must('/bin/mount', ['-t', 'tmpfs', '-o', 'size=220m', 'tmpfs', lab.b]);
    try {
      await lab.ferryd();
      const guest = await running(lab, 1);
      await mirror(lab, 1);
      await writeMore(guest);
      await killQemu(lab);

      await must('/bin/mount', ['-o', 'remount,ro', lab.b]);
      assert.match((await lab.virsh('start', 'vm1')).stderr, /vda\.s1 cannot be written to/);
      await must('/bin/mount', ['-o', 'remount,rw', lab.b]);

      // As a crash that took what was not synced leaves it, with the room taken by others.
      const image = join(lab.b, 'vda.s1');
      await lab.qemuImg(
        'create',
        '-q',
        '-u',
        '-f',
        'qcow2',
        '-b',
        guest.files[0] ?? '',
        '-F',
        'qcow2',
        image,
        '128M',
      );
      const room = join(lab.b, 'others');
      await must('/bin/dd', ['if=/dev/zero', `of=${room}`, 'bs=64K', 'status=none']).catch(
        () => undefined,
      );
      assert.match(
        (await lab.virsh('start', 'vm1')).stderr,
        /the storage of .*vda\.s1 is full: \d+ bytes are missing/,
      );
      await rm(room);
      await lab.mustVirsh('start', 'vm1');
      await untilReady(lab, 1);
      await lab.mustVirsh('destroy', 'vm1');
      await nothingLost(guest, [join(lab.a, 'vda.s1')]);
    } finally {
      await lab.mustVirsh('destroy', 'vm1').catch(() => undefined);
      await must('/bin/umount', ['-l', lab.b]);
    }
  });
});
