// What can go wrong, grouped by what the caller may do about it. The doors (rpc, http, cli) translate from
// the one table below and hold no `switch` of their own.
// Message shape: `<what was being done>: <what is wrong, with the values>; <what to do>`.

/** libvirt's error numbers (virErrorNumber), the text libvirt puts before a message, HTTP status and exit code. */
export const codes = {
  INTERNAL_ERROR: { virErr: 1, prefix: 'internal error: ', http: 500, exit: 7 },
  NO_SUPPORT: {
    virErr: 3,
    prefix: 'this function is not supported by the connection driver: ',
    http: 400,
    exit: 2,
  },
  INVALID_ARG: { virErr: 8, prefix: 'invalid argument: ', http: 400, exit: 2 },
  OPERATION_FAILED: { virErr: 9, prefix: 'operation failed: ', http: 502, exit: 6 },
  NO_SOURCE: { virErr: 19, prefix: 'missing source information for device ', http: 400, exit: 2 },
  NO_NAME: { virErr: 21, prefix: 'missing name information', http: 400, exit: 2 },
  XML_ERROR: { virErr: 27, prefix: 'XML error: ', http: 400, exit: 2 },
  OPERATION_DENIED: { virErr: 29, prefix: 'operation forbidden: ', http: 403, exit: 2 },
  XML_DETAIL: { virErr: 35, prefix: '', http: 400, exit: 2 },
  SYSTEM_ERROR: { virErr: 38, prefix: '', http: 502, exit: 6 },
  RPC: { virErr: 39, prefix: '', http: 400, exit: 2 },
  NO_DOMAIN: { virErr: 42, prefix: 'Domain not found: ', http: 404, exit: 3 },
  OPERATION_INVALID: {
    virErr: 55,
    prefix: 'Requested operation is not valid: ',
    http: 409,
    exit: 4,
  },
  CONFIG_UNSUPPORTED: { virErr: 67, prefix: 'unsupported configuration: ', http: 400, exit: 2 },
  OPERATION_TIMEOUT: { virErr: 68, prefix: 'Timed out during operation: ', http: 503, exit: 5 },
  NO_DOMAIN_SNAPSHOT: { virErr: 72, prefix: 'Domain snapshot not found: ', http: 404, exit: 3 },
  ARGUMENT_UNSUPPORTED: { virErr: 74, prefix: 'argument unsupported: ', http: 400, exit: 2 },
  OPERATION_ABORTED: { virErr: 78, prefix: 'operation aborted: ', http: 409, exit: 4 },
  /** libvirt has no number for our operations; its internal error comes closest. */
  NO_OPERATION: { virErr: 1, prefix: 'internal error: ', http: 404, exit: 3 },
  NO_DOMAIN_METADATA: { virErr: 80, prefix: 'metadata not found: ', http: 404, exit: 3 },
  OVERFLOW: { virErr: 82, prefix: 'numerical overflow: ', http: 400, exit: 2 },
  BLOCK_COPY_ACTIVE: { virErr: 83, prefix: 'block copy still active: ', http: 409, exit: 4 },
  OPERATION_UNSUPPORTED: { virErr: 84, prefix: 'Operation not supported: ', http: 400, exit: 2 },
  XML_INVALID_SCHEMA: {
    virErr: 92,
    prefix: 'XML document failed to validate against schema: ',
    http: 400,
    exit: 2,
  },
} as const satisfies Record<string, { virErr: number; prefix: string; http: number; exit: number }>;

export type Code = keyof typeof codes;

/** libvirt's virErrorDomain numbers: which part of libvirt a client is told the error comes from. */
export const errorDomains = {
  none: 0,
  xml: 5,
  rpc: 7,
  qemu: 10,
  remote: 13,
  storage: 18,
  domain: 20,
  network: 19,
  domainSnapshot: 35,
} as const;
export type ErrorDomain = keyof typeof errorDomains;

