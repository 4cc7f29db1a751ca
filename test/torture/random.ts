// Numbers that a seed gives: the same ones each time.

/** A whole number from 0 up to, not including, `below`. */
export type Random = (below: number) => number;

/** A linear congruential generator; its high bits are the good ones. */
export function randomOf(seed: number): Random {
  let state = (seed ^ 0x5deece66) >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

export function pickOf<T>(list: readonly [T, ...T[]], random: Random): T {
  return list[random(list.length)] ?? list[0];
}
