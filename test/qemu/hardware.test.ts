// The hardware that a definition may ask for, on real QEMU: UEFI variables, another user's QEMU, block devices, screens,
// ports, cards, and KVM. What a machine cannot try is skipped by name; the build server may leave out KVM only.

import assert from 'node:assert/strict';
import { accessSync, constants, existsSync } from 'node:fs';
import {
  chmod,
  chown,
  copyFile,
  mkdir,
  readdir,
  readFile,
  stat,
  writeFile,
} from 'node:fs/promises';
import { connect } from 'node:net';
import { basename, join } from 'node:path';
import { test } from 'node:test';

import { until, within } from '../../src/std/deadline.js';
import { guestFiles } from '../lib/guest.js';
import { withLab, type Lab, type LabGuest } from '../lib/lab.js';
import {
  mirror,
  nothingLost,
  qemuPid,
  resuming,
  snapshotFile,
  sources,
  untilReady,
  writeMore,
} from '../lib/mirrored.js';
import { inMounts } from '../lib/mounts.js';
import { must } from '../lib/process.js';
import { LoopDevice } from '../lib/storage.js';

const onServer = process.env['CI'] === '1';
const needs = (there: boolean, what: string): string | false =>
  there || onServer ? false : `not tried here: needs ${what}`;
const isRoot = process.getuid?.() === 0;

const ovmf = '/usr/share/OVMF';
const firmware = { code: `${ovmf}/OVMF_CODE_4M.fd`, variables: `${ovmf}/OVMF_VARS_4M.fd` };
const noOvmf = needs(existsSync(firmware.code), "Debian's package ovmf");
const noUser = needs(isRoot, 'root, to run QEMU as another user');
const noLoop = needs(isRoot && existsSync('/dev/loop-control'), 'root and loop devices');
const noTap = needs(isRoot && existsSync('/dev/net/tun'), 'root and /dev/net/tun, to make a tap');
const noKvm: string | false = canOpen('/dev/kvm') ? false : 'not tried here: needs /dev/kvm';

