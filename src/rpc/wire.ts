// Structures that many procedures share, their limits, and libvirt's numbers for our names.
// Source: libvirt `src/remote/remote_protocol.x`, `src/rpc/virnetprotocol.x`.

import { malformed } from '../xdr/reader.js';
import {
  array,
  f64,
  fixedChars,
  i32,
  i64,
  opaque,
  optional,
  struct,
  tagged,
  text,
  u32,
  u64,
  bool,
  type Codec,
  type Of,
} from '../xdr/codec.js';
import type {
  BlockJobStatus,
  BlockJobType,
  LifecycleChange,
  MetadataKind,
} from '../host/libvirt-host.js';

/** REMOTE_STRING_MAX. */
export const MAX_STRING_BYTES = 4_194_304;
/** REMOTE_DOMAIN_LIST_MAX, _SNAPSHOT_LIST_MAX: the longest list of any of them. */
export const MAX_LIST = 16_384;

export const string = text(MAX_STRING_BYTES);
export const nothing = struct({});

const uuidBytes = opaque(16);
const HYPHEN = 0x2d;
const hexDigits = Buffer.from('0123456789abcdef');
/** A UUID is made here before it becomes a string: no other way to join parts is as fast, and every call names a domain. */
const uuidText = Buffer.from('00000000-0000-0000-0000-000000000000');

/** Sixteen raw bytes on the wire, text with hyphens here. */
export const uuid: Codec<string> = {
  read(reader) {
    let at = 0;
    for (let word = 0; word < 4; word++) {
      const bits = reader.u32();
      for (let shift = 28; shift >= 0; shift -= 4) {
        if (uuidText[at] === HYPHEN) at++;
        uuidText[at++] = hexDigits[(bits >>> shift) & 15] ?? 0;
      }
    }
    return uuidText.toString('latin1');
  },
  write: (writer, value) => uuidBytes.write(writer, Buffer.from(value.replaceAll('-', ''), 'hex')),
};

/** remote_nonnull_domain. */
export const domain = struct({ name: string, uuid, id: i32 });
/** remote_nonnull_domain_snapshot. */
export const snapshot = struct({ name: string, domain });
const network = struct({ name: string, uuid });

/** remote_typed_param: VIR_TYPED_PARAM_INT and on. */
export const typedParameter = struct({
  field: string,
  value: tagged({
    int: [1, i32],
    uint: [2, u32],
    llong: [3, i64],
    ullong: [4, u64],
    double: [5, f64],
    boolean: [6, bool],
    string: [7, string],
  }),
});
export type TypedParameter = Of<typeof typedParameter>;

export const domainList = array(domain, MAX_LIST);
export const snapshotList = array(snapshot, MAX_LIST);
export const nameList = array(string, MAX_LIST);
/** The CPU model of NODE_GET_INFO. */
export const cpuModel = fixedChars(32);

/** virNetMessageError: the body of a reply whose status is `error`. */
export const wireError = struct({
  code: i32,
  domain: i32,
  message: optional(string),
  level: i32,
  dom: optional(domain),
  str1: optional(string),
  str2: optional(string),
  str3: optional(string),
  int1: i32,
  int2: i32,
  net: optional(network),
});

/** virDomainBlockJobType. */
export const blockJobTypes = {
  unknown: 0,
  pull: 1,
  copy: 2,
  commit: 3,
  'active-commit': 4,
  backup: 5,
} as const satisfies Record<BlockJobType, number>;

/** virConnectDomainEventBlockJobStatus. */
export const blockJobStatuses = {
  completed: 0,
  failed: 1,
  canceled: 2,
  ready: 3,
} as const satisfies Record<BlockJobStatus, number>;

/** virDomainEventIOErrorAction. */
export const ioErrorActions = { none: 0, pause: 1, report: 2 } as const;

/** virDomainMetadataType. */
export const metadataKinds = {
  description: 0,
  title: 1,
  element: 2,
} as const satisfies Record<MetadataKind, number>;

/** virDomainEventType and, for each, its detail. */
const lifecycleNumbers: {
  readonly [E in LifecycleChange['event']]: {
    readonly event: number;
    readonly details: Readonly<Record<Extract<LifecycleChange, { event: E }>['detail'], number>>;
  };
} = {
  defined: { event: 0, details: { added: 0, updated: 1, renamed: 2, 'from snapshot': 3 } },
  undefined: { event: 1, details: { removed: 0, renamed: 1 } },
  started: {
    event: 2,
    details: { booted: 0, migrated: 1, restored: 2, 'from snapshot': 3, wakeup: 4 },
  },
  suspended: {
    event: 3,
    details: {
      paused: 0,
      migrated: 1,
      'I/O error': 2,
      watchdog: 3,
      restored: 4,
      'from snapshot': 5,
      'API error': 6,
    },
  },
  resumed: { event: 4, details: { unpaused: 0, migrated: 1, 'from snapshot': 2 } },
  stopped: {
    event: 5,
    details: {
      shutdown: 0,
      destroyed: 1,
      crashed: 2,
      migrated: 3,
      saved: 4,
      failed: 5,
      'from snapshot': 6,
    },
  },
  shutdown: { event: 6, details: { finished: 0, guest: 1, host: 2 } },
  pmsuspended: { event: 7, details: { memory: 0, disk: 1 } },
  crashed: { event: 8, details: { panicked: 0, crashloaded: 1 } },
};

/** The pair of numbers that a lifecycle event carries. */
export function lifecycleOf(change: LifecycleChange): { event: number; detail: number } {
  const { event, details } = lifecycleNumbers[change.event];
  const numbers: Readonly<Record<string, number>> = details;
  return { event, detail: numbers[change.detail] ?? 0 };
}

/** The name that `table` gives to `value`; undecodable when it gives none. */
export function nameOf<N extends string>(
  table: Readonly<Record<N, number>>,
  value: number,
  what: string,
): N {
  const entries = Object.entries<number>(table);
  const found = entries.find(([, number]) => number === value);
  if (found === undefined) throw malformed(`${what} ${value}`);
  return found[0] as N; // a key of `table`, which Object.entries forgets
}
