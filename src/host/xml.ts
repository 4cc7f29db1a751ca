// Domain XML, printed once a record: a record never changes, a new one is a new value.

import { printDefinition } from '../domain/print.js';
import type { DomainRecord } from '../domain/record.js';
import { StateError } from '../std/errors.js';

interface Printed {
  live: string | null;
  inactive: string | null;
}

const cache = new WeakMap<DomainRecord, Printed>();

/** The live XML of a running domain unless `inactive` is asked for (VIR_DOMAIN_XML_INACTIVE). */
export function domainXml(record: DomainRecord, inactive: boolean): string {
  const printed = cache.get(record) ?? { live: null, inactive: null };
  cache.set(record, printed);
  if (record.live !== null && !inactive) {
    printed.live ??= printDefinition(record.live.definition, {
      id: record.live.id,
      inactive: false,
    });
    return printed.live;
  }
  const definition = record.persistent ?? record.live?.definition;
  if (definition === undefined)
    throw new StateError('OPERATION_INVALID', `domain '${record.name}' is going`);
  printed.inactive ??= printDefinition(definition, { id: null, inactive: true });
  return printed.inactive;
}
