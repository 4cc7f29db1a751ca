// `ferry doctor`: asks the daemon, and looks itself where there is none.

import type { Command } from 'commander';

import type { DoctorReport } from '../host/doctor/types.js';
import type { XmlFacts } from '../host/doctor/facts.js';
import { RemoteError } from '../http/wire.js';
import { codes, messageOf, RequestError } from '../std/errors.js';
import { doctorText } from './doctor-text.js';
import type { Session } from './session.js';
import { readInput } from './session.js';

/** A daemon that takes longer hangs; what it would say is looked at without it. */
const DAEMON_TIMEOUT_MS = 30_000;

interface DoctorOptions {
  readonly daemon: boolean;
  readonly xml?: string;
}

export function addDoctorCommand(program: Command, open: () => Session): void {
  program
    .command('doctor')
    .argument('[domain]', 'name, UUID or id; default: all domains')
    .description('say which image of each disk is live and why, what is stale, what waits for whom')
    .option('--no-daemon', 'do not ask ferryd: look at the journal, QEMU and the images')
    .option('--xml <file>', 'a definition that you kept, for when there is no journal')
    .addHelpText(
      'after',
      `
Works without a running ferryd too, and changes nothing: the journal is read from a copy, QEMU is only asked.
Exit code: 0 nothing is wrong, 7 something waits for a person (the lines with !).

Examples:
  ferry doctor                       how is everything?
  ferry doctor vm1                   which image is the live one?
  ferry doctor --json | jq -r '.domains[].disks[] | "\\(.target) \\(.live)"'`,
    )
    .action(async (domain: string | undefined, options: DoctorOptions) => {
      const session = open();
      const report = await examined(session, domain ?? null, options);
      session.print(report, () => doctorText(report, session.paint));
      if (!report.healthy) process.exitCode = codes.INTERNAL_ERROR.exit;
    });
}

async function examined(
  session: Session,
  domain: string | null,
  { daemon, xml }: DoctorOptions,
): Promise<DoctorReport> {
  if (xml !== undefined) {
    if (domain !== null)
      throw new RequestError('INVALID_ARG', 'the XML names its domain; give the one or the other');
    const { xmlFacts } = await import('../host/doctor/xml.js');
    const facts = await xmlFacts(await readInput(xml));
    return await alone(session, facts.name, null, [facts]);
  }
  if (!daemon) return await alone(session, domain, null, []);
  try {
    return await session.client.doctor(domain, AbortSignal.timeout(DAEMON_TIMEOUT_MS));
  } catch (error) {
    // What the daemon itself says is its answer.
    if (error instanceof RemoteError) throw error;
    return await alone(session, domain, whyNot(error), []);
  }
}

/** The message of the client, without the advice that the report gives better. */
const whyNot = (error: unknown): string => messageOf(error).split('; ')[0] ?? '';

async function alone(
  { runDir, stateDir }: Session,
  domain: string | null,
  problem: string | null,
  xml: readonly XmlFacts[],
): Promise<DoctorReport> {
  // Half of the daemon: no other command loads it.
  const { doctorWithoutDaemon } = await import('../host/doctor/doctor.js');
  const nowSeconds = Math.floor(Date.now() / 1000);
  return await doctorWithoutDaemon({ runDir, stateDir, nowSeconds, problem, xml }, domain);
}
