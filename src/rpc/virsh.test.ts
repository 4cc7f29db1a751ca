// The clients that people have, unmodified: virsh and libvirt-python, against a host in memory.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import {
  fakeDomain,
  fakeUuid,
  refOf,
  twoDomains,
  type FakeHost,
} from '../../test/rpc/fake-host.js';
import { missing, run, uriOf } from '../../test/rpc/virsh.js';
import { until } from '../std/deadline.js';
import { listen, type LibvirtServer } from './listen.js';

const PYTHON = '/usr/bin/python3'; // the distribution's: its libvirt module is for no other
const virsh = { skip: missing('virsh', '--version') };
const python = { skip: missing(PYTHON, '-c', 'import libvirt') };

const directory = mkdtempSync(join(tmpdir(), 'ferry-virsh-'));
let server: LibvirtServer;
let host: FakeHost;

before(async () => {
  host = twoDomains();
  server = await listen({
    directory,
    // A test that changes something puts a new host behind the same sockets.
    host: new Proxy(host, { get: (_, key) => bound(host, key) }),
    onBug: (error, where) => assert.fail(`${where}: ${String(error)}`),
  });
});
after(async () => {
  await server.close();
  rmSync(directory, { recursive: true });
});

function bound(target: FakeHost, key: string | symbol): unknown {
  const member: unknown = Reflect.get(target, key);
  return typeof member === 'function' ? member.bind(target) : member;
}

const ask = async (...args: readonly string[]) =>
  await run('virsh', ['-q', '-c', uriOf(server.path), ...args]);

/** Trailing blanks of virsh's tables are no fact. */
const tidy = (text: string): string =>
  text
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');

const xml = (name: string): string =>
  `<domain type='kvm' id='1'>\n  <name>${name}</name>\n  <uuid>${fakeUuid(1)}</uuid>`;

const transcript: readonly (readonly [command: string, stdout: string | RegExp])[] = [
  ['hostname', 'fake.example'],
  ['version', /Using API: QEMU 9\.0\.0\nRunning hypervisor: QEMU 7\.2\.22/],
  ['nodeinfo', /Memory size: +8589934592 KiB/],
  ['capabilities', /^<capabilities>/],
  ['domcapabilities', /^<domainCapabilities>/],
  ['list --all', ' 1   vm1   running\n -   vm2   shut off'],
  ['list', ' 1   vm1   running'],
  ['list --inactive --name', 'vm2'],
  ['dominfo vm1', /CPU time: +0\.4s\nMax memory: +65536 KiB[^]*Managed save: +no$/],
  ['dominfo vm2', /^Id: +-\n[^]*State: +shut off/],
  ['domstate vm1 --reason', 'running (booted)'],
  ['domid vm1', '1'],
  ['domuuid vm1', fakeUuid(1)],
  ['domname 1', 'vm1'],
  [`domname ${fakeUuid(2)}`, 'vm2'],
  ['dumpxml vm1', new RegExp(`^${xml('vm1')}`)],
  ['dumpxml vm1 --inactive', /^<domain type='kvm'>/],
  [
    'domblklist vm1 --details',
    ' file   disk   vda   /images/vm1-vda.qcow2\n file   disk   vdb   /images/vm1-vdb.qcow2',
  ],
  ['domblkinfo vm1 vda', /Capacity: +67108864\nAllocation: +200704\nPhysical: +196624/],
  ['domblkinfo vm1 --all', ' vda   67108864   200704   196624\n vdb   67108864   200704   196624'],
  ['domblkstat vm1 vda', /vda rd_req 7\nvda rd_bytes 3584[^]*vda flush_total_times 678/],
  ['domstats vm1 --block', /block\.count=2\n[^]*block\.1\.name=vdb/],
  ['vcpucount vm1', /maximum +config +2\nmaximum +live +2\ncurrent +config +1\ncurrent +live +1/],
  ['desc vm1', 'the first'],
  ['desc vm2', ''],
  ['snapshot-list vm1 --name', 's1\ns2\ns3\ns4'],
  ['snapshot-list vm1 --roots --name', 's1'],
  ['snapshot-list vm1 --tree', 's1\n  |\n  +- s2\n  |   |\n  |   +- s3\n  |\n  +- s4'],
  ['snapshot-list vm1 --from s1 --descendants --name', 's2\ns3\ns4'],
  ['snapshot-list vm1 --parent', /s3 .* disk-only +s2\n s4 .* disk-only +s1$/],
  ['snapshot-info vm1 s1', /Current: +no\n[^]*Children: +2\nDescendants: +3\nMetadata: +yes/],
  ['snapshot-info vm1 --current', /Name: +s3[^]*Current: +yes/],
  ['snapshot-current vm1 --name', 's3'],
  ['snapshot-parent vm1 s2', 's1'],
  ['snapshot-dumpxml vm1 s2', /<parent>\n {4}<name>s1<\/name>/],
  ['blockjob vm1 vda --raw', ' type=Block Copy\n bandwidth=2\n cur=67108864\n end=67108864'],
  ['blockjob vm1 vdb', ''],
];
for (const [command, stdout] of transcript) {
  test(`virsh ${command}`, virsh, async () => {
    const output = await ask(...command.split(' '));
    assert.deepEqual({ code: output.code, stderr: output.stderr }, { code: 0, stderr: '' });
    if (typeof stdout === 'string') assert.equal(tidy(output.stdout), stdout);
    else assert.match(tidy(output.stdout), stdout);
  });
}

