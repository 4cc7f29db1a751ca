// What to do with one step, from what the journal says, what the world says and which way the operation goes.

import type { Direction, Mark } from '../journal/entry.js';
import type { Probe } from './effect.js';

/** `forget`: nothing of it is there, only the journal has to learn so. `ask`: stop and show it to a person. */
export type Action = 'do' | 'undo' | 'keep' | 'forget' | 'ask';

/**
 * What to do with one step. A first run is the row `none`; the others are what a crash or a failure left.
 *
 *   mark     probe     forward  back
 *   none     -         do       keep
 *   doing    done      keep     undo
 *   doing    absent    do       forget
 *   doing    partial   do       undo
 *   doing    unknown   ask      ask
 *   done     -         keep     undo
 *   undone   -         do       keep
 *
 * `ask` because guessing here is how disks are lost. The probe is asked for `doing` only.
 */
export function decide(mark: Mark, probe: Probe | null, direction: Direction): Action {
  if (mark === 'doing') return afterDoing[probe ?? 'unknown'][direction];
  return settled[mark][direction];
}

type Row = Readonly<Record<Direction, Action>>;

const settled: Readonly<Record<Exclude<Mark, 'doing'>, Row>> = {
  none: { forward: 'do', back: 'keep' },
  done: { forward: 'keep', back: 'undo' },
  undone: { forward: 'do', back: 'keep' },
};

const afterDoing: Readonly<Record<Probe, Row>> = {
  done: { forward: 'keep', back: 'undo' },
  absent: { forward: 'do', back: 'forget' },
  partial: { forward: 'do', back: 'undo' },
  unknown: { forward: 'ask', back: 'ask' },
};
