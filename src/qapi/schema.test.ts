import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { RequestError } from '../std/errors.js';
import { cachedSchema } from './cache.js';
import { isObject, parseJson, type JsonValue } from './json.js';
import {
  allowsOob,
  checkArguments,
  featuresOf,
  hasCommand,
  hasEvent,
  hasMember,
  hasValue,
  parseSchema,
  problemWithArguments,
  problemWithEvent,
  problemWithReply,
  type Schema,
} from './schema.js';

type Row = readonly [name: string, command: string, args: unknown, problem: string | null];

const file = { driver: 'file', filename: '/x' };
const rows: readonly Row[] = [
  ['no arguments', 'query-status', {}, null],
  ['a command that is not there', 'no-such', {}, 'The command no-such has not been found'],
  ['an event is no command', 'STOP', {}, 'The command STOP has not been found'],
  ['an unknown argument', 'stop', { x: 1 }, "Parameter 'x' is unexpected"],
  ['an unknown argument that is undefined', 'stop', { x: undefined }, null],
  ['a missing argument', 'blockdev-del', {}, "Parameter 'node-name' is missing"],
  [
    'a mistyped string',
    'blockdev-del',
    { 'node-name': 1 },
    "Invalid parameter type for 'node-name', expected: string",
  ],
  ['arguments that are a list', 'stop', [], 'arguments must be of type object'],
  ['a format node with an inline child', 'blockdev-add', { driver: 'qcow2', file }, null],
  ['a child by name', 'blockdev-add', { driver: 'qcow2', file: 'f' }, null],
  [
    'an error inside an inline child',
    'blockdev-add',
    { driver: 'qcow2', file: { driver: 'file' } },
    "Parameter 'file.filename' is missing",
  ],
  [
    'an unknown member inside a child',
    'blockdev-add',
    { driver: 'qcow2', file: { ...file, y: 1 } },
    "Parameter 'file.y' is unexpected",
  ],
  [
    'a member of another variant',
    'blockdev-add',
    { ...file, backing: null },
    "Parameter 'backing' is unexpected",
  ],
  [
    'an unknown driver',
    'blockdev-add',
    { driver: 'zip' },
    "Parameter 'driver' does not accept value 'zip'",
  ],
  [
    'null where an alternate takes it',
    'blockdev-add',
    { driver: 'qcow2', file, backing: null },
    null,
  ],
  [
    'null where none is taken',
    'blockdev-add',
    { driver: 'qcow2', file: null },
    "Invalid parameter type for 'file', expected: object or string",
  ],
  [
    'a nested discriminator',
    'blockdev-add',
    { driver: 'nbd', server: { type: 'unix', path: '/s' } },
    null,
  ],
  [
    'a wrong nested discriminator',
    'blockdev-add',
    { driver: 'nbd', server: { type: 'unix', host: 'h' } },
    "Parameter 'server.path' is missing",
  ],
  ['a bigint', 'blockdev-add', { driver: 'null-co', size: 2n ** 40n }, null],
  [
    'an integer that no 64 bits hold',
    'blockdev-add',
    { driver: 'null-co', size: 2n ** 64n },
    "Invalid parameter type for 'size', expected: integer",
  ],
  [
    'a fraction for an integer',
    'blockdev-add',
    { driver: 'null-co', size: 1.5 },
    "Invalid parameter type for 'size', expected: integer",
  ],
  [
    'a text for a boolean',
    'blockdev-add',
    { ...file, 'read-only': 'on' },
    "Invalid parameter type for 'read-only', expected: boolean",
  ],
  [
    'an action in a list',
    'transaction',
    { actions: [{ type: 'blockdev-snapshot', data: { node: 'a', overlay: 'b' } }] },
    null,
  ],
  [
    'an error in a list',
    'transaction',
    {
      actions: [
        { type: 'abort', data: {} },
        { type: 'blockdev-snapshot', data: { node: 'a' } },
      ],
    },
    "Parameter 'actions[1].data.overlay' is missing",
  ],
  [
    'a list that is an object',
    'transaction',
    { actions: {} },
    "Invalid parameter type for 'actions', expected: array",
  ],
  [
    'an enum',
    'blockdev-mirror',
    { device: 'a', target: 'b', sync: 'some' },
    "Parameter 'sync' does not accept value 'some'",
  ],
  [
    'an alternate of list elements',
    'transaction',
    {
      actions: [
        {
          type: 'block-dirty-bitmap-merge',
          data: { node: 'n', target: 't', bitmaps: ['a', { node: 'm', name: 'b' }] },
        },
      ],
    },
    null,
  ],
  ['any value', 'qom-set', { path: '/', property: 'p', value: [1, null] }, null],
];

