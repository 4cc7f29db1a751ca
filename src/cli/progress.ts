// Progress of an operation on a terminal (one line, redrawn), in a log (one line per change) or for a program (JSON).
// Law 12: nothing shows 100 % before QEMU said READY.

import { toJson } from '../http/wire.js';
import type { OperationProgress, OperationView } from '../host/ferry-host.js';
import { progressText } from './operation-text.js';
import { duration, humanBytes, shownPercent } from './text.js';

export interface Reporter {
  readonly show: (view: OperationView) => void;
  /** Leaves the terminal at the start of a line. */
  readonly close: () => void;
}

export const silent: Reporter = { show: () => undefined, close: () => undefined };

type Write = (text: string) => void;

/** One JSON object a line: `{"type":"progress",…}`. */
export function jsonReporter(write: Write): Reporter {
  let last = '';
  const show = ({ id, progress }: OperationView): void => {
    if (progress === null) return;
    const percent = shownPercent(progress.percent, progress.ready);
    const line = toJson({ type: 'progress', operation: id, ...progress, percent });
    if (line !== last) write(`${line}\n`);
    last = line;
  };
  return { show, close: () => undefined };
}

/** One line whenever a phase, a whole percent or READY changes. */
export function lineReporter(write: Write): Reporter {
  let last = '';
  const show = (view: OperationView): void => {
    if (view.progress === null) return;
    const { phase, percent, ready } = view.progress;
    const key = `${phase} ${shownPercent(percent, ready)} ${ready}`;
    const text = `${view.kind} ${view.id}: ${disksOf(view.progress)} ${progressText(view.progress)}`;
    if (key !== last) write(`${text}\n`);
    last = key;
  };
  return { show, close: () => undefined };
}

/** One line that is drawn over and over. `columns` is asked each time: windows change. */
export function redrawReporter(write: Write, columns: () => number, nowMs: () => number): Reporter {
  let rate: Rate | null = null;
  let drawn = false;
  const show = ({ progress }: OperationView): void => {
    if (progress === null) return;
    rate = nextRate(rate, progress.doneBytes, nowMs());
    drawn = true;
    write(`\r${drawLine(progress, rate.bytesPerSecond, columns())}\u001b[K`);
  };
  const close = (): void => {
    if (drawn) write('\n');
    drawn = false;
  };
  return { show, close };
}

/** `vda  copying  ███████▌    74 %  3.7 GiB of 5 GiB  412 MiB/s  ready in ~3s`, as much of it as fits. */
export function drawLine(
  progress: OperationProgress,
  bytesPerSecond: number,
  columns: number,
): string {
  const { phase, doneBytes, totalBytes, ready } = progress;
  const percent = shownPercent(progress.percent, ready);
  const speed = bytesPerSecond < 1 ? [] : [`${humanBytes(BigInt(Math.round(bytesPerSecond)))}/s`];
  const left = Number(totalBytes - doneBytes) / bytesPerSecond;
  const eta = bytesPerSecond < 1 || left <= 0 ? [] : [`ready in ~${duration(left)}`];
  const parts = [
    disksOf(progress),
    phase,
    `${bar(percent)} ${String(percent).padStart(3)} %`,
    `${humanBytes(doneBytes)} of ${humanBytes(totalBytes)}`,
    ...(ready ? ['READY, in step'] : [...speed, ...eta]),
  ];
  // One column stays free: a full line would wrap, and be drawn below itself.
  return parts.join('  ').slice(0, Math.max(1, columns - 1));
}

function disksOf({ disks }: OperationProgress): string {
  return disks.map((disk) => disk.target).join(', ');
}

const barWidth = 20;
const eighths = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

function bar(percent: number): string {
  const filled = Math.round((percent * barWidth * 8) / 100);
  const text = '█'.repeat(Math.floor(filled / 8)) + (eighths[filled % 8] ?? '');
  return text.padEnd(barWidth, '·');
}

interface Rate {
  readonly bytesPerSecond: number;
  readonly doneBytes: bigint;
  readonly atMs: number;
}

/** Smoothed over some seconds, so that the time left does not jump. */
function nextRate(rate: Rate | null, doneBytes: bigint, atMs: number): Rate {
  if (rate === null) return { bytesPerSecond: 0, doneBytes, atMs };
  const seconds = (atMs - rate.atMs) / 1000;
  // Events come in bursts: too short a time says nothing of the speed.
  if (seconds < 0.2) return rate;
  const sample = Math.max(0, Number(doneBytes - rate.doneBytes) / seconds);
  const weight = rate.bytesPerSecond === 0 ? 1 : 1 - Math.exp(-seconds / smoothingSeconds);
  const bytesPerSecond = rate.bytesPerSecond + weight * (sample - rate.bytesPerSecond);
  return { bytesPerSecond, doneBytes, atMs };
}

const smoothingSeconds = 5;
