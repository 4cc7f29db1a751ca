// Nodes as QEMU is asked to make them: format over file, chains base first, and the same words again to reopen.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Layer, StorageSource } from './layer.js';
import type { OpenHow } from './node.js';
import { blockdevOptions, chainOptions, reopenOptions, writeCache } from './node.js';

const how: OpenHow = { cache: null, io: null, discard: null, detectZeroes: null };

const layer = (
  index: number,
  format: Layer['format'] = 'qcow2',
  source?: StorageSource,
): Layer => ({
  index,
  format,
  source: source ?? { type: 'file', path: `/img/${index}` },
});

const open = (driver: Partial<OpenHow>, one = layer(1)) =>
  blockdevOptions(one, { driver: { ...how, ...driver }, readOnly: false, backing: null });

test('an image is a format node that owns its file node', () => {
  assert.deepEqual(open({}), {
    'node-name': 'ferry-1-format',
    driver: 'qcow2',
    'read-only': false,
    backing: null,
    file: {
      'node-name': 'ferry-1-storage',
      driver: 'file',
      filename: '/img/1',
      'auto-read-only': true,
      discard: 'unmap',
    },
  });
});

for (const [cache, direct, noFlush, seen] of [
  ['none', true, false, 'on'],
  ['writethrough', false, false, 'off'],
  ['writeback', false, false, 'on'],
  ['directsync', true, false, 'off'],
  ['unsafe', false, true, 'on'],
] as const) {
  test(`cache='${cache}' is said of both nodes and of the device`, () => {
    const node = open({ cache });
    const wanted = { direct, 'no-flush': noFlush };
    assert.deepEqual([node.cache, node.file.cache], [wanted, wanted]);
    assert.equal(writeCache(cache), seen);
  });
}

test('io belongs to the file node, discard and detect-zeroes to the format node', () => {
  const node = open({ io: 'native', discard: 'unmap', detectZeroes: 'on' });
  assert.equal(node.file.driver === 'file' && node.file.aio, 'native');
  assert.deepEqual([node.discard, node['detect-zeroes']], ['unmap', 'on']);
});

const nbd = (host: Extract<StorageSource, { type: 'network' }>['host']): StorageSource => ({
  type: 'network',
  protocol: 'nbd',
  name: 'x',
  host,
});
for (const [name, source, wanted] of [
  [
    'a block device',
    { type: 'block', path: '/dev/a' },
    { driver: 'host_device', filename: '/dev/a' },
  ],
  [
    'an NBD export over TCP',
    nbd({ transport: 'tcp', name: '::1', port: 10809 }),
    {
      driver: 'nbd',
      server: { type: 'inet', host: '::1', port: '10809' },
      export: 'x',
      'reconnect-delay': 0,
    },
  ],
  [
    'an NBD export over a socket',
    nbd({ transport: 'unix', socket: '/s' }),
    { driver: 'nbd', server: { type: 'unix', path: '/s' }, export: 'x', 'reconnect-delay': 0 },
  ],
] as const satisfies readonly (readonly [string, StorageSource, object])[]) {
  test(`${name} is opened by its driver`, () => {
    assert.deepEqual(open({}, layer(1, 'raw', source)).file, {
      'node-name': 'ferry-1-storage',
      'auto-read-only': true,
      discard: 'unmap',
      ...wanted,
    });
  });
}

test('a raw image is not told of a backing, QEMU refuses even null', () => {
  assert.ok(!('backing' in open({}, layer(1, 'raw'))));
});

test('a chain is opened base first, each over the one below, and only its top may be written', () => {
  const nodes = chainOptions(
    [layer(3), layer(2), layer(1, 'raw')],
    { ...how, discard: 'unmap' },
    false,
  );
  assert.deepEqual(
    nodes.map((node) => [node['node-name'], node['read-only'], node.backing, node.discard]),
    [
      ['ferry-1-format', true, undefined, undefined],
      ['ferry-2-format', true, 'ferry-1-format', undefined],
      ['ferry-3-format', false, 'ferry-2-format', 'unmap'],
    ],
  );
});

test('nothing is below a chain, whatever its last header says', () => {
  const [base] = chainOptions([layer(2), layer(1)], how, false);
  assert.equal(base?.backing, null);
});

test('reopening says everything again and names the file node', () => {
  const options = {
    driver: { cache: 'none', io: 'native', discard: 'unmap', detectZeroes: 'unmap' },
    readOnly: true,
    backing: 'ferry-7-format',
  } as const;
  const { file: _, ...said } = blockdevOptions(layer(1), options);
  assert.deepEqual(reopenOptions(layer(1), options), { ...said, file: 'ferry-1-storage' });
});
