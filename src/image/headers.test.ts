// Who stands on an image, found by reading the headers of a folder.

import assert from 'node:assert/strict';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { test } from 'node:test';

import { qcow2Header } from '../../test/lib/qcow2.js';
import { backingName, backingPath, namedInFolder } from './headers.js';

async function folder(t: TestContext): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'ferry-headers-'));
  t.after(async () => await rm(made, { recursive: true }));
  return made;
}

test('the name below stands in the header of a qcow2 image', async (t) => {
  const file = join(await folder(t), 'a');
  await writeFile(file, qcow2Header('base.img'));
  assert.equal(await backingName(file), 'base.img');
  await writeFile(file, qcow2Header(null));
  assert.equal(await backingName(file), null);
  await writeFile(file, 'QFI');
  assert.equal(await backingName(file), null);
  assert.equal(await backingName(`${file}.gone`), null);
});

for (const [name, want] of [
  ['base.img', '/a/base.img'],
  ['../b/base.img', '/b/base.img'],
  ['/c/base.img', '/c/base.img'],
  ['file:/c/base.img', '/c/base.img'],
  ['json:{"driver":"raw"}', null],
  ['nbd:localhost:10809', null],
] as const) {
  test(`${name} in the header of /a/top leads to ${want}`, () =>
    assert.equal(backingPath('/a/top', name), want));
}

/** [name of the other file, what is in it, whether it names base.img of its folder] */
const rows: readonly (readonly [string, (dir: string) => string | Buffer, boolean])[] = [
  ['an overlay', (dir) => qcow2Header(join(dir, 'base.img')), true],
  ['an overlay with a relative name', () => qcow2Header('base.img'), true],
  ['an overlay of another image', (dir) => qcow2Header(join(dir, 'base.img.2')), false],
  ['an overlay of the same name elsewhere', () => qcow2Header('/elsewhere/base.img'), false],
  ['an overlay that names it in JSON', () => qcow2Header('json:{"file":"x/base.img"}'), true],
  ['an image without a base', () => qcow2Header(null), false],
  ['a definition', (dir) => `<source file='${dir}/base.img'/>`, true],
  ['a list of other names', () => 'base.img.bak my-base.img xbase.img', false],
  ['a list with it at its end', () => 'other base.img', true],
  ['nothing', () => '', false],
];

for (const [what, content, isNamed] of rows) {
  test(`${what} ${isNamed ? 'names' : 'does not name'} the image`, async (t) => {
    const dir = await folder(t);
    const [base, other] = [join(dir, 'base.img'), join(dir, 'other')];
    await writeFile(base, qcow2Header(null));
    await writeFile(other, content(dir));
    assert.deepEqual(await namedInFolder(base), isNamed ? [other] : []);
  });
}

test('an overlay that names it by way of a symbolic link is found', async (t) => {
  const [dir, link] = [await folder(t), await folder(t)];
  await rm(link, { recursive: true });
  await symlink(dir, link);
  const base = join(dir, 'base.img');
  await writeFile(base, '');
  await writeFile(join(dir, 'top'), qcow2Header(join(link, 'base.img')));
  assert.deepEqual(await namedInFolder(base), [join(dir, 'top')]);
  await rm(link);
  await writeFile(link, '');
});

test('a folder that cannot be read is no folder without overlays', async () => {
  await assert.rejects(namedInFolder('/nowhere/base.img'), /ENOENT/);
});
