// One row of the procedure table: number, name, access, layouts, handler. `procedure()` infers the handler's types
// from the layouts, so a row is the only place where a procedure is written down.

import { RequestError } from '../std/errors.js';
import { struct, u32, type Codec, type Fields, type StructOf } from '../xdr/codec.js';
import type { Awaitable } from '../host/libvirt-host.js';
import type { Session } from './session.js';

/** `write`: refused on a read-only connection. libvirt: virCheckReadOnlyGoto at the head of a public function. */
export type Access = 'read' | 'write';

/** The bits of a flags word, by our names. */
export type FlagBits = Readonly<Record<string, number>>;
type NoFlags = Readonly<Record<string, never>>;
export type FlagsOf<F extends FlagBits> = { readonly [K in keyof F]: boolean };

/** Words of flags that are remembered for each procedure: a client may send any of 2^32. */
const MAX_KNOWN_WORDS = 64;

/** A procedure whose result has no field answers with an empty body. */
type Reply<R extends Fields> = [keyof R] extends [never] ? void : StructOf<R>;

interface Row<A extends Fields, R extends Fields, F extends FlagBits> {
  readonly number: number;
  /** The public C function: it is what libvirt names in its errors. */
  readonly name: string;
  readonly access: Access;
  /** Served before virConnectOpen has been called. */
  readonly beforeOpen?: boolean;
  readonly args: A;
  /**
   * Present when the arguments end with a flags word (where there is one, it is always last). Bits that are not
   * in here are refused.
   */
  readonly flags?: F;
  /** Flags that are refused on a read-only connection although the procedure is not. */
  readonly writeFlags?: readonly (keyof F & string)[];
  readonly result: R;
  readonly call: (session: Session, args: StructOf<A>, flags: FlagsOf<F>) => Awaitable<Reply<R>>;
}

/** A row as the dispatcher sees it. */
export interface Procedure {
  readonly number: number;
  readonly name: string;
  readonly access: Access;
  readonly beforeOpen: boolean;
  /** Whether `args` are of the shape `{ args, flags }`. */
  readonly hasFlags: boolean;
  readonly args: Codec<unknown>;
  readonly result: Codec<unknown>;
  invoke(session: Session, args: unknown): Awaitable<unknown>;
}

export function procedure<
  const A extends Fields,
  const R extends Fields,
  const F extends FlagBits = NoFlags,
>(row: Row<A, R, F>): Procedure {
  const args = struct(row.args);
  const head = { number: row.number, name: row.name, access: row.access };
  const common = { ...head, beforeOpen: row.beforeOpen ?? false, result: struct(row.result) };
  const bits = row.flags;
  if (bits === undefined) {
    const noFlags = {} as FlagsOf<F>; // F is empty: it was inferred from the missing `flags`
    return {
      ...common,
      hasFlags: false,
      args,
      invoke: (session, value: StructOf<A>) => row.call(session, value, noFlags),
    };
  }
  const flagsOf = flagsParser(bits, row.name);
  return {
    ...common,
    hasFlags: true,
    args: struct({ args, flags: u32 }), // a struct in a struct leaves no trace on the wire
    invoke(session, value: { args: StructOf<A>; flags: number }) {
      const flags = flagsOf(value.flags);
      if (session.readOnly) refuseWriteFlags(flags, row.writeFlags ?? [], row.name);
      return row.call(session, value.args, flags);
    },
  };
}

/** The same word asks for the same each time, so it is taken apart once: clients use a handful of them. */
function flagsParser<const F extends FlagBits>(
  bits: F,
  name: string,
): (word: number) => FlagsOf<F> {
  const parsed = new Map<number, FlagsOf<F>>();
  return (word) => {
    const known = parsed.get(word);
    if (known !== undefined) return known;
    const flags = parseFlags(word, bits, name);
    if (parsed.size >= MAX_KNOWN_WORDS) parsed.clear();
    parsed.set(word, flags);
    return flags;
  };
}

/** @throws {RequestError} bits that `bits` does not name, in the words of libvirt's virCheckFlags. */
export function parseFlags<const F extends FlagBits>(
  word: number,
  bits: F,
  functionName: string,
): FlagsOf<F> {
  const entries = Object.entries(bits);
  const known = entries.reduce((mask, [, bit]) => mask | bit, 0);
  const unknown = (word & ~known) >>> 0; // bitwise operators give signed numbers
  if (unknown !== 0) {
    throw new RequestError(
      'INVALID_ARG',
      `unsupported flags (0x${unknown.toString(16)}) in function ${functionName}`,
    );
  }
  const set = entries.map(([name, bit]) => [name, (word & bit) !== 0] as const);
  return Object.fromEntries(set) as FlagsOf<F>; // one boolean for each entry of F
}

function refuseWriteFlags(
  flags: FlagsOf<FlagBits>,
  refused: readonly string[],
  name: string,
): void {
  const found = refused.find((flag) => flags[flag] === true);
  if (found === undefined) return;
  throw new RequestError('OPERATION_DENIED', `${name} with ${found} flag`, { from: 'domain' });
}
