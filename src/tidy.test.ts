// The house rules that a compiler does not know. Lengths of files and functions, `any`, import cycles and floating
// promises are the linter's (.oxlintrc.json); what is here reads the sources as text.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

/**
 * A folder of src imports itself and the rows above its own, nothing else. `block` stands above `domain`, with which
 * it shares a row of the design's table: a disk of a domain holds a chain of images, and no chain knows a domain.
 */
const layers: readonly (readonly string[])[] = [
  ['std'],
  ['xml', 'xdr', 'qapi'],
  ['block'],
  ['domain'],
  ['plan'],
  ['qmp', 'journal', 'image'],
  ['job'],
  ['host'],
  ['rpc', 'http'],
  ['library'],
  ['daemon', 'cli', 'index.ts'],
];

const folderOf = (path: string): string => path.split('/')[1] ?? '';
const rowOf = (folder: string): number => layers.findIndex((row) => row.includes(folder));

/** [rule, files that it holds for, what no line of their code may show] */
const forbidden = [
  [
    'plans and models are pure',
    /^src\/(plan|block|domain)\/(?!testing\/|.*\.test\.ts)/,
    /\bPromise\b|\basync\b|\bawait\b|from 'node:(?!path)/,
  ],
  ['no work is left over without an issue', /./, /\b(FIX|TO)(ME|DO)\b(?!.*#\d)|\bX{3}\b/],
  ['only the command line prints', /^src\/(?!cli\/)/, /\bconsole\.\w+\(/],
  [
    'no test is left out or singled out',
    /\.test\.ts$/,
    /\b(t|it|test|describe|suite)\.(skip|only|todo)\b|\b(skip|only|todo): *(true|['"`])/,
  ],
  ['no test sleeps', /^test\/|\.test\.ts$/, /setTimeout\([^,]+, *\d{3,}\)|await (sleep|delay)\(/],
  ['no path of one machine is written down', /./, /['"`]\/(home|root|work)\//],
] as const;

interface Source {
  readonly path: string;
  readonly text: string;
}

// Tests and their helpers may import test/lib, test/fake, and any layer.
const isProduct = /^src\/(?!.*(\.test\.ts$|\/testing\/))/;
const root = new URL('../../', import.meta.url).pathname;
const sources = ['src', 'test', 'bench', 'examples']
  .filter((folder) => existsSync(join(root, folder)))
  .flatMap(sourcesIn)
  .filter(({ path }) => path !== 'src/tidy.test.ts');
const product = sources.filter(({ path }) => isProduct.test(path));

test('a folder of src imports itself and the rows above it only', () => {
  assert.deepEqual(product.flatMap(crossings), []);
});

test('every folder of src has its row', () => {
  const folders = new Set(product.map(({ path }) => folderOf(path)));
  assert.deepEqual(
    [...folders].filter((folder) => rowOf(folder) === -1),
    [],
  );
});

for (const [rule, files, pattern] of forbidden) {
  test(rule, () => {
    const concerned = sources.filter(({ path }) => files.test(path));
    assert.deepEqual(
      concerned.flatMap((source) => linesMatching(source, pattern)),
      [],
    );
  });
}

test('CANARY: what crosses the layers is seen', () => {
  const text =
    "import type { A } from '../std/a.js';\nexport * from './b.js';\nawait import('../rpc/c.js');\n";
  assert.deepEqual(crossings({ path: 'src/http/a.ts', text }), [
    'src/http/a.ts imports src/rpc/c.js',
  ]);
  assert.deepEqual(crossings({ path: 'src/std/b.ts', text: "from '../../test/c.js'" }), [
    'src/std/b.ts imports test/c.js',
  ]);
});

test('CANARY: what is forbidden is seen, but not in a comment that names it', () => {
  const [pure, leftOver, , singled] = forbidden.map(([, , pattern]) => pattern);
  for (const [text, pattern, count] of [
    ['return await x;', pure, 1],
    ['// never await here', pure, 0],
    [`// ${'todo'.toUpperCase()} later`, leftOver, 1],
    [`// ${'todo'.toUpperCase()} #12: later`, leftOver, 0],
    [['test', 'only'].join('.'), singled, 1],
  ] as const) {
    assert.equal(linesMatching({ path: 'a', text }, pattern ?? /$^/).length, count, text);
  }
});

function crossings({ path, text }: Source): readonly string[] {
  const names = [...text.matchAll(/(?:\bfrom|\bimport\(?) ?'(\.[^']+)'/g)].map(
    (match) => match[1] ?? '',
  );
  const targets = names.map((name) => normalize(join(dirname(path), name)));
  return targets.filter((to) => !mayImport(path, to)).map((to) => `${path} imports ${to}`);
}

function mayImport(path: string, target: string): boolean {
  const [from, to] = [folderOf(path), folderOf(target)];
  return target.startsWith('src/') && (from === to || rowOf(to) < rowOf(from));
}

/** Comments may name what is forbidden in code; work left over is what they may not hold. */
function linesMatching({ path, text }: Source, pattern: RegExp): readonly string[] {
  return text.split('\n').flatMap((line, i) => {
    const comment = /^\s*(\/\/|\/\*|\*)/.test(line);
    const looked = comment ? (/\b((FIX|TO)(ME|DO)|X{3})\b.*/.exec(line)?.[0] ?? '') : line;
    return pattern.test(looked) ? [`${path}:${i + 1}: ${line.trim()}`] : [];
  });
}

function sourcesIn(folder: string): Source[] {
  const names = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' });
  const paths = names.filter((name) => name.endsWith('.ts')).map((name) => join(folder, name));
  return paths.toSorted().map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));
}