export interface ErrorDetails {
  /** Which part of libvirt's numbering the error belongs to; default `qemu`. */
  readonly from?: ErrorDomain;
  /** Whether every image named by the XML holds everything: the only question at 3 a.m. Law 1 makes it true unless said otherwise; `null`: not known. */
  readonly sourceIntact?: boolean | null;
  /** Commands that the user may type next, most useful first. */
  readonly next?: readonly string[];
  /** The operation that `ferry ops show` explains. */
  readonly operation?: number;
  readonly cause?: unknown;
}

/** Every error that a door may show. Thrown through its subclasses only. */
export class FerryError extends Error {
  readonly code: Code;
  readonly from: ErrorDomain;
  readonly sourceIntact: boolean | null;
  readonly next: readonly string[];
  readonly operation: number | null;

  constructor(code: Code, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.from = details.from ?? 'qemu';
    this.sourceIntact = details.sourceIntact === undefined ? true : details.sourceIntact;
    this.next = details.next ?? [];
    this.operation = details.operation ?? null;
  }
}

type RequestCode =
  | 'NO_SUPPORT'
  | 'INVALID_ARG'
  | 'NO_SOURCE'
  | 'NO_NAME'
  | 'XML_ERROR'
  | 'OPERATION_DENIED'
  | 'XML_DETAIL'
  | 'RPC'
  | 'CONFIG_UNSUPPORTED'
  | 'ARGUMENT_UNSUPPORTED'
  | 'OVERFLOW'
  | 'OPERATION_UNSUPPORTED'
  | 'XML_INVALID_SCHEMA';

/** The caller may fix the request. Nothing was touched. */
export class RequestError extends FerryError {
  constructor(code: RequestCode, message: string, details?: ErrorDetails) {
    super(code, message, details);
  }
}

/** The caller may look again: there is no such thing. */
export class NotFoundError extends FerryError {
  constructor(
    code: 'NO_DOMAIN' | 'NO_DOMAIN_SNAPSHOT' | 'NO_DOMAIN_METADATA' | 'NO_OPERATION',
    message: string,
    details?: ErrorDetails,
  ) {
    super(code, message, details);
  }
}

/** The caller may change the state of the domain and repeat. */
export class StateError extends FerryError {
  constructor(
    code: 'OPERATION_INVALID' | 'BLOCK_COPY_ACTIVE' | 'OPERATION_ABORTED',
    message: string,
    details?: ErrorDetails,
  ) {
    super(code, message, details);
  }
}

/** The caller may repeat later: somebody holds what is needed, or a deadline passed. */
export class BusyError extends FerryError {
  constructor(message: string, details?: ErrorDetails) {
    super('OPERATION_TIMEOUT', message, details);
  }
}

/** The operating system refused: a path, its permissions, its space. libvirt's VIR_ERR_SYSTEM_ERROR. */
export class SystemError extends FerryError {
  constructor(message: string, details?: ErrorDetails) {
    super('SYSTEM_ERROR', message, details);
  }
}

/** What is wrong with the files of the journal. */
export type Trouble = 'full' | 'read-only' | 'failing' | 'damaged';

/** What the project remembers could not be read or written. Guests go on; what was asked for may be repeated once that is mended. */
export class JournalError extends SystemError {
  readonly trouble: Trouble;

  constructor(trouble: Trouble, message: string, details?: ErrorDetails) {
    super(message, details);
    this.trouble = trouble;
  }
}

/** QEMU, or a tool of it, refused or went away. */
export class QemuError extends FerryError {
  /** QMP error class (`GenericError`, `DeviceNotActive`, …); `Gone` when the process or its socket is no more. */
  readonly qmpClass: string;

  constructor(
    message: string,
    details: ErrorDetails & {
      readonly qmpClass?: string;
      readonly code?: 'INTERNAL_ERROR' | 'OPERATION_FAILED';
    } = {},
  ) {
    super(details.code ?? 'OPERATION_FAILED', message, details);
    this.qmpClass = details.qmpClass ?? 'GenericError';
  }
}

/** A person has to decide: an operation stopped where guessing would lose a disk. */
export class NeedsOperatorError extends FerryError {
  constructor(message: string, details: ErrorDetails & { readonly operation: number }) {
    super('INTERNAL_ERROR', message, details);
  }
}

/** The text of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
