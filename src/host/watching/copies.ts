// How far the copies of a move are, from the journal and from the one that runs. Pure.

import { localPath } from '../../block/layer.js';
import { readBackOf } from '../../image/verify.js';
import { waysOf } from '../../plan/ways.js';
import type { StepReport } from '../../job/effect.js';
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
  /** As before, with what of it is read back and compared. */
  readonly work: { readonly doneBytes: bigint; readonly totalBytes: bigint | null };
}

/** What step `i` said last, be it alone or beside others. */
export const reportOf = (at: StepProgress | null, i: number): StepReport | null =>
  at?.step === i ? at.report : (at?.beside?.get(i) ?? null);

/** Whether any data is still being copied, be others verified already. */
export const isCopying = (at: StepProgress): boolean =>
  at.kind === 'copy-image' &&
  [at.report, ...(at.beside?.values() ?? [])].some((report) => report?.phase !== 'verifying');

/** `sizes`: what images that are not begun take, by path. */
export function copiesOf(
  { plan, steps, copies }: Pick<OperationRecord, 'plan' | 'steps' | 'copies'>,
  at: StepProgress | null,
  sizes: ReadonlyMap<string, bigint>,
): readonly CopyProgress[] {
  return plan.steps.flatMap((step, i): readonly CopyProgress[] => {
    if (step.kind !== 'copy-image') return [];
    const way = waysOf(plan).find(({ from }) =>
      from.some(({ source }) => localPath(source) === step.from),
    );
    const saved = copies.find((copy) => copy.step === i);
    const report = reportOf(at, i);
    const isDone = steps[i]?.mark === 'done';
    const known = saved === undefined ? null : BigInt(saved.totalBytes);
    // What a verification reads is another amount.
    const told = report?.phase === 'verifying' ? null : (report?.totalBytes ?? null);
    const totalBytes = told ?? known ?? sizes.get(step.from) ?? null;
    const verify = step.verify ?? 'full';
    const work = totalBytes === null ? null : totalBytes + readBackOf(totalBytes, verify);
    const isVerifying = report?.phase === 'verifying';
    const copied = isDone || isVerifying;
    const doneBytes = copied
      ? (totalBytes ?? 0n)
      : (report?.doneBytes ?? BigInt(saved?.savedBytes ?? 0));
    const readBack = isVerifying ? report.doneBytes : 0n;
    return [
      {
        step: i,
        target: way?.target ?? '',
        isDone,
        doneBytes,
        totalBytes,
        work: {
          doneBytes: isDone ? (work ?? 0n) : atMost(work, doneBytes + readBack),
          totalBytes: work,
        },
      },
    ];
  });
}

/** What was repaired is read back twice. */
const atMost = (most: bigint | null, bytes: bigint): bigint =>
  most !== null && bytes > most ? most : bytes;

export const workDoneOf = (copies: readonly CopyProgress[]): bigint =>
  copies.reduce((sum, { work }) => sum + work.doneBytes, 0n);

/** Null: it is not known of each of them. */
export const workOf = (copies: readonly CopyProgress[]): bigint | null =>
  copies.reduce<bigint | null>(
    (sum, { work }) => (sum === null || work.totalBytes === null ? null : sum + work.totalBytes),
    0n,
  );

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
