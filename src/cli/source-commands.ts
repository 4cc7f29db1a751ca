// What becomes of the source of a move: `--delete-source`, `--keep-source`, `--delete-shared`, `ferry keep-source`, and
// `ferry undo`.

import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';

import { spanText } from '../domain/source-fate.js';
import type { MoveRequest } from '../host/ferry-host.js';
import { RequestError } from '../std/errors.js';
import { number } from './operation-commands.js';
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

  program
    .command('undo')
    .argument('<number>', 'number of a move', number)
    .description(
      'say how much older the source of a finished move is, why it is no way back, and how to move back',
    )
    .action(async (operation: number) => {
      const session = open();
      await session.client.undoOperation(operation);
      session.print({ operation, done: 'undo' }, () => `Operation ${operation} is taken back`);
    });
}