for (const version of ['7.2.22', '10.0.2'] as const)
  for (const [name, command, args, problem] of rows)
    test(`schema ${version}: ${name} is ${problem === null ? 'taken' : 'refused'}`, () => {
      assert.equal(sorted(problemWithArguments(recorded(version), command, args)), sorted(problem));
    });

test('a refusal before sending names the command and the argument', () => {
  const check = (): void => checkArguments(recorded('7.2.22'), 'blockdev-del', {});
  assert.throws(check, (error: unknown) => {
    assert.ok(error instanceof RequestError);
    assert.equal(error.message, "qmp blockdev-del: Parameter 'node-name' is missing; not sent");
    return true;
  });
});

test('an integer keeps its type in replies and events', () => {
  const schema = recorded('7.2.22');
  const status = { running: true, status: 'running', singlestep: false };
  assert.equal(problemWithReply(schema, 'query-status', status), null);
  assert.equal(
    problemWithReply(schema, 'query-jobs', [{ id: 'j' }]),
    "Parameter '[0].type' is missing",
  );
  assert.equal(problemWithEvent(schema, 'JOB_STATUS_CHANGE', { id: 'j', status: 'ready' }), null);
  assert.match(
    problemWithEvent(schema, 'JOB_STATUS_CHANGE', { id: 'j', status: 'x' }) ?? '',
    /'x'/,
  );
});

const abilities: readonly [
  name: string,
  ask: (schema: Schema) => boolean,
  old: boolean,
  now: boolean,
][] = [
  ['block-job-change', (s) => hasCommand(s, 'block-job-change'), false, true],
  ['blockdev-mirror', (s) => hasCommand(s, 'blockdev-mirror'), true, true],
  ['an event as a command', (s) => hasCommand(s, 'STOP'), false, false],
  ['JOB_STATUS_CHANGE', (s) => hasEvent(s, 'JOB_STATUS_CHANGE'), true, true],
  ['an argument', (s) => hasMember(s, 'blockdev-mirror', 'copy-mode'), true, true],
  ['a new argument', (s) => hasMember(s, 'block-commit', 'backing-mask-protocol'), false, true],
  ['a variant member', (s) => hasMember(s, 'block-job-change', 'copy-mode'), false, true],
  ['a member behind an alternate', (s) => hasMember(s, 'blockdev-add', 'file/locking'), true, true],
  [
    'a member behind a list',
    (s) => hasMember(s, 'transaction', 'actions/data/overlay'),
    true,
    true,
  ],
  ['a member that no version has', (s) => hasMember(s, 'blockdev-add', 'file/nope'), false, false],
  [
    'a transaction action',
    (s) => hasValue(s, 'transaction', 'actions/type', 'blockdev-snapshot'),
    true,
    true,
  ],
  ['an enum value', (s) => hasValue(s, 'blockdev-mirror', 'sync', 'nope'), false, false],
  ['yank out of band', (s) => allowsOob(s, 'yank'), true, true],
  ['stop out of band', (s) => allowsOob(s, 'stop'), false, false],
  [
    'late backing',
    (s) => featuresOf(s, 'blockdev-snapshot').includes('allow-write-only-overlay'),
    true,
    true,
  ],
  [
    'a feature of an argument',
    (s) => featuresOf(s, 'block-commit', 'base').includes('deprecated'),
    true,
    true,
  ],
];