const failures: readonly (readonly [command: string, stderr: string])[] = [
  ['domstate nosuch', "error: failed to get domain 'nosuch'"],
  [
    'suspend vm2',
    "error: Failed to suspend domain 'vm2'\nerror: Requested operation is not valid: domain is not running",
  ],
  ['snapshot-parent vm1 s1', "error: snapshot 's1' has no parent"],
  [
    'blockjob vm1 vdb --abort',
    'error: invalid argument: disk vdb does not have an active block job',
  ],
  ['domblkinfo vm1 vdz', "error: invalid argument: disk 'vdz' not found in domain"],
];
for (const [command, stderr] of failures) {
  test(`virsh ${command} fails`, virsh, async () => {
    const output = await ask(...command.split(' '));
    assert.equal(output.code, 1);
    assert.equal(output.stderr, stderr);
  });
}

const off = { paused: false, resetNvram: false };
const noUndefineFlags = {
  managedSave: false,
  snapshotsMetadata: false,
  nvram: false,
  keepNvram: false,
  checkpointsMetadata: false,
  tpm: false,
  keepTpm: false,
};
const one = fakeUuid(1);
const two = fakeUuid(2);
const disk = 'vda';
const changes: readonly (readonly [command: string, verb: string, ...args: readonly unknown[]])[] =
  [
    ['suspend vm1', 'suspendDomain', one],
    ['resume vm1', 'resumeDomain', one],
    ['reboot vm1', 'rebootDomain', one],
    ['reset vm1', 'resetDomain', one],
    ['shutdown vm1', 'shutdownDomain', one],
    ['destroy vm1', 'destroyDomain', one, { graceful: false }],
    ['destroy vm1 --graceful', 'destroyDomain', one, { graceful: true }],
    ['autostart vm1', 'setAutostart', one, true],
    ['autostart vm1 --disable', 'setAutostart', one, false],
    ['start vm2', 'startDomain', two, off],
    ['start vm2 --paused', 'startDomain', two, { ...off, paused: true }],
    ['undefine vm2', 'undefineDomain', two, noUndefineFlags],
    ['blockjob vm1 vda --bandwidth 5', 'blockJobSetSpeed', one, disk, 5_242_880n],
    ['blockjob vm1 vda --bandwidth 5 --bytes', 'blockJobSetSpeed', one, disk, 5n],
    ['blockjob vm1 vda --abort', 'blockJobAbort', one, disk, { async: false, pivot: false }],
    ['blockjob vm1 vda --abort --async', 'blockJobAbort', one, disk, { async: true, pivot: false }],
    ['blockjob vm1 vda --pivot', 'blockJobAbort', one, disk, { async: false, pivot: true }],
    ['qemu-monitor-command vm1 --hmp info', 'monitorCommand', one, 'info', { hmp: true }],
  ];
for (const [command, verb, ...args] of changes) {
  test(`virsh ${command} reaches the host`, virsh, async () => {
    host = twoDomains();
    const output = await ask(...command.split(' '));
    assert.deepEqual({ code: output.code, stderr: output.stderr }, { code: 0, stderr: '' });
    assert.deepEqual(host.calls, [{ verb, args }]);
  });
}

test('virsh snapshot-create-as and -delete reach the host', virsh, async () => {
  host = twoDomains();
  await ask('snapshot-create-as', 'vm1', 's5', '--disk-only', '--atomic', '--no-metadata');
  await ask('snapshot-delete', 'vm1', 's5', '--metadata');
  const [create, remove] = host.calls;
  assert.match(String(create?.args[1]), /<name>s5<\/name>/);
  assert.deepEqual(
    host.calls.map(({ verb }) => verb),
    ['createSnapshot', 'deleteSnapshot'],
  );
  assert.deepEqual(truths(create?.args[2]), ['noMetadata', 'diskOnly', 'atomic']);
  assert.deepEqual(truths(remove?.args[2]), ['metadataOnly']);
});

