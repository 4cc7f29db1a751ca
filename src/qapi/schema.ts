// What one QEMU accepts, from its own reply to `query-qmp-schema`: checks arguments before they are sent,
// and answers "can this QEMU do that?". Says nothing of what commands mean.
//
// The reply is a graph of entities that refer to each other by meaningless names:
//
//   command ── arg-type, ret-type ──► object ── members, variants by tag ──► object | enum | array | alternate | builtin
//   event   ── arg-type ───────────►
//
// Problems are worded as QEMU words them ("Parameter 'file.driver' is missing"), so that a refusal reads the
// same whether it was ours or QEMU's.

import { RequestError } from '../std/errors.js';
import { isObject, type JsonValue } from './json.js';

interface Named {
  readonly name: string;
  readonly features?: readonly string[];
}
interface Member extends Named {
  readonly type: string;
  /** Present, whatever its value, on optional members. */
  readonly default?: null;
}
interface ObjectEntity extends Named {
  readonly 'meta-type': 'object';
  readonly members: readonly Member[];
  readonly tag?: string;
  readonly variants?: readonly { readonly case: string; readonly type: string }[];
}
type Entity =
  | (Named & {
      readonly 'meta-type': 'command';
      readonly 'arg-type': string;
      readonly 'ret-type': string;
      readonly 'allow-oob'?: boolean;
    })
  | (Named & { readonly 'meta-type': 'event'; readonly 'arg-type': string })
  | ObjectEntity
  | (Named & { readonly 'meta-type': 'enum'; readonly members: readonly Named[] })
  | (Named & { readonly 'meta-type': 'array'; readonly 'element-type': string })
  | (Named & {
      readonly 'meta-type': 'alternate';
      readonly members: readonly { readonly type: string }[];
    })
  | (Named & { readonly 'meta-type': 'builtin'; readonly 'json-type': string });

/** One QEMU's commands, events and their types, by name. */
export interface Schema {
  readonly entities: ReadonlyMap<string, Entity>;
}

/**
 * Reads the reply of `query-qmp-schema` (the list itself, without `return`).
 *
 * @throws {RequestError} it is not such a reply, or refers to a type that it lacks.
 */
export function parseSchema(reply: unknown): Schema {
  if (!Array.isArray(reply)) throw malformed('it is not a list');
  const entities = new Map<string, Entity>();
  for (const entity of reply) {
    if (!isEntity(entity)) throw malformed(`entry ${entities.size} has no known shape`);
    entities.set(entity.name, entity);
  }

  for (const entity of entities.values())
    for (const name of typesOf(entity))
      if (!entities.has(name)) throw malformed(`'${entity.name}' refers to '${name}'`);
  return { entities };
}

/** Whether this QEMU knows the command. */
export const hasCommand = (schema: Schema, command: string): boolean =>
  schema.entities.get(command)?.['meta-type'] === 'command';

/** Whether this QEMU knows the event. */
export const hasEvent = (schema: Schema, event: string): boolean =>
  schema.entities.get(event)?.['meta-type'] === 'event';

/** Whether the command may be executed out of band. */
export function allowsOob(schema: Schema, command: string): boolean {
  const entity = schema.entities.get(command);
  return entity?.['meta-type'] === 'command' && entity['allow-oob'] === true;
}

/**
 * Whether the command takes an argument: names joined by '/', lists and alternates passed through, and a
 * member of any variant counts, e.g. `hasMember(schema, 'blockdev-add', 'file/locking')`.
 */
export const hasMember = (schema: Schema, command: string, path: string): boolean =>
  membersAt(schema, command, path).length > 0;

/** Whether the enum argument at `path` takes `value`, e.g. `('transaction', 'actions/type', 'blockdev-snapshot')`. */
export function hasValue(schema: Schema, command: string, path: string, value: string): boolean {
  return membersAt(schema, command, path)
    .flatMap((member) => behind(schema, member.type))
    .some((type) => type['meta-type'] === 'enum' && type.members.some((m) => m.name === value));
}

/** The `features` of a command, or of its argument at `path`: 'deprecated', 'unstable', 'allow-write-only-overlay', … */
export function featuresOf(schema: Schema, command: string, path = ''): readonly string[] {
  if (path === '') return schema.entities.get(command)?.features ?? [];
  return membersAt(schema, command, path).flatMap((member) => member.features ?? []);
}

