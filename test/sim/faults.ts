// Faults are enumerated, not listed: every outside call of a scenario is struck in turn, before it takes effect and
// after it (done, but the answer lost), alone and in pairs. A scenario that grows a call is struck there without an edit.

/** `before`: the call has no effect. `after`: it has, but nobody hears. */
export type Moment = 'before' | 'after';

export interface Fault {
  /** Counted over the whole scenario, from 0. */
  readonly call: number;
  readonly moment: Moment;
  readonly error: () => Error;
}

/** The process is gone: every later call fails too, until `restart`. */
export class Crash extends Error {
  override readonly name = 'Crash';
}

/** Any other error: the process lives and has to deal with it. */
export class Trouble extends Error {
  override readonly name = 'Trouble';
}

export const crash = (): Error => new Crash('power cut');
export const trouble = (): Error => new Trouble('no space left on device');

/** Counts outside calls and strikes those that have a fault. */
export class Striker {
  calls = 0;
  dead = false;
  /** The method that was called last, by name. */
  last = '';
  /** When the last strike came; null before any. */
  moment: Moment | null = null;
  /** The errors that it threw, in order. */
  readonly thrown: Error[] = [];
  private readonly faults: readonly Fault[];

  constructor(...faults: readonly Fault[]) {
    this.faults = faults;
  }

  /** A new process. The count of calls goes on, so that a second fault can strike the recovery from the first. */
  restart(): void {
    this.dead = false;
  }

  async around<T>(method: string, body: () => Promise<T>): Promise<T> {
    if (this.dead) throw new Crash('the process is gone');
    this.last = method;
    const call = this.calls++;
    const fault = this.faults.find((candidate) => candidate.call === call);
    if (fault?.moment === 'before') this.strike(fault);
    const value = await body();
    // Dead since: what another call in flight was struck with ends this one too.
    if (this.dead) throw new Crash('the process is gone');
    if (fault?.moment === 'after') this.strike(fault);
    return value;
  }

  private strike(fault: Fault): never {
    this.moment = fault.moment;
    const error = fault.error();
    this.dead = error instanceof Crash;
    this.thrown.push(error);
    throw error;
  }
}

/** Puts every method of `target` under the striker. All of them become async. */
export function struck<T extends object>(target: T, striker: Striker): T {
  return new Proxy(target, {
    get(object, key) {
      const value: unknown = Reflect.get(object, key, object);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]) =>
        await striker.around(
          String(key),
          async () => (await Reflect.apply(value, object, args)) as unknown,
        );
    },
  });
}

const moments: readonly Moment[] = ['before', 'after'];
const longest = 10_000;

/** Runs `scenario` once per call and moment, until a whole run is over before its call comes. Returns how many were struck. */
export async function everyFault(
  error: () => Error,
  scenario: (striker: Striker) => Promise<void>,
): Promise<number> {
  let tried = 0;
  for (let call = 0; call < longest; call++) {
    for (const moment of moments) {
      const striker = new Striker({ call, moment, error });
      await naming(`${error().name} ${moment} call ${call}`, scenario(striker));
      // By the count of calls, not by whether it struck: one fault can hide another.
      if (striker.calls <= call) return tried;
      tried++;
    }
  }
  throw new Error('the scenario never came to its end');
}

/**
 * Runs `scenario` once per pair of a fault and a later one: in the same process, in its rollback, or in the recovery.
 * Returns how many pairs were struck.
 */
export async function everyPair(
  first: () => Error,
  second: () => Error,
  scenario: (striker: Striker) => Promise<void>,
): Promise<number> {
  let tried = 0;
  for (let call = 0; call < longest; call++) {
    for (const moment of moments) {
      const fault = { call, moment, error: first };
      const pairs = await everyLater(fault, second, scenario);
      if (pairs === null) return tried;
      tried += pairs;
    }
  }
  throw new Error('the scenario never came to its end');
}

/** Null when the run was over before the first fault. */
async function everyLater(
  first: Fault,
  second: () => Error,
  scenario: (striker: Striker) => Promise<void>,
): Promise<number | null> {
  let tried = 0;
  for (let call = first.call + 1; call < longest; call++) {
    for (const moment of moments) {
      const striker = new Striker(first, { call, moment, error: second });
      const name = `${first.error().name} ${first.moment} call ${first.call}, then ${second().name} ${moment} call ${call}`;
      await naming(name, scenario(striker));
      if (striker.calls <= first.call) return null;
      if (striker.calls <= call) return tried;
      tried++;
    }
  }
  throw new Error('the scenario never came to its end');
}

/** Says of a failure which fault it was found with. */
async function naming(fault: string, scenario: Promise<void>): Promise<void> {
  try {
    await scenario;
  } catch (error) {
    throw new Error(`with ${fault}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}
