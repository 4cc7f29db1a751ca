// Where images go, under which names and in what form.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { FileFacts } from '../block/facts.js';
import type { Format, Image } from '../block/layer.js';
import { asItIs } from '../domain/move-form.js';
import type { MoveForm } from '../domain/move-form.js';
import { conversionOf, copiesOf, placeOf } from './move-places.js';

const seen = (kind: FileFacts['kind']): FileFacts => ({
  kind,
  sizeBytes: 0n,
  readable: true,
  writable: true,
  modifiedNs: 0n,
  device: 1n,
  bornMs: null,
});

/** [what it is, what was said, what is there, the live image, folder, name] */
const places: readonly (readonly [
  string,
  string,
  FileFacts | null,
  string,
  string,
  string | null,
])[] = [
  ['a folder', '/dst', seen('folder'), '/a/x.qcow2', '/dst', null],
  ['a folder with a slash', '/dst/', seen('folder'), '/a/x.qcow2', '/dst', null],
  ['a folder with the suffix of an image', '/d.img', seen('folder'), '/a/x.img', '/d.img', null],
  ['a file that is there', '/dst/web', seen('file'), '/a/x.qcow2', '/dst', 'web'],
  ['a new image', '/dst/web.qcow2', null, '/a/x.raw', '/dst', 'web.qcow2'],
  ['the suffix of the live image', '/dst/web.s2', null, '/a/x.s2', '/dst', 'web.s2'],
  ['nothing, and no suffix', '/dst/web', null, '/a/x', '/dst/web', null],
  ['nothing, and the suffix of nothing', '/mnt/new.d', null, '/a/x.img', '/mnt/new.d', null],
  ['a folder that is missing', '/dst/web.qcow2/', null, '/a/x.qcow2', '/dst/web.qcow2', null],
  ['no absolute path', 'web.qcow2', null, '/a/x.qcow2', 'web.qcow2', null],
];

for (const [what, said, at, top, to, name] of places)
  test(`--to: ${what}`, () => assert.deepEqual(placeOf(said, at, [top]), { to, name }));

const image = (path: string, format: Format = 'qcow2'): Image => ({
  source: { type: 'file', path },
  format,
  index: null,
});
const chain = [image('/a/top.qcow2'), image('/a/base.raw', 'raw')];
const single = [image('/a/disk.qcow2')];
const placing = (form: Partial<MoveForm>, name: string | null = null) => ({
  to: '/dst',
  name,
  stamp: '7',
  form: { ...asItIs, ...form },
});

test('names are kept, but for that of the top image where one is said or its suffix would lie', () => {
  const paths = (...args: Parameters<typeof copiesOf>): readonly string[] =>
    copiesOf(...args).map(({ path, format }) => `${path} ${format}`);
  assert.deepEqual(paths(chain, placing({})), ['/dst/top.qcow2 qcow2', '/dst/base.raw raw']);
  assert.deepEqual(paths(chain, placing({}, 'web')), ['/dst/web qcow2', '/dst/base.raw raw']);
  assert.deepEqual(paths(chain, placing({ flatten: true, format: 'raw' })), ['/dst/top.raw raw']);
  assert.deepEqual(paths([image('/a/x.img', 'raw')], placing({ format: 'qcow2' })), [
    '/dst/x.img qcow2',
  ]);
});

/** [what is asked, the chain, its cluster size, whether it is converted, how many images the result stands on] */
const conversions: readonly (readonly [Partial<MoveForm>, readonly Image[], boolean, number])[] = [
  [{}, chain, false, 0],
  [{ format: 'qcow2' }, chain, false, 0],
  [{ clusterSizeBytes: 65_536n }, chain, false, 0],
  [{ flatten: true }, single, false, 0],
  [{ flatten: true }, chain, true, 0],
  [{ clusterSizeBytes: 1n << 20n }, chain, true, 1],
  [{ format: 'raw' }, single, true, 0],
];

for (const [form, images, isConverted, below] of conversions)
  test(`${JSON.stringify(Object.keys(form))} of ${images.length}: ${isConverted ? 'made by qemu-img' : 'byte for byte'}`, () => {
    const found = conversionOf(images, placing(form), 65_536);
    assert.equal(found !== null, isConverted);
    assert.equal(found?.below.length ?? 0, below);
    if (found !== null) assert.equal(found.chain.length, images.length);
  });

test('a flattened image keeps the clusters of its top, a raw one has none', () => {
  assert.equal(conversionOf(chain, placing({ flatten: true }), 1 << 17)?.clusterSizeBytes, 1 << 17);
  const raw = conversionOf(chain, placing({ flatten: true, format: 'raw' }), 1 << 17);
  assert.equal(raw?.clusterSizeBytes, null);
});
