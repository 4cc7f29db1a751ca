// What a host keeps at hand, over a journal in memory and without a QEMU.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import type { CopyWhole } from '../block/copy.js';
import { pino } from 'pino';

import type { Definition } from '../domain/definition.js';
import type { Change } from '../domain/record.js';
import { hostImages } from '../image/qemu-img.js';
import type { ImageStore } from '../image/store.js';
import { MemoryJournal } from '../journal/memory.js';
import { refuse } from '../plan/refuse.js';
import type { Plan } from '../plan/step.js';
import { until } from '../std/deadline.js';
import { Known } from './context.js';
import type { EmulatorFacts } from './emulator.js';
import { Host } from './host.js';

const uuid = 'c0ffee00-0000-4000-8000-000000000003';

// Only what records and plans look at.
const definition = { uuid, name: 'vm1', disks: [], emulator: '' } as unknown as Definition;

const started: Change = {
  change: 'start',
  live: {
    id: 1,
    pid: 1,
    startTicks: 1,
    definition,
    state: { state: 'running', reason: 'booted' },
    nextIndex: 1,
    mirrors: [],
    rebooting: false,
  },
};

async function withHost(
  body: (host: Host) => Promise<void>,
  images: Partial<ImageStore> = {},
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'ferry-host-'));
  const config = {
    runDir: directory,
    stateDir: directory,
    emulator: '',
    qemuUser: null,
    sandbox: true,
    log: pino({ level: 'silent' }),
    nowMs: () => 0,
    newUuid: () => uuid,
  };
  const known = await Known.over(new MemoryJournal());
  // Nobody asks what QEMU can do here.
  const context = { config, known, images: { ...hostImages(), ...images } };
  const host = new Host(context, {} as EmulatorFacts, uuid);
  try {
    await body(host);
  } finally {
    await host.close();
    rmSync(directory, { recursive: true });
  }
}

const nothingAtHand = async (host: Host): Promise<unknown> =>
  await until(() => (host.guestCount === 0 ? true : null), 5000, 'nothing is at hand');

test('of a transient domain whose QEMU ended nothing stays at hand', async () => {
  await withHost(async (host) => {
    await host.known.journal.record(uuid, [started]);
    await host.look(uuid);
    assert.equal(host.known.find(uuid), null, 'its death was seen');
    await nothingAtHand(host);
  });
});

test('a domain that is known stays at hand when it is off', async () => {
  await withHost(async (host) => {
    await host.known.journal.record(uuid, [{ change: 'define', definition, chains: [] }, started]);
    await host.look(uuid);
    await until(() => (host.known.find(uuid)?.live === null ? true : null), 5000, 'seen');
    await host.look(uuid);
    assert.equal(host.guestCount, 1);
  });
});

test('of a domain that was refused nothing stays at hand', async () => {
  await withHost(async (host) => {
    await assert.rejects(
      host.operate(uuid, () => refuse(new Error('no'))),
      /no/,
    );
    await nothingAtHand(host);
  });
});

test('a domain stays at hand while an operation goes on about it, known or not', async () => {
  let end: () => void = () => undefined;
  const file = { inode: 1n, sizeBytes: 1n, mtimeNs: 1n };
  const whole: CopyWhole = { how: 'data', root: 'r', file };
  const copying = new Promise<CopyWhole>((resolve) => (end = () => resolve(whole)));
  const plan: Plan = {
    operation: 'move',
    domain: uuid,
    domainName: 'vm1',
    steps: [
      { kind: 'copy-image', from: '/nowhere/a', to: '/nowhere/b', format: 'raw', backing: null },
    ],
    commitAt: 1,
  };
  const body = async (host: Host): Promise<void> => {
    const { ended } = await host.begin(uuid, () => plan);
    await host.look(uuid);
    assert.equal(host.guestCount, 1);
    end();
    await assert.rejects(ended);
    await nothingAtHand(host);
  };
  await withHost(body, { copy: () => copying });
});
