// Anything thrown → the Error that a client is sent. No decisions here: `codes` and `errorDomains` of std make them.

import { codes, errorDomains, FerryError, messageOf } from '../std/errors.js';
import type { Of } from '../xdr/codec.js';
import type { wireError } from './wire.js';

/** VIR_ERR_ERROR, the level of everything that is not a warning. */
const LEVEL_ERROR = 2;
/** A reply to a failed call needs no novel, and must not fail itself. */
const MAX_MESSAGE_CHARACTERS = 65_536;

/**
 * The Error of a thrown value: what is no FerryError is an internal error.
 *
 * `message` is always present and whole: clients print it as it is, and go-libvirt's decoder assumes it.
 * `str1` and `str2` are libvirt's format and detail.
 */
export function toWireError(error: unknown): Of<typeof wireError> {
  const code = error instanceof FerryError ? error.code : 'INTERNAL_ERROR';
  const from = error instanceof FerryError ? error.from : 'qemu';
  const { virErr, prefix } = codes[code];
  const detail = messageOf(error).replaceAll('\0', ' ').slice(0, MAX_MESSAGE_CHARACTERS);
  return {
    code: virErr,
    domain: errorDomains[from],
    message: prefix + detail,
    level: LEVEL_ERROR,
    dom: null,
    str1: `${prefix}%s`,
    str2: detail,
    str3: null,
    int1: -1,
    int2: -1,
    net: null,
  };
}
