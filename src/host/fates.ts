// Until when the source of a move is kept: as it was planned, or as somebody said since (`ferry keep-source`). Pure, but
// for one setting of the journal that has what was said.

import type { Journal, OperationRecord } from '../journal/journal.js';

/** `over`: it was deleted, as far as law 14 allowed; what is left stays. */
export type SaidFate =
  | 'over'
  | {
      /** Null: until somebody removes it. */
      readonly keepSeconds: number | null;
      /** From when on; null: from the switch. */
      readonly fromMs: number | null;
    };

export type SaidFates = ReadonlyMap<number, SaidFate>;

const KEY = 'sources';

export async function readFates(journal: Pick<Journal, 'setting'>): Promise<SaidFates> {
  const text = await journal.setting(KEY);
  // `as`: what `writeFates` wrote.
  return new Map(text === null ? [] : (JSON.parse(text) as [number, SaidFate][]));
}

export async function writeFates(
  journal: Pick<Journal, 'putSetting'>,
  said: SaidFates,
): Promise<void> {
  await journal.putSetting(KEY, said.size === 0 ? null : JSON.stringify([...said]));
}

/** When the source of a move becomes deleted; null: not by itself, or it has not switched yet. */
export function keptUntilMs(move: OperationRecord, said: SaidFate | null): number | null {
  const planned = { keepSeconds: move.plan.source?.keepSeconds ?? null, fromMs: null };
  const fate = said ?? planned;
  if (fate === 'over' || fate.keepSeconds === null) return null;
  const from = fate.fromMs ?? windowEndMs(move);
  return from === null ? null : from + fate.keepSeconds * 1000;
}

/** When its disks switched: from then on its source is stale. Null: not yet. */
export const switchedAtMs = ({ entries }: OperationRecord): number | null =>
  entries.find(({ changes }) =>
    changes.some((change) => change.change === 'role' && change.role.role === 'stale'),
  )?.atMs ?? null;

/** From then on its source is a copy of a moment, and no way back; null: it has not switched. */
function windowEndMs(move: OperationRecord): number | null {
  const switched = switchedAtMs(move);
  return switched === null ? null : switched + (move.plan.move?.undoSeconds ?? 0) * 1000;
}
