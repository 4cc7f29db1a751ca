// Capabilities as clients read them: well-formed, and true to what they were made of.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseXml } from '../xml/parse.js';
import { printCapabilities, printDomainCapabilities } from './capabilities.js';

const facts = {
  hostUuid: 'fbb4527c-934d-48dd-91a2-b1ec32f8f22a',
  arch: 'x86_64',
  cpuModel: null,
  cpus: { sockets: 1, cores: 2, threads: 1 },
  memoryKib: 7_301_324,
  emulator: '/usr/bin/qemu-system-x86_64',
  machines: [
    { name: 'pc-i440fx-7.2', alias: 'pc', maxCpus: 255 },
    { name: 'pc-q35-7.1', alias: null, maxCpus: 288 },
  ],
  kvm: false,
};

test('machines are listed with their aliases, and kvm only where it is', () => {
  const xml = printCapabilities(facts);
  assert.equal(parseXml(xml).name, 'capabilities');
  assert.match(
    xml,
    /<machine maxCpus='255'>pc-i440fx-7.2<\/machine>\n *<machine canonical='pc-i440fx-7.2' maxCpus='255'>pc<\/machine>\n *<machine maxCpus='288'>pc-q35-7.1<\/machine>\n/,
  );
  assert.doesNotMatch(xml, /kvm/);
  assert.match(
    printCapabilities({ ...facts, kvm: true }),
    /<domain type='qemu'\/>\n *<domain type='kvm'\/>/,
  );
});

test('the CPU of the host is passed through by kvm only', () => {
  const choice = {
    emulator: facts.emulator,
    arch: 'x86_64',
    machine: 'pc-i440fx-7.2',
    maxVcpus: 255,
  };
  assert.match(
    printDomainCapabilities({ ...choice, virtType: 'qemu' }),
    /<mode name='host-passthrough' supported='no'\/>/,
  );
  assert.match(
    printDomainCapabilities({ ...choice, virtType: 'kvm' }),
    /<mode name='host-passthrough' supported='yes'\/>/,
  );
});
