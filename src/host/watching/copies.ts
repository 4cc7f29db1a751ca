// How far the copies of a move are, from the journal and from the one that runs. Pure.

import { localPath } from '../../block/layer.js';
import type { StepProgress } from '../../job/runner.js';
import type { OperationRecord } from '../../journal/journal.js';

/** The copy of one frozen image. */
export interface CopyProgress {
  readonly step: number;
  readonly target: string;
  readonly isDone: boolean;
  readonly doneBytes: bigint;
  /** Null: nobody has looked at it yet. */
  readonly totalBytes: bigint | null;
}

/** `sizes`: what images that are not begun take, by path. */
export function copiesOf(
  { plan, steps, copies }: Pick<OperationRecord, 'plan' | 'steps' | 'copies'>,
  at: StepProgress | null,
  sizes: ReadonlyMap<string, bigint>,
): readonly CopyProgress[] {
  return plan.steps.flatMap((step, i): readonly CopyProgress[] => {
    if (step.kind !== 'copy-image') return [];
    const way = plan.move?.ways.find(({ from }) =>
      from.some(({ source }) => localPath(source) === step.from),
    );
    const saved = copies.find((copy) => copy.step === i);
    const report = at?.step === i ? at.report : null;
    const isDone = steps[i]?.mark === 'done';
    const known = saved === undefined ? null : BigInt(saved.totalBytes);
    const totalBytes = report?.totalBytes ?? known ?? sizes.get(step.from) ?? null;
    return [
      {
        step: i,
        target: way?.target ?? '',
        isDone,
        doneBytes: isDone
          ? (totalBytes ?? 0n)
          : (report?.doneBytes ?? BigInt(saved?.savedBytes ?? 0)),
        totalBytes,
      },
    ];
  });
}

export const doneOf = (copies: readonly CopyProgress[]): bigint =>
  copies.reduce((sum, { doneBytes }) => sum + doneBytes, 0n);

/** Null: it is not known of each of them. */
export function totalOf(copies: readonly CopyProgress[]): bigint | null {
  let sum = 0n;
  for (const { totalBytes } of copies) {
    if (totalBytes === null) return null;
    sum += totalBytes;
  }
  return sum;
}
