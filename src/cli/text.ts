// Small pieces of text that all commands share: sizes, times, tables, trees, colour.

export type Paint = (style: Style, text: string) => string;
type Style = keyof typeof styles;

const styles = { strong: '1', good: '1;32', warn: '1;33', bad: '1;31', faint: '2' } as const;

export const plain: Paint = (_, text) => text;
export const coloured: Paint = (style, text) => `\u001b[${styles[style]}m${text}\u001b[0m`;

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;

/** `4.1 GiB`, rounded down to one digit; `--json` has the exact number. */
export function humanBytes(bytes: bigint): string {
  if (bytes < 0n) return `-${humanBytes(-bytes)}`;
  let unit = 0;
  while (unit < units.length - 1 && bytes >= 1024n ** BigInt(unit + 1)) unit++;
  const tenths = (bytes * 10n) / 1024n ** BigInt(unit);
  const digits = tenths % 10n === 0n ? '' : `.${tenths % 10n}`;
  return `${tenths / 10n}${digits} ${units[unit]}`;
}

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

/** `1m50s`, `3d04h`, for a person: two units at most. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const pad = (n: number): string => String(n).padStart(2, '0');
  if (h >= 48) return `${Math.floor(h / 24)}d${pad(h % 24)}h`;
  if (h > 0) return `${h}h${pad(m)}m`;
  return m > 0 ? `${m}m${pad(s)}s` : `${s}s`;
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
