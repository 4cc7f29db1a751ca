// What the daemon says of the guest, all of it at one time.

import type { DomainSummary, SnapshotView } from '../../src/host/ferry-host.js';
import { parseXml } from '../../src/xml/parse.js';
import { attributeOf, childNamed, childrenNamed, type XmlElement } from '../../src/xml/tree.js';
import { present } from '../../src/std/assert.js';
import type { Rig } from './rig.js';

/** Where a guest can be between two operations. `owed`: off, with mirrors that its next start takes up. `copies`: mirrors whose snapshot object was forgotten. */
export type State = 'off' | 'owed' | 'plain' | 'mirrored' | 'copies';

/** One image as live XML names it. */
export interface NamedImage {
  readonly path: string;
  readonly index: number | null;
}

export interface NamedDisk {
  readonly target: string;
  /** Active image first. */
  readonly chain: readonly NamedImage[];
  /** Its own image first; empty: no mirror. */
  readonly mirror: readonly NamedImage[];
  readonly ready: boolean;
}

export interface View {
  readonly summary: DomainSummary;
  readonly snapshots: readonly SnapshotView[];
  /** Empty for a domain that does not run. */
  readonly liveXml: string;
  readonly inactiveXml: string;
}

export async function viewOf({ client, life: { name } }: Rig): Promise<View> {
  const [summary, snapshots, liveXml, inactiveXml] = await Promise.all([
    client.showDomain(name),
    client.listSnapshots(name),
    client.dumpXml(name, { inactive: false }),
    client.dumpXml(name, { inactive: true }),
  ]);
  return {
    summary,
    snapshots,
    liveXml: summary.id === null ? '' : liveXml,
    inactiveXml,
  };
}

export function stateOf({ summary, snapshots, liveXml }: View): State {
  if (summary.id === null) return summary.owed === null ? 'off' : 'owed';
  const mirrored = namedDisks(liveXml).filter(({ mirror }) => mirror.length > 0);
  if (mirrored.length === 0) return 'plain';
  const owned = snapshots.some(({ disks }) => disks.some(({ mirror }) => mirror !== null));
  return owned ? 'mirrored' : 'copies';
}

/** The disks of a domain's XML. */
export function namedDisks(xml: string): readonly NamedDisk[] {
  if (xml === '') return [];
  const devices = present(childNamed(parseXml(xml), 'devices'), 'a domain has devices');
  return childrenNamed(devices, 'disk').map((disk): NamedDisk => {
    const mirror = childNamed(disk, 'mirror');
    return {
      target: attributeOf(childNamed(disk, 'target'), 'dev') ?? '',
      chain: [named(disk, childNamed(disk, 'source')), ...below(disk)],
      mirror:
        mirror === null ? [] : [named(mirror, childNamed(mirror, 'source')), ...below(mirror)],
      ready: attributeOf(mirror, 'ready') === 'yes',
    };
  });
}

function below(parent: XmlElement): readonly NamedImage[] {
  const store = childNamed(parent, 'backingStore');
  if (store === null || attributeOf(store, 'type') === null) return [];
  return [named(store, childNamed(store, 'source')), ...below(store)];
}

/** The index stands at `<source>` of a disk, at `<backingStore>` of what lies below. */
function named(parent: XmlElement, source: XmlElement | null): NamedImage {
  const index = attributeOf(source, 'index') ?? attributeOf(parent, 'index');
  return {
    path: attributeOf(source, 'file') ?? '',
    index: index === null ? null : Number(index),
  };
}

/** `ready='yes'` comes when it comes. */
export const withoutReady = (xml: string): string => xml.replaceAll(" ready='yes'", '');

/** Top image of each disk, by target. */
export const topsOf = ({ liveXml, inactiveXml }: View): ReadonlyMap<string, string> =>
  new Map(
    namedDisks(liveXml === '' ? inactiveXml : liveXml).map(({ target, chain }) => [
      target,
      chain[0]?.path ?? '',
    ]),
  );
