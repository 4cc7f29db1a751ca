// A folder with images and a journal that tells how they came to be there, for tests of gc.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { qcow2Header } from '../../../../test/lib/qcow2.js';
import type { VerifyMode } from '../../../block/copy.js';
import type { Definition } from '../../../domain/definition.js';
import type { Change, ImageRole } from '../../../domain/record.js';
import { MemoryJournal } from '../../../journal/memory.js';
import type { ImageFile, Plan, Step, StepOf } from '../../../plan/step.js';
import { disk } from '../../doctor/testing/facts.js';
import { judgeAll } from '../judge.js';
import { lookForGarbage } from '../look.js';
import type { GcItem } from '../types.js';

export const uuid = '11111111-2222-4333-8444-555555555555';

export class History {
  readonly dir: string;
  readonly journal: MemoryJournal;
  /** Of the journal; what a test makes later has changed since. */
  nowMs = Date.now;

  private constructor(dir: string) {
    this.dir = dir;
    this.journal = new MemoryJournal({ nowMs: () => this.nowMs() });
  }

  /** Domain vm1 with disk vda on `live.qcow2`. */
  static async open(t: TestContext): Promise<History> {
    const dir = await mkdtemp(join(tmpdir(), 'ferry-gc-'));
    t.after(async () => await rm(dir, { recursive: true }));
    await Promise.all(['run', 'state'].map(async (name) => await mkdir(join(dir, name))));
    const history = new History(dir);
    await history.image('live.qcow2');
    await history.define(['live.qcow2']);
    return history;
  }

  at(name: string): string {
    return join(this.dir, name);
  }

  async image(name: string, backing: string | null = null): Promise<void> {
    await writeFile(this.at(name), qcow2Header(backing === null ? null : this.at(backing)));
  }

  async define(chain: readonly string[]): Promise<void> {
    const paths = chain.map((name) => this.at(name));
    // Only what is looked at.
    const definition = { uuid, name: 'vm1', disks: [disk(paths)] } as unknown as Definition;
    await this.journal.record(uuid, [{ change: 'define', definition, chains: [] }]);
  }

  role(name: string, role: ImageRole['role'] = 'unfinished'): Extract<Change, { change: 'role' }> {
    return {
      change: 'role',
      role: {
        path: this.at(name),
        role,
        domain: uuid,
        domainName: 'vm1',
        target: 'vda',
        live: this.at('live.qcow2'),
        sinceSeconds: 1,
      },
    };
  }

  /** An operation that did all its steps and ended. `changes` come with the step of that number. */
  async ended(
    operation: Plan['operation'],
    steps: readonly Step[],
    changes: Readonly<Record<number, readonly Change[]>> = {},
    more: Partial<Plan> = {},
  ): Promise<number> {
    const id = await this.begun(operation, steps, 0, more);
    for (const step of steps.keys())
      await this.journal.append(id, { type: 'done', step }, changes[step] ?? []);
    await this.journal.append(id, { type: 'end', outcome: 'committed' });
    return id;
  }

  /** One that did all its steps and took them back. */
  async undone(operation: Plan['operation'], steps: readonly Step[]): Promise<void> {
    const id = await this.begun(operation, steps);
    for (const step of steps.keys()) await this.journal.append(id, { type: 'done', step });
    await this.journal.append(id, { type: 'rollback', reason: 'boom' });
    for (const step of [...steps.keys()].toReversed())
      await this.journal.append(id, { type: 'undone', step });
    await this.journal.append(id, { type: 'end', outcome: 'rolled-back' });
  }

  async begun(
    operation: Plan['operation'],
    steps: readonly Step[],
    commitAt: number = steps.length,
    more: Partial<Plan> = {},
  ): Promise<number> {
    const plan = { operation, domain: uuid, domainName: 'vm1', steps, commitAt, ...more };
    return await this.journal.begin(plan);
  }

  create(name: string, existed = false): Step {
    return {
      kind: 'create-image',
      path: this.at(name),
      sizeBytes: 1024n,
      backing: null,
      clusterSizeBytes: null,
      existed,
    };
  }

  file(name: string): ImageFile {
    return { path: this.at(name), format: 'qcow2' };
  }

  copy(from: string, to: string, verify: VerifyMode = 'full'): StepOf<'copy-image'> {
    return {
      kind: 'copy-image',
      from: this.at(from),
      to: this.at(to),
      format: 'qcow2',
      backing: null,
      verify,
    };
  }

  async items(): Promise<readonly GcItem[]> {
    const around = {
      journal: this.journal,
      runDir: this.at('run'),
      stateDir: this.at('state'),
      nowSeconds: 2,
      olderOf: () => ({ seconds: 1, writtenBytes: 5n, isAtLeast: false }),
    };
    return judgeAll(await lookForGarbage(around));
  }

  async item(name: string): Promise<GcItem | null> {
    return (await this.items()).find(({ path }) => path === this.at(name)) ?? null;
  }
}
