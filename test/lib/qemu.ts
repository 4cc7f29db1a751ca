// Which QEMUs the tests run on: the installed one, or those that FERRY_TEST_QEMUS names (separated by ':').

import { basename, dirname, join } from 'node:path';
import { existsSync } from 'node:fs';

export interface TestQemu {
  /** For names of tests. */
  readonly name: string;
  readonly system: string;
  readonly img: string;
  readonly storageDaemon: string;
}

export function testQemus(): readonly [TestQemu, ...TestQemu[]] {
  const named = (process.env['FERRY_TEST_QEMUS'] ?? '').split(':').filter((path) => path !== '');
  const [first = '/usr/bin/qemu-system-x86_64', ...rest] = named;
  return [describe(first), ...rest.map(describe)];
}

function describe(system: string): TestQemu {
  return {
    name:
      system === '/usr/bin/qemu-system-x86_64'
        ? 'installed QEMU'
        : basename(dirname(dirname(system))),
    system,
    img: beside(system, 'qemu-img'),
    storageDaemon: beside(system, 'qemu-storage-daemon'),
  };
}

/** A tool of the same QEMU where there is one, the installed one otherwise. */
function beside(system: string, tool: string): string {
  const path = join(dirname(system), tool);
  return existsSync(path) ? path : `/usr/bin/${tool}`;
}
