// What is made of many measures.

/** The value below which that part of them lies, between two of them where need be; NaN of none. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * part;
  const [below = Number.NaN, above = below] = sorted.slice(
    Math.floor(place),
    Math.floor(place) + 2,
  );
  return below + (above - below) * (place - Math.floor(place));
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

export interface Line {
  /** Of `y` for each `x`. */
  readonly slope: number;
  /** `y` where `x` is 0. */
  readonly fixed: number;
}

/** The line of least squares; null where there are not two places to draw it through. */
export function lineThrough(points: readonly (readonly [x: number, y: number])[]): Line | null {
  const mean = (pick: 0 | 1): number =>
    points.reduce((sum, point) => sum + point[pick], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  const spread = points.reduce((sum, point) => sum + (point[0] - x) ** 2, 0);
  if (spread === 0 || Number.isNaN(spread)) return null;
  const slope = points.reduce((sum, [px, py]) => sum + (px - x) * (py - y), 0) / spread;
  return { slope, fixed: y - slope * x };
}
