// Which bugs of which QEMU a plan speaks of.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { findDisk } from '../domain/definition.js';
import type { Disk } from '../domain/disk.js';
import { diskXml, domain } from '../domain/testing/samples.js';
import { present } from '../std/assert.js';
import { risksOfQemu } from './known-bugs.js';

const virtio: Disk = present(findDisk(domain(diskXml('vda')), 'vda'), 'vda');
const ide: Disk = { ...virtio, target: 'hda', bus: 'ide' };
const discarding: Disk = {
  ...virtio,
  target: 'vdb',
  driver: { ...virtio.driver, discard: 'unmap' },
};

const isWarned = (text: string, disk: Disk): boolean => {
  const [major = 0, minor = 0, micro = 0] = text.split('.').map(Number);
  return risksOfQemu({ major, minor, micro }, [disk]).length > 0;
};

test('a bug that was cured in several branches is named only before the cure of its branch', () => {
  const warned = ['7.1.9', '7.2.0', '7.2.6', '8.0.5', '8.1.2'];
  const cured = ['7.2.7', '7.2.22', '8.1.3', '8.2.0', '9.0.0', '10.0.2'];
  assert.deepEqual(
    [...warned, ...cured].filter((one) => isWarned(one, ide)),
    warned,
  );
});

test('a bug without a cure is named with every version, and only for the disks that can meet it', () => {
  const said = risksOfQemu({ major: 10, minor: 0, micro: 2 }, [virtio, ide, discarding]);
  assert.equal(said.length, 1);
  assert.match(present(said[0], 'one'), /^QEMU 10\.0\.2, vdb: a guest that discards/);
  const raw: Disk = { ...discarding, format: 'raw' };
  assert.deepEqual(risksOfQemu({ major: 10, minor: 0, micro: 2 }, [virtio, raw]), []);
});
