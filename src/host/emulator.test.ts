// What is said before a QEMU is started in vain.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { accelObstacle } from './emulator.js';

const facts = {
  binary: '/usr/bin/qemu-system-x86_64',
  stamp: '',
  version: { major: 7, minor: 2, micro: 22 },
  machines: [],
  kvm: true,
};

for (const [name, kvm, type, device, expected] of [
  ['emulation needs no KVM', false, 'qemu', '/nowhere/kvm', null],
  ['a host with KVM runs a kvm domain', true, 'kvm', '/dev/null', null],
  ['a host without KVM says so', true, 'kvm', '/nowhere/kvm', /there is no \/nowhere\/kvm; load/],
  ['an emulator without KVM says so', false, 'kvm', '/dev/null', /built without KVM/],
] as const) {
  test(name, () => {
    const found = accelObstacle({ ...facts, kvm }, type, device);
    if (expected === null) assert.equal(found, null);
    else {
      assert.match(found?.message ?? '', /does not support virt type 'kvm' here: /);
      assert.match(found?.message ?? '', expected);
      assert.equal(found?.code, 'CONFIG_UNSUPPORTED');
    }
  });
}
