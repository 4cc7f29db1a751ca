// Small pieces of text that all commands share: sizes, times, tables, trees, colour.

export { duration, humanBytes } from '../std/units.js';

export type Paint = (style: Style, text: string) => string;
type Style = keyof typeof styles;

const styles = { strong: '1', good: '1;32', warn: '1;33', bad: '1;31', faint: '2' } as const;

export const plain: Paint = (_, text) => text;
export const coloured: Paint = (style, text) => `\u001b[${styles[style]}m${text}\u001b[0m`;

/** Whole percent that never reach 100 before QEMU said READY (law 12). */
export function shownPercent(percent: number, ready: boolean): number {
  const whole = Math.max(0, Math.floor(percent));
  return Math.min(whole, ready ? 100 : 99);
}

export function percentOf(doneBytes: bigint, totalBytes: bigint): number {
  return totalBytes <= 0n ? 0 : Number((doneBytes * 100n) / totalBytes);
}

/** `2026-01-02 03:04:05` in the local time zone. */
export function localTime(ms: number): string {
  const shifted = ms - new Date(ms).getTimezoneOffset() * 60_000;
  return new Date(shifted).toISOString().slice(0, 19).replace('T', ' ');
}

/** A table as virsh prints it: a header, a line, one row each. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = aligned([header, ...rows]).map((line) => ` ${line}`);
  const rule = '-'.repeat(Math.max(...lines.map((line) => line.length)) + 1);
  return [lines[0] ?? '', rule, ...lines.slice(1)].join('\n');
}

/** Rows with their cells padded to common columns, three spaces between them. */
export function aligned(rows: readonly (readonly string[])[]): readonly string[] {
  const count = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: count }, (_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('   ')
      .trimEnd(),
  );
}

export interface Branch<T> {
  readonly value: T;
  readonly children: readonly Branch<T>[];
}

export interface DrawnLine<T> {
  /** The lines of the tree left of the value: `│   └── `. */
  readonly lead: string;
  readonly value: T;
}

/** The children of a root, drawn: one line each, in order. */
export function drawTree<T>(children: readonly Branch<T>[], indent = ''): readonly DrawnLine<T>[] {
  return children.flatMap((child, i) => {
    const last = i === children.length - 1;
    const below = indent + (last ? '    ' : '│   ');
    return [
      { lead: indent + (last ? '└── ' : '├── '), value: child.value },
      ...drawTree(child.children, below),
    ];
  });
}
