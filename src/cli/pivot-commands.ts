// When a move switches: `--pivot` of those that plan one, and `ferry pivot`.

import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';

import type { PivotWhen } from '../domain/pivot-when.js';
import { pivotAtOnce } from '../plan/pivot-when.js';
import { number } from './operation-commands.js';
import type { Session } from './session.js';

export function addPivotCommand(program: Command, open: () => Session): void {
  program
    .command('pivot')
    .argument('<number>', 'number of a move', number)
    .description(
      'let a move switch as soon as it is in step, whatever it was to wait for (--pivot)',
    )
    .action(async (operation: number) => {
      const session = open();
      await session.client.pivotOperation(operation);
      session.print(
        { operation, done: 'pivot' },
        () =>
          `Operation ${operation} switches as soon as it is in step; see it: ferry watch ${operation}`,
      );
    });
}

export const pivotOption = (): Option =>
  new Option(
    '--pivot <when>',
    "when to switch, once in step: auto (at once), manual ('ferry pivot N'), at TIME (03:00, 2026-01-31T03:00), when 'lag<4M for 30s' (what the destination is behind)",
  )
    .default(pivotAtOnce, 'auto')
    .argParser((text) => pivotWhen(text, new Date()));

/** `--pivot at TIME` and `--pivot when LAG` are two words for people, and one value for commander. */
export function joinPivot(argv: readonly string[]): readonly string[] {
  const i = argv.findIndex(
    (word, at) => at > 0 && argv[at - 1] === '--pivot' && (word === 'at' || word === 'when'),
  );
  if (i < 0 || i + 1 >= argv.length) return argv;
  return [...argv.slice(0, i), `${argv[i]} ${argv[i + 1]}`, ...argv.slice(i + 2)];
}

/** @throws InvalidArgumentError for what is none, and for a time that is over. */
export function pivotWhen(text: string, now: Date): PivotWhen {
  if (text === 'auto' || text === 'manual') return { how: text };
  const [, how, rest = ''] = /^(at|when)\s+(.*)$/.exec(text.trim()) ?? [];
  if (how === 'at') return { how, atMs: moment(rest.trim(), now) };
  if (how === 'when') return { how, ...lag(rest.trim()) };
  throw new InvalidArgumentError("It has to be auto, manual, at TIME or when 'lag<4M for 30s'.");
}

/** `03:00` is the next one there is; what names a day may name its time zone too. Without: the local one. */
function moment(text: string, now: Date): number {
  const clock = /^([01]?\d|2[0-3]):([0-5]\d)$/.exec(text);
  if (clock !== null) {
    const time = [Number(clock[1]), Number(clock[2])] as const;
    const on = (day: number): number =>
      new Date(now.getFullYear(), now.getMonth(), now.getDate() + day, ...time).getTime();
    return on(0) > now.getTime() ? on(0) : on(1);
  }
  const iso = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?$/;
  const ms = iso.test(text) ? Date.parse(text.replace(' ', 'T')) : Number.NaN;
  if (Number.isNaN(ms))
    throw new InvalidArgumentError(
      'The time has to be HH:MM, or a day with it such as 2026-01-31T03:00, 2026-01-31T03:00:00Z or …+01:00.',
    );
  if (ms <= now.getTime())
    throw new InvalidArgumentError('That time is over; name a later one, or auto.');
  return ms;
}

function lag(text: string): { readonly lagBytes: bigint; readonly forMs: number } {
  const [, size, sizeUnit = '', time = '0', timeUnit = 's'] =
    /^lag\s*<\s*([1-9]\d{0,8})([KMGT]?)(?:\s+for\s+(\d{1,6})([smh]))?$/.exec(text) ?? [];
  if (size === undefined)
    throw new InvalidArgumentError(
      "The condition has to be 'lag<SIZE' or 'lag<SIZE for TIME', such as 'lag<4M for 30s' (K, M, G, T; s, m, h).",
    );
  const shift = { K: 10n, M: 20n, G: 30n, T: 40n }[sizeUnit] ?? 0n;
  const seconds = { s: 1, m: 60, h: 3600 }[timeUnit] ?? 1;
  return { lagBytes: BigInt(size) << shift, forMs: Number(time) * seconds * 1000 };
}
