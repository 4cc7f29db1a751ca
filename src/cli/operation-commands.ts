// Operations and their events: what goes on in the daemon whether we look or not.

import { userInfo } from 'node:os';

import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';

import type { OperationView, StreamedEvent } from '../host/ferry-host.js';
import { toJson } from '../http/wire.js';
import { RequestError } from '../std/errors.js';
import { eventText } from './event-text.js';
import type { Terminal } from './interrupts.js';
import { Interrupts } from './interrupts.js';
import { operationListText, operationText } from './operation-text.js';
import type { Reporter } from './progress.js';
import { jsonReporter, lineReporter, redrawReporter, silent } from './progress.js';
import { failureOf } from '../http/ended.js';
import type { Session } from './session.js';
import { localTime } from './text.js';

export const number = (text: string): number => {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It has to be a whole number.');
};

export const progressOption = (): Option =>
  new Option('--progress <how>', 'lines that are redrawn or a line per change; JSON lines; nothing')
    .choices(['auto', 'json', 'none'])
    .default('auto');

export type ProgressKind = 'auto' | 'json' | 'none';

export function addOperationCommands(program: Command, open: () => Session): void {
  addOpsCommands(program, open);
  program
    .command('events')
    .argument('[domain]', 'only events of this domain: name or UUID')
    .description('print the events that are kept')
    .option('--follow', 'print what happens from now on, until Ctrl-C')
    .option(
      '--after <seq>',
      'only events after this number; with --follow: go on from there',
      number,
    )
    .option('--timestamp', 'number and time of each event')
    .action((domain: string | undefined, options: EventsOptions) =>
      printEvents(open(), domain ?? null, options),
    );
}

function addOpsCommands(program: Command, open: () => Session): void {
  const ops = program
    .command('ops')
    .description('what the daemon is doing: list, show, wait, rotate, cancel, resolve');

  ops
    .command('list', { isDefault: true })
    .description('list the operations that have not ended')
    .option('--all', 'those that have ended too')
    .option('--domain <domain>', 'only those of this domain')
    .action(async (options: { readonly all?: true; readonly domain?: string }) => {
      const session = open();
      const { domain = null, all = false } = options;
      const operations = await session.client.operations({ domain, all });
      session.print(operations, () => operationListText(operations));
    });

  ops
    .command('show')
    .argument('<number>', 'number of the operation', number)
    .description('show its steps, how far it is and what it waits for')
    .action(async (id: number) => {
      const session = open();
      const operation = await session.client.operation(id);
      // What stays of it is for programs: when each step was done, hashes, events.
      const whole = session.json
        ? { ...operation, record: await session.client.operationRecord(id) }
        : operation;
      session.print(whole, () => operationText(operation, session.paint));
    });

  addWaitCommand(ops.command('wait'), open);

  ops
    .command('rotate')
    .argument('<number>', 'number of a move', number)
    .description('put a fresh layer on its disks now, so that a crash costs only what comes after')
    .action(async (operation: number) => {
      const session = open();
      await session.client.rotateOperation(operation);
      session.print({ operation, done: 'rotate' }, () => `Operation ${operation} is rotated`);
    });

  addCancelCommand(ops.command('cancel'), open);
  addResolveCommand(ops, open);
}

/** `ops wait`, which is `watch` too. */
export function addWaitCommand(command: Command, open: () => Session): void {
  command
    .argument('<number>', 'number of the operation', number)
    .description(
      'show its progress until it has ended; Ctrl-C asks: end the waiting, or cancel it?',
    )
    .addOption(progressOption())
    .action(async (id: number, options: { readonly progress: ProgressKind }) => {
      const session = open();
      const ended = await follow(session, id, options.progress);
      if (ended !== null) printEnd(session, ended, options.progress, () => operationText(ended));
    });
}

/** `ops cancel`, which is `cancel` too. */
export function addCancelCommand(command: Command, open: () => Session): void {
  command
    .argument('<number>', 'number of the operation', number)
    .description('end it before its commit step; what it did is undone')
    .action(async (operation: number) => {
      const session = open();
      await session.client.cancelOperation(operation);
      session.print(
        { operation, done: 'cancel' },
        () => `Operation ${operation} is being cancelled; what it did is undone`,
      );
    });
}

function addResolveCommand(ops: Command, open: () => Session): void {
  ops
    .command('resolve')
    .argument('<number>', 'number of the operation', number)
    .description('settle an operation that waits for a person, and see how it goes on')
    .option('--forward', 'go on to its end')
    .option('--back', 'take back what it did; not possible once its commit step is done')
    .option('--done', 'you looked: the step that ferryd cannot tell of is done')
    .option('--not-done', 'you looked: nothing of that step is there')
    .addOption(progressOption())
    .addHelpText(
      'after',
      `
'ferry ops show N' says what the operation waits for and where to look.
Without --done and --not-done the world is asked once more: use that when the cause is mended.

Examples:
  ferry ops resolve 7 --forward             the storage is back: try again
  ferry ops resolve 7 --forward --done      the step is done: go on behind it
  ferry ops resolve 7 --back                leave it, and undo what was done`,
    )
    .action((id: number, options: ResolveOptions) => resolveOperation(open(), id, options));
}