function canOpen(device: string): boolean {
  try {
    accessSync(device, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** passwd(5): Debian's user that owns nothing. */
async function nobody(): Promise<{ readonly uid: number; readonly gid: number }> {
  const line = (await readFile('/etc/passwd', 'utf8'))
    .split('\n')
    .find((l) => l.startsWith('nobody:'));
  const [, , uid, gid] = (line ?? '').split(':');
  return { uid: Number(uid), gid: Number(gid) };
}

/** A guest whose files another user can reach, as their owner would have to see to; nothing that ferryd makes. */
async function guestOf(
  lab: Lab,
  who: { readonly uid: number; readonly gid: number },
  change: (xml: string) => string = (xml) => xml,
): Promise<LabGuest> {
  const made = await lab.guest({ name: 'vm1', writer: resuming });
  await Promise.all([lab.directory, lab.a, lab.b].map((folder) => chmod(folder, 0o711)));
  const serialFile = join(lab.directory, 'vm1.serial');
  await writeFile(serialFile, '');
  await Promise.all([...made.files, serialFile].map((file) => chown(file, who.uid, who.gid)));
  // The checkout may lie where only its owner looks.
  const { kernel, initramfs } = await guestFiles();
  let xml = made.xml;
  for (const file of [kernel, initramfs]) {
    await copyFile(file, join(lab.directory, basename(file)));
    xml = xml.replace(file, join(lab.directory, basename(file)));
  }
  await writeFile(made.xmlFile, change(xml));
  return { ...made, xml: change(xml) };
}

const ownerOf = async (path: string): Promise<number> => (await stat(path)).uid;

const withFirmware = (nvram: string) => (xml: string) =>
  xml.replace(
    /<os>.*<\/os>/s,
    `<os><type arch='x86_64' machine='pc'>hvm</type>` +
      `<loader readonly='yes' type='pflash'>${firmware.code}</loader>${nvram}</os>`,
  );

test(
  'UEFI variables are made from their template, stay over a restart, and go only when told',
  { skip: noOvmf },
  async () => {
    await withLab('uefi', async (lab) => {
      const who = isRoot
        ? await nobody()
        : { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
      await lab.ferryd({ args: isRoot ? ['--qemu-user', 'nobody'] : [] });
      const guest = await guestOf(
        lab,
        who,
        withFirmware(`<nvram template='${firmware.variables}'/>`),
      );
      const variables = join(lab.stateDir, 'nvram', 'vm1_VARS.fd');
      const template = await readFile(firmware.variables);
      const areAsMade = async (): Promise<boolean> => template.equals(await readFile(variables));

      await lab.mustVirsh('define', guest.xmlFile);
      await lab.mustVirsh('start', 'vm1', '--paused');
      assert.ok(await areAsMade());
      assert.equal(await ownerOf(variables), who.uid);
      assert.equal((await stat(variables)).mode & 0o777, 0o600);
      assert.match(
        await lab.mustVirsh('dumpxml', 'vm1'),
        new RegExp(`<nvram template='.*'>${variables}</nvram>`),
      );
      await lab.mustVirsh('resume', 'vm1');
      // The firmware has run when it has stored its first variables.
      await until(async () => ((await areAsMade()) ? null : true), 60_000, 'the firmware writes');
      await lab.mustVirsh('destroy', 'vm1');

      const left = await readFile(variables);
      await lab.mustVirsh('start', 'vm1', '--paused');
      assert.ok(left.equals(await readFile(variables)), 'kept over a restart');
      await lab.mustVirsh('destroy', 'vm1');
      await lab.mustVirsh('start', 'vm1', '--paused', '--reset-nvram');
      assert.ok(await areAsMade(), 'made anew when asked for');
      assert.equal(await ownerOf(variables), who.uid);
      await lab.mustVirsh('destroy', 'vm1');

      assert.match(
        (await lab.virsh('undefine', 'vm1')).stderr,
        /error: Requested operation is not valid: cannot undefine domain with nvram/,
      );
      const both = await lab.python(`conn.lookupByName('vm1').undefineFlags(4 | 8)`);
      assert.match(both.stderr, /UNDEFINE_NVRAM' and .*KEEP_NVRAM' are mutually exclusive/);
      await lab.mustVirsh('undefine', 'vm1', '--keep-nvram');
      assert.ok(existsSync(variables));
      await lab.mustVirsh('define', guest.xmlFile);
      assert.match(
        (await lab.ferry('undefine', 'vm1')).stderr,
        /with nvram; say --nvram to remove/,
      );
      await lab.mustVirsh('undefine', 'vm1', '--nvram');
      assert.ok(!existsSync(variables));
      assert.equal((await lab.mustVirsh('list', '--all', '--name')).trim(), '');
    });
  },
);

test(
  'a missing template is said, and a folder that was there before keeps its owner',
  { skip: noOvmf },
  async () => {
    await withLab('uefi-elsewhere', async (lab) => {
      const who = isRoot
        ? await nobody()
        : { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
      await lab.ferryd({ args: isRoot ? ['--qemu-user', 'nobody'] : [] });
      const mine = join(lab.directory, 'mine');
      await mkdir(mine, { mode: 0o711 });
      const path = join(mine, 'vars.fd');
      const missing = withFirmware(`<nvram template='${lab.directory}/nothing.fd'>${path}</nvram>`);
      const guest = await guestOf(lab, who, missing);
      const refused = await lab.virsh('create', guest.xmlFile);
      assert.match(
        refused.stderr,
        /create .*vars\.fd from .*nothing\.fd: .*ENOENT.*; check the <nvram template=>/,
      );
      assert.equal((await lab.mustVirsh('list', '--all', '--name')).trim(), '');

      await writeFile(
        guest.xmlFile,
        guest.xml.replace(`${lab.directory}/nothing.fd`, firmware.variables),
      );
      await lab.mustVirsh('create', '--paused', guest.xmlFile);
      assert.equal(await ownerOf(path), who.uid);
      assert.equal(await ownerOf(mine), process.getuid?.());
    });
  },
);

test(
  "another user's QEMU writes, is mirrored, goes over and moves, and is ended",
  { skip: noUser },
  async () => {
    await withLab('qemu-user', async (lab) => {
      const who = await nobody();
      await lab.ferryd({ args: ['--qemu-user', 'nobody'] });
      const guest = await guestOf(lab, who);
      await lab.mustVirsh('define', guest.xmlFile);
      await lab.mustVirsh('start', 'vm1');
      await guest.serial.waitAcked(300);
      const status = await readFile(`/proc/${await qemuPid(lab)}/status`, 'utf8');
      assert.match(status, new RegExp(`^Uid:(\\t${who.uid}){4}$`, 'm'));
      assert.match(status, new RegExp(`^Gid:(\\t${who.gid}){4}$`, 'm'));
      assert.match(status, /^CapEff:\t0+$/m);

      await mirror(lab, 1);
      const script = `conn.lookupByName('vm1').snapshotLookupByName('s1').delete(8)`;
      const reopened = await lab.python(script);
      assert.equal(reopened.code, 0, reopened.stderr);
      assert.deepEqual(await sources(lab), [join(lab.b, 'vda.s1')]);
      await writeMore(guest);

      const shut = join(lab.directory, 'shut');
      await mkdir(join(shut, 'inner'), { recursive: true, mode: 0o700 });
      const refused = await lab.ferry('move', 'vm1', 'vda', '--to', join(shut, 'inner'));
      assert.match(refused.stderr, /QEMU runs as user \d+, who may not enter .*\/shut\/inner/);
      assert.equal(refused.code, 2);
      assert.deepEqual(await readdir(join(shut, 'inner')), []);

      const c = join(lab.directory, 'c');
      await mkdir(c, { mode: 0o711 });
      await lab.mustFerry('move', 'vm1', 'vda', '--to', c);
      const [live = ''] = await sources(lab);
      assert.ok(live.startsWith(`${c}/`), live);
      assert.equal(await ownerOf(live), who.uid);
      await writeMore(guest);
      await lab.mustVirsh('destroy', 'vm1');
      await nothingLost(guest, [live]);
      // Its next QEMU may open all of them, too.
      await lab.mustVirsh('start', 'vm1', '--paused');
      await lab.mustVirsh('destroy', 'vm1');
    });
  },
);

/** Every kind of port, a card, two drives, a screen and what else a machine has. */
const furnished = (lab: Lab): string => `
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/><source file='${lab.a}/one.iso'/>
      <target dev='hda' bus='ide'/><readonly/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/><source file='${lab.a}/two.iso'/>
      <target dev='sda' bus='sata'/><readonly/>
    </disk>
    <interface type='user'><model type='virtio'/></interface>
    <serial type='pty'><target port='1'/></serial>
    <serial type='unix'><source mode='bind' path='${lab.directory}/port'/><target port='2'/></serial>
    <serial type='null'><target port='3'/></serial>
    <console type='pty'><target type='virtio' port='0'/></console>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <input type='tablet' bus='usb'/>
    <graphics type='vnc' port='-1' autoport='yes'/>
    <video><model type='vga'/></video>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
`;

/** Drivers of QEMU that make it. */
const expected = [
  ...['virtio-rng-pci', 'virtio-balloon-pci', 'virtio-net-pci', 'virtconsole', 'virtserialport'],
  ...['ich9-ahci', 'usb-tablet', 'VGA'],
];

/** The first bytes that a server says to whoever connects; empty when it says nothing by itself. */
async function greeting(
  where: { readonly port: number } | { readonly path: string },
  waits: boolean,
): Promise<string> {
  const socket = connect(where);
  const said = new Promise<string>((resolve, reject) => {
    socket.once('error', reject);
    if (waits) socket.once('data', (data) => resolve(data.toString('latin1')));
    else socket.once('connect', () => resolve(''));
  });
  try {
    return await within(said, 20_000, `a connection to ${JSON.stringify(where)}`);
  } finally {
    socket.destroy();
  }
}

test('a machine with all its ports, drives, a card and a screen starts, and each of them answers', async () => {
  await withLab('furnished', async (lab) => {
    await lab.ferryd();
    await Promise.all(
      ['one.iso', 'two.iso'].map((name) => writeFile(join(lab.a, name), Buffer.alloc(1 << 20))),
    );
    const guest = await lab.guest({ name: 'vm1', devices: furnished(lab) });
    await writeFile(
      guest.xmlFile,
      guest.xml.replace("<memballoon model='none'/>", "<memballoon model='virtio'/>"),
    );
    await lab.mustVirsh('define', '--validate', guest.xmlFile);
    await lab.mustVirsh('start', 'vm1');

    const display = (await lab.mustVirsh('vncdisplay', 'vm1')).trim();
    assert.match(display, /^127\.0\.0\.1:\d+$/);
    assert.equal((await lab.mustVirsh('domdisplay', 'vm1')).trim(), `vnc://${display}`);
    const port = 5900 + Number(display.split(':')[1]);
    assert.match(await greeting({ port }, true), /^RFB 003\.\d+\n$/);

    const xml = await lab.mustVirsh('dumpxml', 'vm1');
    const terminals = [
      ...xml.matchAll(/<(serial|console) type='pty'[^>]*>\s*<source path='([^']+)'\/>/g),
    ];
    assert.deepEqual(terminals.map(([, kind]) => kind).toSorted(), ['console', 'serial']);
    for (const [, , path = ''] of terminals)
      assert.ok((await stat(path)).isCharacterDevice(), path);
    const agent = /<channel type='unix'>\s*<source mode='bind' path='([^']+)'/.exec(xml)?.[1] ?? '';
    for (const path of [join(lab.directory, 'port'), agent]) await greeting({ path }, false);

    const tree = await lab.mustVirsh('qemu-monitor-command', 'vm1', '--hmp', 'info qtree');
    const found = [...tree.matchAll(/dev: ([\w-]+),/g)].map(([, driver]) => driver);
    for (const driver of expected)
      assert.ok(found.includes(driver), `${driver} in ${found.join(' ')}`);
    assert.equal(found.filter((driver) => driver === 'ide-cd').length, 2);
    assert.equal(found.filter((driver) => driver === 'isa-serial').length, 4);
    assert.match(
      await lab.mustVirsh('qemu-monitor-command', 'vm1', '--hmp', 'info network'),
      /type=user/,
    );
    const block = await lab.mustVirsh('domblklist', 'vm1', '--details');
    assert.equal(block.match(/file +cdrom +(hda|sda) /g)?.length, 2, block);
    // And with all that it boots and writes.
    await guest.serial.waitAcked(50);
  });
});

test(
  'a block device is a disk and the destination of its mirror, and nothing is lost',
  { skip: noLoop },
  async () => {
    await withLab('loop', async (lab) => {
      await lab.ferryd();
      await using from = await LoopDevice.over(join(lab.a, 'vda.img'), 128);
      await using to = await LoopDevice.over(join(lab.b, 'vda.img'), 192);
      const made = await lab.guest({
        name: 'vm1',
        writer: resuming,
        disks: [{ file: from.path, format: 'raw' }],
      });
      const xml = made.xml
        .replace("<disk type='file'", "<disk type='block'")
        .replace('<source file=', '<source dev=');
      await writeFile(made.xmlFile, xml);
      await lab.mustVirsh('define', made.xmlFile);
      await lab.mustVirsh('start', 'vm1');
      await made.serial.waitAcked(300);
      assert.match(
        await lab.mustVirsh('domblklist', 'vm1', '--details'),
        new RegExp(`block +disk +vda +${from.path}`),
      );
      assert.match(await lab.mustVirsh('domblkinfo', 'vm1', 'vda'), /Capacity: +134217728/);

      const snapshot = await snapshotFile(lab, 1);
      const text = await readFile(snapshot, 'utf8');
      const toDevice = `<mirror type='block'><format type='qcow2'/><source dev='${to.path}'/></mirror>`;
      await writeFile(snapshot, text.replace(/<mirror file='[^']+'\/>/, toDevice));
      // One that cannot be written undoes all: nothing waits for a person, and the same may be asked again.
      await must('blockdev', ['--setro', to.path]);
      const refused = await lab.virsh('snapshot-create', 'vm1', snapshot);
      assert.ok(refused.stderr.includes(to.path), refused.stderr);
      await must('blockdev', ['--setrw', to.path]);
      assert.match(await lab.mustFerry('ops', '--all'), /snapshot-create .* rolled[ -]back/);
      await lab.mustVirsh('snapshot-create', 'vm1', snapshot);
      await untilReady(lab, 1);
      assert.match(
        await lab.mustVirsh('dumpxml', 'vm1'),
        new RegExp(`<mirror type='block' job='copy' ready='yes'>[^]*<source dev='${to.path}'`),
      );
      await writeMore(made);
      await lab.mustFerry('snapshot-delete', 'vm1', 's1', '--reopen-mirror');
      assert.deepEqual(await sources(lab), [to.path]);
      await writeMore(made);
      await lab.mustVirsh('destroy', 'vm1');
      await nothingLost(made, [to.path]);
      assert.ok((await stat(to.path)).isBlockDevice());
    });
  },
);

test(
  'a tap that exists is the card of a guest, and one that does not is refused by name',
  { skip: noTap },
  async () => {
    await withLab('tap', async (lab) => {
      await lab.ferryd({ args: ['--qemu-user', 'nobody'] });
      const tap = `bf${process.pid}`;
      const card = `<interface type='ethernet'><target dev='${tap}' managed='no'/><model type='virtio'/></interface>`;
      const guest = await guestOf(lab, await nobody(), (xml) =>
        xml.replace('</devices>', `${card}</devices>`),
      );
      await lab.mustVirsh('define', guest.xmlFile);
      assert.match(
        (await lab.virsh('start', 'vm1')).stderr,
        new RegExp(`unsupported configuration: target managed='no' .* no tap '${tap}'; make it`),
      );
      assert.match(await lab.mustVirsh('domstate', 'vm1'), /shut off/);
      assert.ok(!existsSync(`/sys/class/net/${tap}`));
      await must('ip', ['tuntap', 'add', 'dev', tap, 'mode', 'tap', 'user', 'nobody']);
      try {
        await must('ip', ['link', 'set', tap, 'up']);
        const carrier = (): Promise<string> => readFile(`/sys/class/net/${tap}/carrier`, 'utf8');
        assert.equal((await carrier()).trim(), '0');
        await lab.mustVirsh('start', 'vm1', '--paused');
        assert.equal((await carrier()).trim(), '1');
        await lab.mustVirsh('destroy', 'vm1');
        assert.equal((await carrier()).trim(), '0');
      } finally {
        await must('ip', ['link', 'delete', tap]);
      }
    });
  },
);

/** Script: `/dev` as it is on a machine without KVM. */
const withoutKvm = (directory: string): string => `
  mkdir '${directory}/dev'
  mount -t tmpfs -o mode=755 dev '${directory}/dev'
  for name in null zero random urandom; do
    : >'${directory}/dev/'$name
    mount --bind /dev/$name '${directory}/dev/'$name
  done
  mount --rbind '${directory}/dev' /dev`;

const asKvm = (xml: string): string => xml.replace("<domain type='qemu'>", "<domain type='kvm'>");

test('without /dev/kvm a kvm domain is refused in words, and not promised', async () => {
  await withLab('no-kvm', async (lab) => {
    await lab.ferryd({ under: inMounts(withoutKvm(lab.directory)) });
    const guest = await lab.guest({ name: 'vm1' });
    await writeFile(guest.xmlFile, asKvm(guest.xml));
    assert.doesNotMatch(await lab.mustVirsh('capabilities'), /<domain type='kvm'/);
    await lab.mustVirsh('define', guest.xmlFile);
    const said =
      /Emulator '.*' does not support virt type 'kvm' here: there is no \/dev\/kvm; load kvm_intel or kvm_amd, or use <domain type='qemu'>/;
    assert.match((await lab.virsh('start', 'vm1')).stderr, said);
    assert.match((await lab.ferry('start', 'vm1')).stderr, said);
    assert.match(await lab.mustVirsh('domstate', 'vm1'), /shut off/);
    // Refused by the planner: nothing was begun.
    assert.doesNotMatch(await lab.mustFerry('ops', '--all'), /start/);
  });
});

test('with /dev/kvm a kvm domain gets KVM', { skip: noKvm }, async () => {
  await withLab('kvm', async (lab) => {
    await lab.ferryd();
    const guest = await lab.guest({ name: 'vm1' });
    await writeFile(guest.xmlFile, asKvm(guest.xml));
    assert.match(await lab.mustVirsh('capabilities'), /<domain type='kvm'/);
    // Not run: a KVM inside a virtual machine need not be one that boots anything.
    await lab.mustVirsh('create', '--paused', guest.xmlFile);
    const said = await lab.mustVirsh('qemu-monitor-command', 'vm1', '{"execute":"query-kvm"}');
    assert.match(said, /"enabled":true/);
  });
});
