// Sizes and times for a person.

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

/** `1m50s`, `3d04h`, for a person: two units at most. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const pad = (n: number): string => String(n).padStart(2, '0');
  if (h >= 48) return `${Math.floor(h / 24)}d${pad(h % 24)}h`;
  if (h > 0) return `${h}h${pad(m)}m`;
  return m > 0 ? `${m}m${pad(s)}s` : `${s}s`;
}