interface ResolveOptions {
  readonly forward?: true;
  readonly back?: true;
  readonly done?: true;
  readonly notDone?: true;
  readonly progress: ProgressKind;
}

async function resolveOperation(
  session: Session,
  id: number,
  { forward, back, done, notDone, progress }: ResolveOptions,
): Promise<void> {
  if ((forward === true) === (back === true))
    throw new RequestError('INVALID_ARG', 'say which way it shall go: --forward or --back');
  if (done === true && notDone === true)
    throw new RequestError('INVALID_ARG', '--done and --not-done exclude one another');
  const was = done === true ? 'done' : notDone === true ? 'absent' : null;
  const direction = back === true ? 'back' : 'forward';
  await session.client.resolveOperation(id, { direction, was, by: whoIs() });
  const ended = await follow(session, id, progress).catch(async (error: unknown) => {
    const view = await session.client.operation(id);
    // What was asked for is no failure.
    if (direction === 'back' && view.status === 'rolled-back') return view;
    throw error;
  });
  if (ended !== null) printEnd(session, ended, progress, () => operationText(ended, session.paint));
}

/** For the journal: who said so, and who he is when he works as root. */
function whoIs(): string {
  const { SUDO_USER: sudo = '' } = process.env;
  const uid = `uid ${process.getuid?.() ?? '?'}${sudo === '' ? '' : `, sudo by ${sudo}`}`;
  try {
    return `${userInfo().username} (${uid})`;
  } catch {
    // A uid that no passwd file knows, as in containers.
    return uid;
  }
}

export function printEnd(
  session: Session,
  operation: OperationView,
  progress: ProgressKind,
  text: () => string,
): void {
  if (progress === 'json') process.stdout.write(`${toJson({ type: 'end', operation })}\n`);
  else session.print(operation, text);
}

/**
 * Shows `intro`, where that is for a person, and progress until the operation has ended; null when the user stopped looking (exit code 130).
 *
 * @throws {FerryError} it was rolled back, or stopped and waits for a person.
 */
export async function follow(
  session: Session,
  id: number,
  progress: ProgressKind,
  intro: string | null = null,
): Promise<OperationView | null> {
  const reporter = reporterFor(session, progress);
  using interrupts = new Interrupts(terminalOf(session, progress), {
    cancel: async () => await session.client.cancelOperation(id),
    makeRoom: () => reporter.close(),
  });
  const { signal } = interrupts;
  // Not before: who reads it may press Ctrl-C at once.
  if (intro !== null && progress === 'auto' && !session.json) process.stdout.write(`${intro}\n`);
  const onBreak = (): void => {
    reporter.close();
    process.stderr.write('ferry: ferryd went away; the guest goes on, waiting for ferryd\n');
  };
  let last: OperationView | null = null;
  try {
    const views = session.client.watchOperation(id, { signal, onBreak });
    for await (const view of views) {
      last = view;
      if (!interrupts.isAsking) reporter.show(view);
    }
  } finally {
    reporter.close();
  }
  if (signal.aborted) return tellInterrupted(id);
  const failure = last === null ? null : failureOf(last);
  if (failure !== null) throw failure;
  return last;
}

/** A person, where there is one at both ends. */
function terminalOf(session: Session, progress: ProgressKind): Terminal {
  const isPerson =
    progress === 'auto' &&
    !session.json &&
    process.stdin.isTTY &&
    process.stdout.isTTY &&
    process.stderr.isTTY;
  return {
    signals: process,
    input: isPerson ? process.stdin : null,
    write: (text) => void process.stderr.write(text),
  };
}

function reporterFor(session: Session, progress: ProgressKind): Reporter {
  const { stdout } = process;
  const write = (text: string): void => void stdout.write(text);
  if (progress === 'json') return jsonReporter(write);
  if (progress === 'none' || session.json) return silent;
  if (!stdout.isTTY) return lineReporter(write);
  return redrawReporter(write, () => sizeOf(stdout));
}

/** A terminal that does not know its size says 0. */
const sizeOf = ({ columns, rows }: NodeJS.WriteStream) => ({
  columns: columns > 0 ? columns : 80,
  rows: rows > 0 ? rows : 24,
});

function tellInterrupted(id: number): null {
  process.stderr.write(
    `ferry: not waiting any more; operation ${id} goes on in the daemon\n` +
      `  next: ferry ops wait ${id}\n  next: ferry ops cancel ${id}\n`,
  );
  process.exitCode = interruptedExit;
  return null;
}

/** 128 + SIGINT, as a shell has it. */
const interruptedExit = 130;

interface EventsOptions {
  readonly follow?: true;
  readonly after?: number;
  readonly timestamp?: true;
}

async function printEvents(
  session: Session,
  domain: string | null,
  options: EventsOptions,
): Promise<void> {
  const show = (event: StreamedEvent): void => {
    if (domain !== null && domain !== event.domainName && domain !== event.domain) return;
    session.printLine(event, () => stamp(event, options) + eventText(event));
  };
  if (options.follow !== true) {
    (await session.client.pastEvents(options.after ?? 0)).forEach(show);
    return;
  }
  for await (const event of session.client.events(options.after ?? null)) show(event);
}

const stamp = ({ seq, time }: StreamedEvent, options: EventsOptions): string =>
  options.timestamp === true ? `${seq} ${localTime(Date.parse(time))}: ` : '';
