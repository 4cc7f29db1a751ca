// Progress of an operation on a terminal (lines that are redrawn), in a log (one line per change) or for a program (JSON).
// Law 12: nothing shows 100 % before QEMU said READY.

import { toJson } from '../http/wire.js';
import type { OperationProgress, OperationView } from '../host/ferry-host.js';
import { progressText } from './operation-text.js';
import { guestText, latencyText, limitText, readyIn, speed } from './progress-text.js';
import { aligned, humanBytes, shownPercent } from './text.js';

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
    const disks = progress.disks.map((disk) => ({
      ...disk,
      percent: shownPercent(disk.percent, progress.ready),
    }));
    const line = toJson({ type: 'progress', operation: id, ...progress, percent, disks });
    if (line !== last) write(`${line}\n`);
    last = line;
  };
  return { show, close: () => undefined };
}

/** One line whenever a phase, a whole percent, READY or the outlook changes. */
export function lineReporter(write: Write): Reporter {
  let last = '';
  const show = (view: OperationView): void => {
    if (view.progress === null) return;
    const { phase, percent, ready, convergence } = view.progress;
    const doesDiverge = convergence.state === 'diverges';
    const key = `${phase} ${shownPercent(percent, ready)} ${ready} ${doesDiverge}`;
    const text = [
      `${view.kind} ${view.id}: ${disksOf(view.progress)} ${progressText(view.progress)}`,
      ...(ready ? [] : readyIn(view.progress)),
      ...(doesDiverge ? [`will not converge: ${convergence.why}`] : []),
    ].join(', ');
    if (key !== last) write(`${text}\n`);
    last = key;
  };
  return { show, close: () => undefined };
}

/** Narrower than that a disk and what it does have no room in one line. */
const leastColumns = 70;

/**
 * A line a disk and one for all together, drawn over and over; one line where the window is too narrow or too low for that.
 * `size` is asked each time: windows change.
 */
export function redrawReporter(
  write: Write,
  size: () => { readonly columns: number; readonly rows: number },
): Reporter {
  let height = 0;
  const show = ({ id, progress }: OperationView): void => {
    if (progress === null) return;
    const { columns, rows } = size();
    const fits = columns >= leastColumns && progress.disks.length + 2 < rows;
    const lines = fits ? drawLines(progress, id, columns) : [drawLine(progress, columns)];
    const up = height > 1 ? `\u001b[${height - 1}A` : '';
    // From the first line on all is cleared: there may be fewer of them now.
    write(`\r${up}\u001b[J${lines.join('\n')}`);
    height = lines.length;
  };
  const close = (): void => {
    if (height > 0) write('\n');
    height = 0;
  };
  return { show, close };
}

/** All in one line: `vda  copying  ███████▌    74 %  3.7 GiB of 5 GiB  412 MiB/s  ready in 3s to 5s`, as much of it as fits. */
export function drawLine(progress: OperationProgress, columns: number): string {
  const { phase, doneBytes, totalBytes, ready } = progress;
  return cut(
    [
      disksOf(progress),
      phase,
      barOf(progress, ready),
      `${humanBytes(doneBytes)} of ${humanBytes(totalBytes)}`,
      ...(ready ? ['READY, in step'] : [...speed(progress), ...readyIn(progress)]),
    ],
    columns,
  );
}

/**
 * `vda  copying  ███████▌  74 %  412 MiB/s  guest 3 MiB/s  behind 512 KiB  writes p99 2.1 → 4.5 ms` for each disk, then all
 * together, then what is wrong.
 */
export function drawLines(
  progress: OperationProgress,
  id: number,
  columns: number,
): readonly string[] {
  const { ready, disks, doneBytes, totalBytes, convergence } = progress;
  const names = aligned([
    ...disks.map(({ target, phase }) => [target, phase]),
    ['all', progress.phase],
  ]);
  const all = [
    barOf(progress, ready),
    ...(totalBytes > 0n ? [`${humanBytes(doneBytes)} of ${humanBytes(totalBytes)}`] : []),
    ...(ready ? ['READY, in step'] : readyIn(progress)),
    ...limitText(progress),
  ];
  const width = Math.max(...names.map((name) => name.length));
  return [
    ...disks.map((disk, i) =>
      cut(
        [
          (names[i] ?? '').padEnd(width),
          barOf(disk, ready),
          ...speed(disk),
          ...guestText(disk),
          ...latencyText(disk),
        ],
        columns,
      ),
    ),
    cut([(names.at(-1) ?? '').padEnd(width), ...all], columns),
    ...(convergence.state === 'diverges'
      ? [cut([`! ${convergence.why}; ferry ops show ${id} says what can be done`], columns)]
      : []),
  ];
}

/** One column stays free: a full line would wrap, and be drawn below itself. */
const cut = (parts: readonly string[], columns: number): string =>
  parts.join('  ').slice(0, Math.max(1, columns - 1));

function disksOf({ disks }: OperationProgress): string {
  return disks.map((disk) => disk.target).join(', ');
}

function barOf({ percent }: { readonly percent: number }, ready: boolean): string {
  const shown = shownPercent(percent, ready);
  return `${bar(shown)} ${String(shown).padStart(3)} %`;
}

const barWidth = 20;
const eighths = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

function bar(percent: number): string {
  const filled = Math.round((percent * barWidth * 8) / 100);
  const text = '█'.repeat(Math.floor(filled / 8)) + (eighths[filled % 8] ?? '');
  return text.padEnd(barWidth, '·');
}
