// The doctor's judgement: facts in, report out. Pure; what it cannot tell it says, with where to look.

import type { DaemonFacts, DoctorFacts, XmlFacts } from './facts.js';
import { diagnoseDomain } from './domain.js';
import { diagnoseOrphan, diagnoseStranger, diagnoseXml } from './strangers.js';
import type { DoctorFinding, DoctorReport, DomainDiagnosis } from './types.js';

export function report(facts: DoctorFacts): DoctorReport {
  const domains: readonly DomainDiagnosis[] = [
    ...facts.domains.map((domain) => diagnoseDomain(facts, domain)),
    ...facts.orphans.map((operation) => diagnoseOrphan(facts, operation)),
    ...facts.strangers.map((qemu) => diagnoseStranger(facts, qemu)),
    ...facts.xml.filter((xml) => !isKnown(facts, xml)).map((xml) => diagnoseXml(facts, xml)),
  ];
  const findings = hostFindings(facts);
  const all = [
    ...findings,
    ...domains.flatMap((domain) => [
      ...domain.findings,
      ...domain.disks.flatMap((disk) => disk.findings),
    ]),
  ];
  return {
    time: new Date(facts.nowSeconds * 1000).toISOString(),
    lookedBy: facts.lookedBy,
    healthy: !all.some(({ needsPerson }) => needsPerson),
    findings,
    domains,
  };
}

/** What the journal or QEMU tells of a domain counts more than a file that somebody kept. */
const isKnown = ({ domains, strangers }: DoctorFacts, xml: XmlFacts): boolean =>
  [...domains.map(({ record }) => record), ...strangers].some(
    ({ uuid, name }) => uuid === xml.uuid || name === xml.name,
  );

function hostFindings(facts: DoctorFacts): readonly DoctorFinding[] {
  const { daemon, journal, stateDir } = facts;
  return [
    ...(daemon.state === 'absent' ? [daemonFinding(facts, daemon)] : []),
    ...(journal.state === 'read' ? [] : [journalFinding(journal, stateDir)]),
    ...nothingOf(facts),
  ];
}

/** With a journal an unknown domain is an error; without one it may only not run. */
function nothingOf({ asked, journal, strangers, xml }: DoctorFacts): readonly DoctorFinding[] {
  if (asked === null || journal.state === 'read' || strangers.length + xml.length > 0) return [];
  const text = `of '${asked}' nothing can be told: no QEMU of that name or UUID runs here`;
  return [{ needsPerson: true, text, commands: [] }];
}

function daemonFinding(
  { journal, runDir, stateDir }: DoctorFacts,
  { problem, holder }: Extract<DaemonFacts, { readonly state: 'absent' }>,
): DoctorFinding {
  if (holder !== null)
    return {
      needsPerson: true,
      text: `${problem}; but ferryd ${holder} has state directory ${stateDir}: it uses another run directory, or it hangs`,
      commands: [
        {
          type: `tr '\\0' ' ' < /proc/${holder}/cmdline`,
          why: 'its run directory; ask again with that --run-dir',
        },
      ],
    };
  const start = {
    type: `ferryd --run-dir ${runDir} --state-dir ${stateDir}`,
    why: 'finds the guests again and goes on with what is open',
  };
  return {
    needsPerson: true,
    text: `${problem}; guests go on without it, and nothing that is half done goes on`,
    // Without its journal it would refuse to start, or begin a new one and know none of the guests.
    commands: journal.state === 'read' ? [start] : [],
  };
}

function journalFinding(
  journal: {
    readonly state: 'missing' | 'unreadable';
    readonly path: string;
    readonly problem: string;
  },
  stateDir: string,
): DoctorFinding {
  const what = journal.state === 'missing' ? 'there is no journal' : 'the journal cannot be read';
  return {
    needsPerson: true,
    text: `${what} (${journal.path}: ${journal.problem}): which images are stale, unfinished or owed cannot be told, nor what was under way; what follows is what QEMU and the images say`,
    commands: [
      {
        type: `ls -l ${stateDir} ${stateDir}/log`,
        why: 'is it the right folder? The logs tell which domains ran here',
      },
      {
        type: 'ferry doctor --xml DOMAIN.xml',
        why: 'what can be said of a definition that you kept',
      },
    ],
  };
}
