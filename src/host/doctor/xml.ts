// A definition that somebody kept, for when there is no journal: its disks, and which images stand on them.

import { randomUUID } from 'node:crypto';
import { localPath } from '../../block/layer.js';
import { parseDefinition } from '../../domain/parse.js';
import { backingName, namedInFolder } from '../../image/headers.js';
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
        namedBy: await overlaysOf(path),
      })),
    ),
  };
}

/** Only images: a definition that lies beside its image names it too. */
async function overlaysOf(path: string): Promise<readonly string[]> {
  const naming = await namedInFolder(path).catch((): readonly string[] => []);
  const names = await Promise.all(naming.map(async (other) => await backingName(other)));
  return naming.filter((_, i) => names[i] !== null);
}
