// What is wrong with a QEMU, what is under way in a domain, and what waits for whom. Pure.

import type { OperationRecord } from '../../journal/journal.js';
import type { CommandHint } from '../ferry-host.js';
import { storyOf, undoHints } from '../story.js';
import type { DaemonFacts, DoctorFacts, DomainFacts } from './facts.js';
import type { DoctorFinding } from './types.js';

/** There is no ferryd that could see to it. */
export const isAlone = (daemon: DaemonFacts): boolean =>
  daemon.state === 'absent' && daemon.holder === null;

const finding = (
  needsPerson: boolean,
  text: string,
  commands: readonly CommandHint[] = [],
): DoctorFinding => ({ needsPerson, text, commands });

export function qemuFindings(facts: DoctorFacts, domain: DomainFacts): readonly DoctorFinding[] {
  const { record, qemu, open } = domain;
  if (qemu === null) {
    const text = 'QEMU died; ferryd makes that known when it looks, and says what comes of it';
    return record.live === null ? [] : [finding(false, text)];
  }
  const { monitor, pid } = qemu;
  const found = qemu.inRunDir ? [] : [lostFinding(facts, pid)];
  if (monitor.state === 'busy') {
    const text = `the monitor of QEMU ${pid} is busy: another program is connected to it`;
    const which = { type: `ss -xp | grep ${record.uuid}.qmp`, why: 'which program that is' };
    return [...found, finding(isAlone(facts.daemon), text, [which])];
  }
  if (monitor.state !== 'answered') return found;
  const isSeenTo = facts.daemon.state === 'answers' && open.length > 0;
  if (record.live === null)
    found.push(
      finding(
        !isSeenTo,
        'QEMU runs although the journal has the domain shut off: a start was under way',
      ),
    );
  if (monitor.runState === 'paused' && record.live?.state.state === 'running')
    found.push(
      finding(
        !isSeenTo,
        'the guest stands still although nobody suspended it: it was caught in a pause of ours, and goes on when ferryd settles that',
      ),
    );
  if (monitor.runState === 'io-error') found.push(errorFinding(record.name));
  return found;
}

const lostFinding = ({ runDir }: DoctorFacts, pid: number): DoctorFinding =>
  finding(
    true,
    `QEMU ${pid} runs, and run directory ${runDir} does not tell of it: another one was in use, or it was emptied. A ferryd that starts with this one takes the domain for dead`,
    [
      {
        type: `tr '\\0' ' ' < /proc/${pid}/cmdline`,
        why: 'its command line names the run directory that it was started with',
      },
    ],
  );

const errorFinding = (name: string): DoctorFinding =>
  finding(
    true,
    'the guest stands still because of an I/O error of its storage: mend that first (room, mount, cable)',
    [{ type: `virsh resume ${name}`, why: 'then let it go on' }],
  );

export function operationFinding(
  facts: DoctorFacts,
  running: ReadonlySet<number>,
  operation: OperationRecord,
): DoctorFinding {
  const { id, kind, attention, waiting } = operation;
  const hasDaemon = facts.daemon.state === 'answers';
  const story = storyOf(operation, running.has(id));
  const show = { type: `ferry ops show ${id}`, why: 'its steps' };
  const text = (what: string): string => `operation ${id} '${kind}', ${story.soFar}: ${what}`;
  // Without a daemon it waits for that first, and that is said for all of them.
  if (attention === null && waiting !== null)
    return finding(false, text(`waits for ${story.waitsFor}`), [show, ...story.commands]);
  if (attention === null)
    return finding(
      false,
      text(`now ${story.now ?? 'its end'}`),
      hasDaemon ? [show, ...undoHints(operation)] : [],
    );
  return finding(true, text(`waits for ${story.waitsFor}`), [show, ...story.commands]);
}

/** A mirror stays until its owner ends it; for him it is good to know how. */
export function mirrorFindings({ record, qemu }: DomainFacts): readonly DoctorFinding[] {
  if (qemu === null || record.live === null) return [];
  const owners = record.live.mirrors.flatMap(({ snapshot, move }) =>
    snapshot === null || move ? [] : [snapshot],
  );
  return [...new Set(owners)].map((snapshot) => {
    const command = `ferry snapshot-delete ${record.name} ${snapshot}`;
    return finding(
      false,
      `snapshot '${snapshot}' has a mirror, which stays until somebody ends it`,
      [
        { type: `${command} --reopen-mirror`, why: 'the guest goes over to it' },
        { type: `${command} --remove-mirror`, why: 'the guest stays where it is' },
      ],
    );
  });
}
