// What ferryd takes on its command line.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RequestError } from '../std/errors.js';
import { parseOptions } from './options.js';

test('--storage-limit names a directory and a size, several times', () => {
  const told = ['--storage-limit', '/mnt/a=50M', '--storage-limit', '/mnt/b=c=4096'];
  assert.deepEqual(parseOptions(told, '0').storageLimits, [
    { folder: '/mnt/a', bytesPerSecond: 50n << 20n },
    { folder: '/mnt/b=c', bytesPerSecond: 4096n },
  ]);
  assert.deepEqual(parseOptions([], '0').storageLimits, []);
  for (const wrong of ['mnt=5M', '/mnt', '/mnt=', '/mnt=0', '/mnt=-5M', '/mnt=5 M', '/mnt=1.5G'])
    assert.throws(() => parseOptions(['--storage-limit', wrong], '0'), RequestError, wrong);
});
