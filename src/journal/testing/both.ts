// A bench that holds either journal, so that one suite speaks of both.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import type { OperationName } from '../../plan/operation.js';
import type { Plan } from '../../plan/step.js';
import type { Journal, Retention } from '../journal.js';
import { MemoryJournal } from '../memory.js';
import { openJournal } from '../sqlite.js';

export const uuid = 'c0ffee00-0000-4000-8000-000000000001';

export const plan: Plan = {
  operation: 'toy' as string as OperationName, // A plan of its own, which no planner makes.
  domain: uuid,
  domainName: 'vm-1',
  steps: [
    {
      kind: 'create-image',
      path: '/a',
      sizeBytes: 2n ** 62n,
      backing: null,
      clusterSizeBytes: null,
      existed: false,
    },
    { kind: 'record' },
  ],
  commitAt: 2,
};

export interface Bench {
  readonly journal: Journal;
  /** The process dies and another opens what it left. */
  reopen(): Promise<Journal>;
}

interface Options {
  readonly nowMs?: () => number;
  readonly keep?: Partial<Retention>;
}

const kinds = {
  memory: (options: Options) => {
    let journal = new MemoryJournal(options);
    const reopen = async () => (journal = journal.crash());
    return { journal, reopen, end: async () => undefined };
  },
  sqlite: (options: Options) => {
    const stateDir = mkdtempSync(join(tmpdir(), 'ferry-journal-'));
    let journal = openJournal({ stateDir, ...options });
    const reopen = async () => {
      await journal[Symbol.asyncDispose]();
      return (journal = openJournal({ stateDir, ...options }));
    };
    const end = async () => {
      await journal[Symbol.asyncDispose]();
      rmSync(stateDir, { recursive: true });
    };
    return { journal, reopen, end };
  },
};

/** A fact of both journals. */
export function fact(
  name: string,
  body: (bench: Bench) => Promise<void>,
  options: Options = {},
): void {
  for (const [kind, make] of Object.entries(kinds)) {
    test(`journal in ${kind}: ${name}`, async () => {
      const bench = make(options);
      try {
        await body(bench);
      } finally {
        await bench.end();
      }
    });
  }
}
