// `ferry doctor`: the same look and the same judgement in the daemon and without it.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostImages } from '../../image/qemu-img.js';
import { connect } from '../../qmp/monitor.js';
import { QemuError } from '../../std/errors.js';
import { atLeastOlderOf, readCounts } from '../ages.js';
import type { Host } from '../host.js';
import type { XmlFacts } from './facts.js';
import { readJournalCopy } from './journal-copy.js';
import { lookAround } from './look.js';
import { report } from './report.js';
import type { DoctorReport } from './types.js';

/** The daemon's own look: its journal, its connections. */
export async function doctor(host: Host, name: string | null): Promise<DoctorReport> {
  const { config, images, known } = host.context;
  const { runDir, stateDir } = config;
  await host.ages.lookAtAll();
  const facts = await lookAround(
    {
      lookedBy: 'ferryd',
      daemon: { state: 'answers' },
      journalFacts: { state: 'read', path: join(stateDir, 'ferry.db') },
      journal: known.journal,
      runDir,
      stateDir,
      images,
      nowSeconds: host.nowSeconds,
      running: new Set(host.running.keys()),
      monitorOf: (uuid) => async (body) => {
        const monitor = await host.guestOf(uuid).monitor();
        if (monitor === null) throw new QemuError('QEMU is gone', { qmpClass: 'Gone' });
        return await body(monitor);
      },
      xml: [],
      olderOf: (role) => host.ages.of(role),
    },
    name,
  );
  return report(facts);
}

export interface WithoutDaemon {
  readonly runDir: string;
  readonly stateDir: string;
  readonly nowSeconds: number;
  /** Why the daemon could not be asked; null: nobody wanted to. */
  readonly problem: string | null;
  readonly xml: readonly XmlFacts[];
}

/** The ferryd that wrote its pid into the state directory, if it lives. */
function holderOf(stateDir: string): number | null {
  try {
    const pid = Number(readFileSync(join(stateDir, 'ferryd.pid'), 'utf8'));
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('ferryd') ? pid : null;
  } catch {
    return null;
  }
}

const GREETING_TIMEOUT_MS = 2000;

/** Reads the journal's files and asks QEMU itself, if nobody else is connected to it. Changes nothing. */
export async function doctorWithoutDaemon(
  { runDir, stateDir, nowSeconds, problem, xml }: WithoutDaemon,
  name: string | null,
): Promise<DoctorReport> {
  await using copy = await readJournalCopy(stateDir);
  const counts = copy.journal === null ? new Map() : await readCounts(copy.journal);
  const facts = await lookAround(
    {
      lookedBy: 'ferry',
      daemon:
        problem === null
          ? { state: 'unasked' }
          : { state: 'absent', problem, holder: holderOf(stateDir) },
      journalFacts: copy.facts,
      journal: copy.journal,
      runDir,
      stateDir,
      images: hostImages(),
      nowSeconds,
      running: new Set(),
      monitorOf: (_, path) => async (body) => {
        await using monitor = await connect({ path, greetingTimeoutMs: GREETING_TIMEOUT_MS });
        return await body(monitor);
      },
      xml,
      olderOf: (role) => atLeastOlderOf(counts, role, nowSeconds),
    },
    name,
  );
  return report(facts);
}
