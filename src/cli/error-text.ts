// Errors as the command line tells them: `ferry: <what was being done>: <what is wrong>; <what to do>`.

import { CommanderError } from 'commander';

import { errorBody } from '../http/wire.js';
import type { ErrorBody } from '../http/wire.js';
import type { Code } from '../std/errors.js';
import { FerryError, RequestError, codes } from '../std/errors.js';
import type { Paint } from './text.js';

export interface Told {
  readonly exit: number;
  readonly body: ErrorBody;
}

/** What to say of `error`, and the exit code. `doing` is the command with its arguments. */
export function tell(error: unknown, doing: string): Told {
  const known = error instanceof CommanderError ? usageError(error, doing) : error;
  const body = errorBody(known, doing);
  return { exit: codes[body.code].exit, body };
}

function usageError(error: CommanderError, doing: string): FerryError {
  const wrong = error.message
    .replace(/^error: /, '')
    .replaceAll('\n', ' ')
    .replace(/\.$/, '');
  const help = ['ferry', doing, '--help'].filter((word) => word !== '').join(' ');
  return new RequestError('INVALID_ARG', `${wrong}; see: ${help}`, { cause: error });
}

/** What to do where the message itself does not say. */
const advice: Readonly<Partial<Record<Code, string>>> = {
  NO_DOMAIN: 'see what there is: ferry list --all',
  NO_DOMAIN_SNAPSHOT: 'see what there is: ferry snapshot-list DOMAIN',
  OPERATION_TIMEOUT: 'repeat it later',
  OPERATION_INVALID: 'look at the state first: ferry list --all',
  INTERNAL_ERROR: 'look into the log of ferryd',
};

export function errorText(told: Told, paint: Paint): string {
  const { code, message, doing, next, operation } = told.body;
  const verb = doing?.split(' ')[0] ?? '';
  const named = verb === '' || message.startsWith(`${verb} `) || message.startsWith(`${verb}:`);
  const hint = advice[code];
  const what = message.includes('; ') || next.length > 0 || hint === undefined ? '' : `; ${hint}`;
  const show = operation === undefined ? [] : [`ferry ops show ${operation}`];
  const commands = [...new Set([...next, ...show])].filter((text) => !message.includes(text));
  return [
    `${paint('bad', 'ferry:')} ${named ? '' : `${doing}: `}${message}${what}`,
    ...intactText(told, paint),
    ...commands.map((command) => `  next: ${command}`),
  ].join('\n');
}

/** Exit codes of requests that were wrong or came at a bad time: nothing was touched, so nothing is said of the images. */
const untouched: ReadonlySet<number> = new Set([2, 3, 5]);

function intactText({ exit, body: { sourceIntact } }: Told, paint: Paint): readonly string[] {
  if (sourceIntact === false) {
    const warning =
      'the source may NOT be intact: start nothing from its images before this is settled';
    return [paint('bad', `  ${warning}`)];
  }
  if (untouched.has(exit)) return [];
  return sourceIntact === null
    ? [
        paint(
          'warn',
          '  whether the source is intact is not known here: ferry doctor tells which image is live',
        ),
      ]
    : [paint('good', '  the source is intact: the images named by the XML hold everything')];
}
