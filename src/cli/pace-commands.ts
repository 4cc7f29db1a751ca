// What one says to a move that is under way: how fast, stand still, go on, end.

import type { Command } from 'commander';

import type { PaceChange } from '../host/ferry-host.js';
import { bandwidth } from './move-commands.js';
import { addCancelCommand, addWaitCommand, number } from './operation-commands.js';
import type { Session } from './session.js';
import { humanBytes } from './text.js';

export function addPaceCommands(program: Command, open: () => Session): void {
  const say = async (
    operation: number,
    change: PaceChange,
    done: string,
    text: string,
  ): Promise<void> => {
    const session = open();
    await session.client.paceOperation(operation, change);
    session.print({ operation, done }, () => text);
  };

  program
    .command('limit')
    .argument('<number>', 'number of a move', number)
    .argument('<rate>', 'bytes a second (512K, 10M, 1G), or none', rate)
    .description('say what the copies of a move may read in a second, from now on')
    .action((operation: number, limit: bigint | 'none') => {
      const what = limit === 'none' ? 'as fast as they can' : `at ${humanBytes(limit)}/s at most`;
      return say(
        operation,
        { limitBytesPerSecond: limit === 'none' ? null : limit },
        'limit',
        `The copies of operation ${operation} go ${what}`,
      );
    });

  program
    .command('pause')
    .argument('<number>', 'number of a move', number)
    .description('let the copies of a move stand still; the guest and its mirror go on')
    .action((operation: number) =>
      say(
        operation,
        { isPaused: true },
        'pause',
        `The copies of operation ${operation} stand still; go on: ferry resume ${operation}`,
      ),
    );

  program
    .command('resume')
    .argument('<number>', 'number of a move that was paused', number)
    .description('let the copies of a move go on')
    .action((operation: number) =>
      say(operation, { isPaused: false }, 'resume', `The copies of operation ${operation} go on`),
    );

  addWaitCommand(program.command('watch'), open);
  addCancelCommand(program.command('cancel'), open);
}

/** Never null: commander takes that for an empty text. */
const rate = (text: string): bigint | 'none' => (text === 'none' ? text : bandwidth(text));