/** What QEMU would refuse in these arguments before it looks at the world, or null. */
export function problemWithArguments(
  schema: Schema,
  command: string,
  args: unknown,
): string | null {
  const entity = schema.entities.get(command);
  if (entity?.['meta-type'] !== 'command') return `The command ${command} has not been found`;
  return problem(schema, entity['arg-type'], args, '');
}

/** What is wrong with a reply (the value of `return`) by the schema, or null. For fakes and tests. */
export function problemWithReply(schema: Schema, command: string, reply: unknown): string | null {
  const entity = schema.entities.get(command);
  if (entity?.['meta-type'] !== 'command') return `The command ${command} has not been found`;
  return problem(schema, entity['ret-type'], reply, '');
}

/** What is wrong with the `data` of an event by the schema, or null. For fakes and tests. */
export function problemWithEvent(schema: Schema, event: string, data: unknown): string | null {
  const entity = schema.entities.get(event);
  if (entity?.['meta-type'] !== 'event') return `There is no event ${event}`;
  return problem(schema, entity['arg-type'], data, '');
}

/**
 * Refuses arguments that this QEMU would refuse.
 *
 * @throws {RequestError} naming the command and the path of the argument. Nothing was sent.
 */
export function checkArguments(schema: Schema, command: string, args: unknown): void {
  const wrong = problemWithArguments(schema, command, args);
  if (wrong === null) return;
  const code = hasCommand(schema, command) ? 'INVALID_ARG' : 'OPERATION_UNSUPPORTED';
  throw new RequestError(code, `qmp ${command}: ${wrong}; not sent`);
}

function problem(schema: Schema, type: string, value: unknown, path: string): string | null {
  const entity = schema.entities.get(type);
  switch (entity?.['meta-type']) {
    case 'object':
      return isObject(value)
        ? problemWithObject(schema, entity, value, path)
        : mistyped(path, 'object');
    case 'array':
      if (!Array.isArray(value)) return mistyped(path, 'array');
      return firstProblem(value, (item, index) =>
        problem(schema, entity['element-type'], item, `${path}[${index}]`),
      );
    case 'enum':
      if (typeof value !== 'string') return mistyped(path, 'string');
      if (entity.members.some((member) => member.name === value)) return null;
      return `Parameter '${path}' does not accept value '${value}'`;
    case 'alternate':
      return problemWithAlternate(schema, entity.members, value, path);
    case 'builtin':
      return fits(entity['json-type'], value)
        ? null
        : mistyped(path, jsonTypeNames[entity['json-type']] ?? entity['json-type']);
    default:
      return `'${type}' is not a type`;
  }
}

function problemWithObject(
  schema: Schema,
  entity: ObjectEntity,
  value: Readonly<Record<string, unknown>>,
  path: string,
): string | null {
  const members = membersFor(schema, entity, value);
  const wrong = firstProblem(members, (member) => {
    const at = join(path, member.name);
    const given = value[member.name];
    if (given !== undefined) return problem(schema, member.type, given, at);
    return 'default' in member ? null : `Parameter '${at}' is missing`;
  });
  if (wrong !== null) return wrong;

  const known = new Set(members.map((member) => member.name));
  const extra = Object.keys(value).find((name) => !known.has(name) && value[name] !== undefined);
  return extra === undefined ? null : `Parameter '${join(path, extra)}' is unexpected`;
}

/** The members an object takes once its discriminator is known; variants may have variants. */
function membersFor(
  schema: Schema,
  entity: ObjectEntity,
  value: Readonly<Record<string, unknown>>,
): readonly Member[] {
  const variant = entity.variants?.find((one) => one.case === value[entity.tag ?? '']);
  const inner = variant === undefined ? undefined : schema.entities.get(variant.type);
  if (inner?.['meta-type'] !== 'object') return entity.members;
  return [...entity.members, ...membersFor(schema, inner, value)];
}

/** An alternate holds at most one type of each JSON type, so the value chooses. */
function problemWithAlternate(
  schema: Schema,
  members: readonly { readonly type: string }[],
  value: unknown,
  path: string,
): string | null {
  const chosen = members.find((member) => fits(jsonTypeOf(schema, member.type), value));
  if (chosen !== undefined) return problem(schema, chosen.type, value, path);
  const names = members.map(({ type }) => jsonTypeOf(schema, type));
  return mistyped(
    path,
    [...new Set(names.map((name) => jsonTypeNames[name] ?? name))].join(' or '),
  );
}