const truths = (flags: unknown): string[] =>
  Object.entries(flags ?? {})
    .filter(([, set]) => set === true)
    .map(([name]) => name);

test('virsh undefine --snapshots-metadata says so for a domain that is off', virsh, async () => {
  host = twoDomains();
  host.destroyDomain(one, { graceful: false });
  const { code } = await ask('undefine', 'vm1', '--snapshots-metadata', '--nvram');
  assert.equal(code, 0);
  assert.deepEqual(truths(host.calls[1]?.args[1]), ['snapshotsMetadata', 'nvram']);
});

test('virsh blockjob draws a finished copy as ready', virsh, async () => {
  host = twoDomains();
  const { stdout, stderr } = await ask('blockjob', 'vm1', 'vda');
  assert.match(stderr + stdout, /Block Copy: \[100 %\] +Bandwidth limit: 1500000 bytes\/s/);
});

test('virsh event shows the events of a block job', virsh, async () => {
  host = twoDomains();
  const shown = ask('event', 'vm1', '--all', '--loop', '--timeout', '1');
  await until(() => (host.subscribers > 0 ? true : null), 10_000, 'a registration');
  const job = { kind: 'block-job', domain: refOf(fakeDomain(1)), path: '/images/a' } as const;
  const telling = setInterval(() => {
    host.emit({ ...job, target: disk, type: 'copy', status: 'ready' });
  }, 20);
  const { stdout } = await shown;
  clearInterval(telling);
  assert.match(stdout, /event 'block-job' for domain 'vm1': Block Copy for \/images\/a ready/);
  assert.match(stdout, /event 'block-job-2' for domain 'vm1': Block Copy for vda ready/);
});

test('virsh qemu-monitor-event shows ours', virsh, async () => {
  host = twoDomains();
  const shown = ask('qemu-monitor-event', 'vm1', 'MIRROR_DROPPED', '--timeout', '10');
  await until(() => (host.subscribers > 0 ? true : null), 10_000, 'a registration');
  const domain = refOf(fakeDomain(1));
  const telling = setInterval(() => {
    const at = { seconds: 1_700_000_000n, micros: 17 };
    host.emit({ kind: 'monitor', domain, event: 'MIRROR_DROPPED', ...at, details: '{"a":1}' });
  }, 20);
  const { stdout } = await shown;
  clearInterval(telling);
  assert.match(stdout, /event MIRROR_DROPPED at 1700000000\.000017 for domain 'vm1': {"a":1}/);
});

const script = async (path: string, body: string) =>
  await run(PYTHON, [
    '-c',
    `import libvirt\nlibvirt.registerErrorHandler(lambda c, e: None, None)\nc = libvirt.open('${uriOf(path)}')\n${body}`,
  ]);

test(
  'python sends the private flags of snapshotDelete, and hears of unknown ones',
  python,
  async () => {
    host = twoDomains();
    const { stdout, stderr } = await script(
      server.path,
      `s = c.lookupByName('vm1').snapshotLookupByName('s4')
for flags in (32, 1 << 31):
    try: s.delete(flags)
    except libvirt.libvirtError as e: print(e.get_error_code(), e.get_error_domain(), e)
s.delete(8)`,
    );
    assert.equal(stderr, '');
    const text = (bits: string): string =>
      `8 10 invalid argument: unsupported flags (${bits}) in function virDomainSnapshotDelete`;
    assert.equal(stdout, `${text('0x20')}\n${text('0x80000000')}`);
    assert.deepEqual(truths(host.calls[0]?.args[2]), ['reopenMirror']);
  },
);

test('the read-only socket refuses a client that thinks it may write', python, async () => {
  host = twoDomains();
  const { stdout, stderr } = await script(
    server.readOnlyPath,
    `d = c.lookupByName('vm1')
print(d.isActive(), d.info()[0])
try: d.destroy()
except libvirt.libvirtError as e: print(e.get_error_code(), e)`,
  );
  assert.equal(stderr, '');
  const refused = 'operation forbidden: read only access prevents virDomainDestroy';
  assert.equal(stdout, `1 1\n29 ${refused}`);
  assert.deepEqual(host.calls, []);
});

test(
  'an unknown procedure is "not supported" to a client, by which it hides what we lack',
  python,
  async () => {
    const { stdout } = await script(
      server.path,
      `try: c.listAllNetworks()
except libvirt.libvirtError as e: print(e.get_error_code(), e)`,
    );
    assert.match(stdout, /^3 .*unknown procedure: 283/);
  },
);
