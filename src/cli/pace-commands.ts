// What one says to a move that is under way: how fast, stand still, go on, end.

import type { Command } from 'commander';
import { InvalidArgumentError } from 'commander';

import type { PaceChange } from '../host/ferry-host.js';
import { RequestError } from '../std/errors.js';
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
    .argument('<rate>', 'bytes a second (512K, 10M, 1G), none, or auto', rate)
    .description('say what the copies of a move may read in a second, from now on')
    .option(
      '--latency <time>',
      "with auto: what the guest's writes may take, 99 of 100 of them (20ms, 1s; default: twice what they took before the move, at least 5ms)",
      latencyMs,
    )
    .addHelpText(
      'after',
      `
auto: the limit goes up while the guest's writes are quick enough and is halved when they are not.
'ferry ops show N' says where it is. Any other rate ends that.`,
    )
    .action((operation: number, limit: Limit, options: { readonly latency?: number }) => {
      const what = `The copies of operation ${operation} go`;
      const { latency = null } = options;
      if (limit === 'auto') {
        const bound = latency === null ? 'twice what they took before' : `${latency} ms`;
        const text = `${what} as fast as the guest's writes allow: 99 of 100 within ${bound}`;
        return say(operation, { auto: { latencyMs: latency } }, 'limit', text);
      }
      if (latency !== null)
        throw new RequestError('INVALID_ARG', '--latency goes with the rate auto only');
      const how = limit === 'none' ? 'as fast as they can' : `at ${humanBytes(limit)}/s at most`;
      const limitBytesPerSecond = limit === 'none' ? null : limit;
      return say(operation, { limitBytesPerSecond }, 'limit', `${what} ${how}`);
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
type Limit = bigint | 'none' | 'auto';

const rate = (text: string): Limit => (text === 'none' || text === 'auto' ? text : bandwidth(text));

function latencyMs(text: string): number {
  const [, digits, unit] = /^(\d{1,5}(?:\.\d{1,3})?)(ms|s)$/.exec(text) ?? [];
  const ms = Number(digits ?? 0) * (unit === 's' ? 1000 : 1);
  if (ms > 0 && ms <= 60_000) return ms;
  throw new InvalidArgumentError('It has to be a time such as 20ms or 1s, at most 60s.');
}
