// What becomes of the source of a move: `--delete-source`, `--keep-source`, `--delete-shared`, `ferry keep-source`, and
// `ferry undo`.

import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';

import { spanText } from '../domain/source-fate.js';
import type { MoveRequest } from '../host/ferry-host.js';
import { RequestError } from '../std/errors.js';
import type { ProgressKind } from './operation-commands.js';
import { follow, number, printEnd, progressOption } from './operation-commands.js';
import type { Session } from './session.js';

export interface SourceOptions {
  readonly deleteSource?: true;
  readonly keepSource?: number | 'forever';
  readonly deleteShared?: true;
}

export const withSource = (command: Command): Command =>
  command
    .option(
      '--delete-source',
      'delete the old images when the move has ended: those that are proven to be elsewhere, verified, and that nobody uses',
    )
    .addOption(
      new Option(
        '--keep-source <how long>',
        'the same so long after the switch (30m, 24h, 7d); forever: until somebody removes them (default)',
      ).argParser(keepTime),
    )
    .option(
      '--delete-shared',
      'the layers below the former top layer too, where nobody else stands on them',
    );

/** @throws RequestError for what excludes one another. */
export function fateOf({
  deleteSource,
  keepSource,
  deleteShared,
}: SourceOptions): Pick<MoveRequest, 'keepSourceSeconds' | 'deleteShared'> {
  if (deleteSource === true && keepSource !== undefined)
    throw new RequestError('INVALID_ARG', '--delete-source and --keep-source exclude one another');
  const seconds = keepSource === undefined || keepSource === 'forever' ? null : keepSource;
  return {
    keepSourceSeconds: deleteSource === true ? 0 : seconds,
    deleteShared: deleteShared === true,
  };
}

/** Never null: commander takes that for an empty text. */
export function keepTime(text: string): number | 'forever' {
  if (text === 'forever') return 'forever';
  const [, digits = '', unit = ''] = /^([1-9]\d{0,5})([smhd])$/.exec(text) ?? [];
  const seconds = Number(digits) * ({ s: 1, m: 60, h: 3600, d: 86_400 }[unit] ?? 0);
  if (seconds > 0 && seconds <= TEN_YEARS) return seconds;
  throw new InvalidArgumentError('It has to be a time such as 30m, 24h or 7d, or forever.');
}

export function windowTime(text: string): number {
  const seconds = text === 'forever' ? text : keepTime(text);
  if (typeof seconds === 'number') return seconds;
  throw new InvalidArgumentError('It has to be a time such as 30m, 2h or 1d.');
}

const TEN_YEARS = 315_360_000;

export function addSourceCommands(program: Command, open: () => Session): void {
  program
    .command('keep-source')
    .argument('<number>', 'number of a move', number)
    .argument('<how long>', 'from now on: 30m, 24h, 7d; or forever', keepTime)
    .description('say how long the old images of a move are kept before they are deleted')
    .addHelpText(
      'after',
      `
Of a move that has not switched yet the time begins with its switch. What is not proven to be elsewhere, or is used,
is not deleted: 'ferry gc' says which and why.

Examples:
  ferry keep-source 7 2h
  ferry keep-source 7 forever`,
    )
    .action(async (operation: number, howLong: number | 'forever') => {
      const session = open();
      const keepSeconds = howLong === 'forever' ? null : howLong;
      await session.client.keepSource(operation, keepSeconds);
      const time =
        keepSeconds === null ? 'until somebody removes it' : `for ${spanText(keepSeconds)}`;
      session.print(
        { operation, keepSeconds },
        () =>
          `The source of operation ${operation} is kept ${time}; see it: ferry ops show ${operation}`,
      );
    });

  addUndoCommand(program, open);
}

function addUndoCommand(program: Command, open: () => Session): void {
  program
    .command('undo')
    .argument('<number>', 'number of a move', number)
    .description(
      'take back a move that has switched: its disks switch to where they were, while its undo window is open',
    )
    .option(
      '--close',
      'close the window instead: there is no way back any more, and no cost of one',
    )
    .addOption(progressOption())
    .addHelpText(
      'after',
      `
Without a window ('ferry move --undo-window') it is refused, and says how much older the source is and how to move back.

Examples:
  ferry undo 7
  ferry undo 7 --close`,
    )
    .action(async (operation: number, options: UndoOptions) => {
      await undo(open(), operation, options);
    });
}

interface UndoOptions {
  readonly close?: boolean;
  readonly progress: ProgressKind;
}

async function undo(
  session: Session,
  operation: number,
  { close = false, progress }: UndoOptions,
): Promise<void> {
  const begun = await session.client.undoOperation(operation, { close });
  const ended = await follow(session, begun.id, progress).catch(async (error: unknown) => {
    const view = await session.client.operation(begun.id);
    // So a window ends whose QEMU is not there.
    if (close && view.status === 'rolled-back') return view;
    throw error;
  });
  if (ended === null) return;
  const text = close
    ? `The way back of operation ${operation} is closed; what was written since goes into the copies`
    : `Operation ${operation} is taken back; its disks are where they were: ferry chain ${ended.domainName}`;
  printEnd(session, ended, progress, () => text);
}
