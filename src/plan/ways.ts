// What all kinds of moves have in common: which disks are on their way, and when they switch.

import type { Image } from '../block/layer.js';
import type { PivotWhen } from '../domain/pivot-when.js';
import { newest } from './move-tail.js';
import { pivotAtOnce } from './pivot-when.js';
import { present } from '../std/assert.js';
import type { Plan } from './step.js';

/** Of a move of a domain that runs: the disks and their chains as they were before, active first. */
export const waysOf = ({
  move,
  full,
}: Pick<Plan, 'move' | 'full'>): readonly {
  readonly target: string;
  readonly from: readonly Image[];
}[] => move?.ways ?? full?.ways ?? [];

/** The image of each disk that its guest writes until the switch. */
export const liveOf = ({ move, full }: Pick<Plan, 'move' | 'full'>): readonly Image[] => [
  ...(move?.ways ?? []).map((way) => newest(way).source),
  ...(full?.ways ?? []).map(({ from }) => present(from[0], 'a chain is never empty')),
];

export const whenOf = ({ move, full }: Pick<Plan, 'move' | 'full'>): PivotWhen =>
  move?.pivot ?? full?.pivot ?? pivotAtOnce;
