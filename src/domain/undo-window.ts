// What a move keeps for the way back (`--undo-window`), as a domain's record has it. Pure; part of `applyChange`.

import type { Layer } from '../block/layer.js';
import type { OpenHow } from '../block/node.js';

/** One layer that the guest wrote or writes since the move began, and its twin at the destination. */
export interface Epoch {
  readonly source: Layer;
  readonly twin: Layer;
}

/** One disk on its way. */
export interface MoveWay {
  readonly target: string;
  readonly driver: OpenHow;
  /** The chain as it was before, active first, and where each of its images goes. */
  readonly from: readonly Layer[];
  readonly to: readonly Layer[];
  /** How many of `to`, from its base up, were there before and are not ours. Left out: none. */
  readonly shared?: number;
  /** Oldest first; all but the last are sealed: equal on both sides. Never empty. */
  readonly epochs: readonly Epoch[];
  readonly sizeBytes: bigint;
  readonly clusterSizeBytes: number | null;
}

/**
 * A move that has switched and whose small layers are not committed yet: below them both sides are equal. Until it ends
 * some operation mirrors back, or commits; whoever starts a ferryd sees to that.
 */
export interface UndoWindow {
  /** Number of the move. */
  readonly operation: number;
  readonly untilMs: number;
  /** As the move had them. The indexes are those of its QEMU. */
  readonly ways: readonly MoveWay[];
  /** The guest discards at the end what its file systems do not use. */
  readonly trim: boolean;
  /** Why there is no way back any more: what was written since is to be committed. Null: it is open. */
  readonly closing: string | null;
}

export type WindowChange =
  | { readonly change: 'open-window'; readonly window: UndoWindow }
  | { readonly change: 'close-window'; readonly operation: number; readonly why: string }
  /** Nothing is left of it. */
  | { readonly change: 'end-window'; readonly operation: number };

interface WithWindows {
  readonly windows?: readonly UndoWindow[];
}

export function changeWindow<T extends WithWindows>(record: T, change: WindowChange): T {
  const { windows = [], ...rest } = record;
  const after = windowsAfter(windows, change);
  // `as`: T but for what is optional in it.
  return (after.length === 0 ? rest : { ...rest, windows: after }) as T;
}

function windowsAfter(windows: readonly UndoWindow[], change: WindowChange): readonly UndoWindow[] {
  const others = (operation: number): readonly UndoWindow[] =>
    windows.filter((window) => window.operation !== operation);
  switch (change.change) {
    case 'open-window':
      return [...others(change.window.operation), change.window];
    case 'close-window':
      return windows.map((window) =>
        window.operation === change.operation && window.closing === null
          ? { ...window, closing: change.why }
          : window,
      );
    case 'end-window':
      return others(change.operation);
  }
}

/** The window that a disk is in; null: none. */
export const windowOf = ({ windows = [] }: WithWindows, target: string): UndoWindow | null =>
  windows.find(({ ways }) => ways.some((way) => way.target === target)) ?? null;
