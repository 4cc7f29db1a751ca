// NBD disks with TLS: what the XML says of it, what stays known besides, and how QEMU is told.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { tlsCredsOf } from '../block/node.js';
import { qemuCommandLine } from './commandline.js';
import type { Definition } from './definition.js';
import { printDisk } from './print-disk.js';
import type { DomainRecord } from './record.js';
import { domain } from './testing/samples.js';
import { withKnownCreds } from './tls-creds.js';

const disk = (tls: string, name = 'x'): string =>
  `<disk type='network' device='disk'><driver name='qemu' type='raw'/>
     <source protocol='nbd' name='${name}'${tls}><host name='h' port='1'/></source><backingStore/><target dev='vda' bus='virtio'/></disk>`;

const credsOf = ({ disks }: Definition): string | null => {
  const source = disks[0]?.source;
  return source?.type === 'network' ? (source.tlsCreds ?? null) : null;
};

const withFolder = (definition: Definition, tlsCreds: string): Definition => ({
  ...definition,
  disks: definition.disks.map((one) =>
    one.source?.type === 'network' ? { ...one, source: { ...one.source, tlsCreds } } : one,
  ),
});

for (const [said, wanted] of [
  ['', null],
  [" tls='no'", null],
  [" tls='yes'", '/etc/pki/libvirt-nbd'],
] as const) {
  test(`an NBD source with '${said}' has the credentials ${wanted}`, () => {
    const definition = domain(disk(said));
    assert.equal(credsOf(definition), wanted);
    const printed = JSON.stringify(definition.disks.map((one) => printDisk(one, true)));
    assert.equal(printed.includes('"tls"') && printed.includes('"yes"'), wanted !== null);
  });
}

const known = (definition: Definition): DomainRecord =>
  ({ persistent: definition, live: null }) as unknown as DomainRecord; // all that is asked of it

test('a definition that is given back keeps the folder of its credentials, for the same export only', () => {
  const before = known(withFolder(domain(disk(" tls='yes'")), '/pki'));
  const given = (name: string, tls = " tls='yes'"): string | null =>
    credsOf(withKnownCreds(domain(disk(tls, name)), before));
  assert.equal(given('x'), '/pki');
  assert.equal(given('y'), '/etc/pki/libvirt-nbd');
  assert.equal(given('x', ''), null);
});

test('QEMU gets one object for all disks of a folder, and each disk names it', () => {
  const definition = withFolder(domain(disk(" tls='yes'")), '/pki,a');
  const started = {
    ...definition,
    disks: definition.disks.map((one) => ({ ...one, index: 1, backing: [] })),
  };
  const { argv } = qemuCommandLine(started, {
    qmpSocket: '/q',
    pidFile: '/p',
    nvram: '/n',
    channelDir: '/c',
    sandbox: true,
  });
  const id = tlsCredsOf('/pki,a');
  assert.match(id, /^[a-z][A-Za-z0-9.-]*$/, 'what QEMU takes for an id');
  const objects = argv.filter((word) => word.includes('tls-creds-x509'));
  assert.equal(objects.length, 1);
  assert.ok(objects[0]?.includes('"dir":"/pki,a"') && objects[0].includes(`"id":"${id}"`));
  assert.ok(
    argv.some((word) => word.includes('"driver":"nbd"') && word.includes(`"tls-creds":"${id}"`)),
  );
});
