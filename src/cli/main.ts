// The `ferry` command: its options, its commands, its errors and exit codes.

import { readFileSync } from 'node:fs';

import { Command, CommanderError } from 'commander';

import { toJson } from '../http/wire.js';
import { addDoctorCommand } from './doctor-commands.js';
import { addGcCommand } from './gc-commands.js';
import { addDomainCommands } from './domain-commands.js';
import { errorText, tell } from './error-text.js';
import { addMoveCommands } from './move-commands.js';
import { addPaceCommands } from './pace-commands.js';
import { addPivotCommand, joinPivot } from './pivot-commands.js';
import { addOperationCommands } from './operation-commands.js';
import type { GlobalOptions } from './session.js';
import { openSession, paintFor } from './session.js';
import { addSnapshotCommands } from './snapshot-commands.js';
import { addSourceCommands } from './source-commands.js';

const examples = `
DOMAIN is a name, a UUID or an id; DISK is a target such as vda, or the path of its image.

Examples:
  ferry list --all                          what there is
  ferry doctor                              which images are live, is anything wrong?
  ferry chain vm1                           what is below the live image?
  ferry move vm1 vda --to /mnt/new          move a disk of the running guest
  ferry ops                                 what is the daemon doing?
  ferry gc                                  what was left, and can it go?

Exit codes: 0 done, 2 wrong request, 3 no such thing, 4 not in this state, 5 busy or no ferryd,
  6 QEMU or the system refused, 7 a person has to decide, 130 interrupted.`;

/** Runs one command line, without the words `node ferry`. Sets the exit code of the process. */
export async function main(argv: readonly string[]): Promise<void> {
  // The reader of a pipe may leave early: `ferry events --follow | head -1`.
  process.stdout.on('error', leaveOnEpipe);
  process.stderr.on('error', leaveOnEpipe);
  const doing = { text: '' };
  try {
    await makeProgram(doing).parseAsync([...joinPivot(argv)], { from: 'user' });
  } catch (error) {
    report(error, doing.text, argv);
  }
}

function leaveOnEpipe(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit();
  throw error;
}

function makeProgram(doing: { text: string }): Command {
  const program = new Command('ferry')
    .description('Live disk moves, mirrors and snapshots of running guests, through ferryd')
    .version(packageVersion(), '-V, --version')
    .option(
      '--run-dir <dir>',
      'run directory of ferryd (default: FERRY_RUN_DIR, or its own default)',
    )
    .option(
      '--state-dir <dir>',
      'state directory of ferryd, for doctor and gc without it (default: FERRY_STATE_DIR, or its own default)',
    )
    .option('--json', 'results and errors as JSON; sizes are exact, as strings of digits')
    .addHelpText('after', examples)
    .exitOverride()
    .configureOutput({ outputError: () => undefined });
  program.hook('preAction', (_, command) => {
    doing.text = [...pathOf(command), ...command.args].join(' ');
  });
  const open = (): ReturnType<typeof openSession> => openSession(program.opts<GlobalOptions>());
  addDomainCommands(program, open);
  addSnapshotCommands(program, open);
  addOperationCommands(program, open);
  addMoveCommands(program, open);
  addPaceCommands(program, open);
  addPivotCommand(program, open);
  addSourceCommands(program, open);
  addDoctorCommand(program, open);
  addGcCommand(program, open);
  return program;
}

/** `ops show`: the words of a command without the program's own name. */
function pathOf(command: Command): readonly string[] {
  return command.parent === null ? [] : [...pathOf(command.parent), command.name()];
}

function packageVersion(): string {
  const url = new URL('../../../package.json', import.meta.url);
  // `as`: our own file.
  const { version } = JSON.parse(readFileSync(url, 'utf8')) as { version: string };
  return `blockferry ${version}`;
}

function report(error: unknown, doing: string, argv: readonly string[]): void {
  if (error instanceof CommanderError && isHelp(error)) {
    process.exitCode = error.exitCode === 0 ? 0 : usageExit;
    return;
  }
  const told = tell(error, doing === '' ? commandOf(argv) : doing);
  const text = argv.includes('--json')
    ? toJson(told.body)
    : errorText(told, paintFor(process.stderr));
  process.stderr.write(`${text}\n`);
  process.exitCode = told.exit;
}

/** Commander has printed what was asked for. */
const isHelp = ({ code }: CommanderError): boolean =>
  code === 'commander.help' || code === 'commander.helpDisplayed' || code === 'commander.version';

const usageExit = 2;

/** The command of a line that could not be read: its first word that is no option. */
function commandOf(argv: readonly string[]): string {
  const known = makeProgram({ text: '' }).commands.map((command) => command.name());
  return argv.find((word) => known.includes(word)) ?? '';
}
