// One row of the route table: what a request must look like, and which verb of the host answers it.

import { z } from 'zod';

import type { FerryHost } from '../host/ferry-host.js';
import { RequestError } from '../std/errors.js';

export type Method = 'GET' | 'POST' | 'DELETE';

/** A request as it came: nothing of it is checked yet. */
export interface RawRequest {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
}

export interface Call {
  readonly host: FerryHost;
  /** Aborted when the caller goes away. */
  readonly signal: AbortSignal;
}

export interface Route {
  readonly method: Method;
  /** Path as fastify spells it, `:name` for a parameter. */
  readonly path: string;
  /** HTTP status of success. */
  readonly status: number;
  /** What is being done, for the text of an error: the verb and the parameters of the path. */
  readonly doing: (params: unknown) => string;
  /** Checks the request, then asks the host. Rejects with a RequestError that names the wrong field. */
  readonly answer: (raw: RawRequest, call: Call) => Promise<unknown>;
}

interface Input<P, Q, B> {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
}

interface Shape<P, Q, B> {
  readonly params?: z.ZodType<P>;
  readonly query?: z.ZodType<Q>;
  readonly body?: z.ZodType<B>;
  readonly status?: number;
}

/** `verb` is the command's name, first word of `doing`. */
export function route<P, Q, B>(
  method: Method,
  path: string,
  verb: string,
  shape: Shape<P, Q, B>,
  call: (input: Input<P, Q, B>, call: Call) => unknown,
): Route {
  const doing = (params: unknown): string => doingOf(verb, params);
  return {
    method,
    path,
    status: shape.status ?? 200,
    doing,
    answer: async (raw, context) => {
      const check = <T>(schema: z.ZodType<T> | undefined, value: unknown, place: Place): T =>
        checked(schema, value ?? {}, place, doing(raw.params));
      const input = {
        params: check(shape.params, raw.params, 'path'),
        query: check(shape.query, raw.query, 'query'),
        body: check(shape.body, raw.body, 'body'),
      };
      return await call(input, context);
    },
  };
}

type Place = 'path' | 'query' | 'body' | 'header';

/** The verb and the path's parameters, `snapshot-delete vm1 s1`. */
export function doingOf(verb: string, params: unknown): string {
  const values = typeof params === 'object' && params !== null ? Object.values(params) : [];
  return [verb, ...values.map(String)].join(' ');
}

/** `value` as `schema` has it. Without a schema nothing may be there. */
export function checked<T>(
  schema: z.ZodType<T> | undefined,
  value: unknown,
  place: Place,
  doing: string,
): T {
  // A row without a schema has T = unknown: the empty object fits it.
  const result = (schema ?? (nothing as unknown as z.ZodType<T>)).safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = issue === undefined ? place : fieldOf(place, issue);
  const text = `${doing}: ${where}: ${issue?.message ?? 'not valid'}; correct it and repeat`;
  throw new RequestError('INVALID_ARG', text);
}

const nothing = z.strictObject({});

/** `body.disks.0`, `query.after`: where the first wrong value is. */
function fieldOf(place: Place, issue: z.core.$ZodIssue): string {
  const unknown = issue.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : [];
  return [place, ...issue.path.map(String), ...unknown].join('.');
}