function jsonTypeOf(schema: Schema, type: string): string {
  const entity = schema.entities.get(type);
  switch (entity?.['meta-type']) {
    case 'builtin':
      return entity['json-type'];
    case 'enum':
      return 'string';
    case 'array':
      return 'array';
    default:
      return 'object';
  }
}

const jsonTypeNames: Readonly<Record<string, string>> = { int: 'integer' };

function fits(jsonType: string, value: unknown): boolean {
  switch (jsonType) {
    case 'int':
      // int64 and uint64 look the same in the schema.
      if (typeof value === 'bigint') return value >= -(2n ** 63n) && value < 2n ** 64n;
      return Number.isSafeInteger(value);
    case 'number':
      return typeof value === 'bigint' || Number.isFinite(value);
    case 'null':
      return value === null;
    case 'value':
      return true;
    case 'array':
      return Array.isArray(value);
    case 'object':
      return isObject(value);
    default:
      return typeof value === jsonType;
  }
}

/** All members that `path` can mean, over every variant on the way. */
function membersAt(schema: Schema, command: string, path: string): readonly Member[] {
  const entity = schema.entities.get(command);
  if (entity?.['meta-type'] !== 'command') return [];

  let types = [entity['arg-type']];
  let found: Member[] = [];
  for (const name of path.split('/')) {
    const objects = new Set(types.flatMap((type) => behind(schema, type)));
    found = [...objects].flatMap((type) =>
      type['meta-type'] === 'object' ? type.members.filter((member) => member.name === name) : [],
    );
    types = [...new Set(found.map((member) => member.type))];
  }
  return found;
}

/** A type without its wrappings: the elements of lists, the sides of alternates, the variants of objects. */
function behind(schema: Schema, type: string): readonly Entity[] {
  const entity = schema.entities.get(type);
  switch (entity?.['meta-type']) {
    case 'array':
      return behind(schema, entity['element-type']);
    case 'alternate':
      return entity.members.flatMap((member) => behind(schema, member.type));
    case 'object':
      return [entity, ...(entity.variants ?? []).flatMap((one) => behind(schema, one.type))];
    default:
      return entity === undefined ? [] : [entity];
  }
}

function isEntity(value: JsonValue | unknown): value is Entity {
  if (!isObject(value) || typeof value['name'] !== 'string') return false;
  const listOf = (list: unknown, key: string): boolean =>
    Array.isArray(list) &&
    list.every((one: unknown) => isObject(one) && typeof one[key] === 'string');
  switch (value['meta-type']) {
    case 'command':
      return typeof value['arg-type'] === 'string' && typeof value['ret-type'] === 'string';
    case 'event':
      return typeof value['arg-type'] === 'string';
    case 'object':
      return (
        listOf(value['members'], 'name') &&
        listOf(value['members'], 'type') &&
        (value['variants'] === undefined || listOf(value['variants'], 'type'))
      );
    case 'enum':
      return listOf(value['members'], 'name');
    case 'alternate':
      return listOf(value['members'], 'type');
    case 'array':
      return typeof value['element-type'] === 'string';
    case 'builtin':
      return typeof value['json-type'] === 'string';
    default:
      return false;
  }
}

function typesOf(entity: Entity): readonly string[] {
  switch (entity['meta-type']) {
    case 'command':
      return [entity['arg-type'], entity['ret-type']];
    case 'event':
      return [entity['arg-type']];
    case 'object':
      return [...entity.members, ...(entity.variants ?? [])].map((one) => one.type);
    case 'alternate':
      return entity.members.map((member) => member.type);
    case 'array':
      return [entity['element-type']];
    default:
      return [];
  }
}

function firstProblem<T>(
  items: readonly T[],
  check: (item: T, index: number) => string | null,
): string | null {
  for (const [index, item] of items.entries()) {
    const wrong = check(item, index);
    if (wrong !== null) return wrong;
  }
  return null;
}

const join = (path: string, name: string): string => (path === '' ? name : `${path}.${name}`);

const mistyped = (path: string, expected: string): string =>
  path === ''
    ? `arguments must be of type ${expected}`
    : `Invalid parameter type for '${path}', expected: ${expected}`;

const malformed = (what: string): RequestError =>
  new RequestError('INVALID_ARG', `reading a query-qmp-schema reply: ${what}`);
