// A definition that somebody kept, for when there is no journal: its disks, and which images stand on them.

import { randomUUID } from 'node:crypto';
import { localPath } from '../../block/layer.js';
import { parseDefinition } from '../../domain/parse.js';
import { namedInFolder } from '../../image/headers.js';
import type { XmlFacts } from './facts.js';

export async function xmlFacts(xml: string): Promise<XmlFacts> {
  // Nothing is started from it, so what a start would fill in does not matter.
  const { name, uuid, disks } = parseDefinition(xml, {
    newUuid: randomUUID,
    newMac: () => '52:54:00:00:00:00',
    emulator: 'qemu-system-x86_64',
    canonicalMachine: (machine) => machine,
  });
  const local = disks.flatMap(({ target, source }) => {
    const path = source === null ? null : localPath(source);
    return path === null ? [] : [{ target, path }];
  });
  return {
    name,
    uuid,
    disks: await Promise.all(
      local.map(async ({ target, path }) => ({
        target,
        path,
        namedBy: await namedInFolder(path).catch(() => []),
      })),
    ),
  };
}