for (const [name, ask, old, now] of abilities)
  test(`probing tells 7.2 and 10.0 apart: ${name}`, () => {
    assert.deepEqual([ask(recorded('7.2.22')), ask(recorded('10.0.2'))], [old, now]);
  });

const malformed: readonly unknown[] = [
  null,
  {},
  [1],
  [{ name: 'x' }],
  [{ name: 'x', 'meta-type': 'zip' }],
  [{ name: 'x', 'meta-type': 'array', 'element-type': 'y' }],
];

for (const reply of malformed)
  test(`a reply that is no schema is refused: ${JSON.stringify(reply)}`, () =>
    assert.throws(() => parseSchema(reply), RequestError));

test('a cached schema is fetched once, and again when binary or version changed or the file is torn', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-schema-'));
  try {
    const binary = join(directory, 'qemu');
    await writeFile(binary, 'x');
    const cache = { directory: join(directory, 'cache'), binary };
    let fetched = 0;
    const fetch = async (): Promise<unknown> => (fetched++, rawReply('7.2.22'));
    const load = async (version: string): Promise<boolean> =>
      hasCommand(await cachedSchema(cache, version, fetch), 'stop');

    assert.ok((await load('7.2.22')) && (await load('7.2.22')));
    assert.equal(fetched, 1);
    assert.ok(await load('another version behind the same path'));
    assert.equal(fetched, 2);
    await utimes(binary, 1, 1);
    assert.ok(await load('7.2.22'));
    assert.equal(fetched, 3);

    const files = await readdir(cache.directory);
    assert.ok(
      files.every((name) => name.endsWith('.json')),
      'no draft is left',
    );
    for (const name of files) await writeFile(join(cache.directory, name), '{"version":');
    assert.ok(await load('7.2.22'));
    assert.equal(fetched, 4);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('of many that ask at once with one memory one fetches, and a failure is not remembered', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-schema-'));
  try {
    const cache = { directory, binary: process.execPath, memory: new Map() };
    const fails = async (): Promise<unknown> => Promise.reject(new Error('QEMU is gone'));
    await assert.rejects(cachedSchema(cache, 'v', fails), /QEMU is gone/);
    let fetched = 0;
    const fetch = async (): Promise<unknown> => (fetched++, rawReply('7.2.22'));
    const asked = Array.from({ length: 50 }, () => cachedSchema(cache, 'v', fetch));
    const schemas = new Set(await Promise.all(asked));
    assert.deepEqual([schemas.size, fetched], [1, 1]);
    // What one process remembers is no reason to believe another version.
    assert.ok(!schemas.has(await cachedSchema(cache, 'w', fetch)));
    assert.equal(fetched, 2);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('a cache that cannot be written costs nothing but time', async () => {
  // Below a file. (Below /proc, mkdir of Node 20 with `recursive` never comes back.)
  const cache = { directory: `${process.execPath}/cache`, binary: process.execPath };
  assert.ok(hasCommand(await cachedSchema(cache, 'v', async () => rawReply('7.2.22')), 'stop'));
});

/** The order in which an alternate lists its types is QEMU's. */
const sorted = (problem: string | null): string | null =>
  problem?.replace(
    /expected: (\w+) or (\w+)$/,
    (_, a, b) => `expected: ${[a, b].toSorted().join(' or ')}`,
  ) ?? null;

const known = new Map<string, Schema>();

function recorded(version: string): Schema {
  const schema = known.get(version) ?? parseSchema(rawReply(version));
  known.set(version, schema);
  return schema;
}

function rawReply(version: string): JsonValue {
  const url = new URL(`../../../test/fixtures/qmp-schema/${version}.json`, import.meta.url);
  const reply = parseJson(readFileSync(fileURLToPath(url), 'utf8'));
  assert.ok(!isObject(reply));
  return reply;
}
