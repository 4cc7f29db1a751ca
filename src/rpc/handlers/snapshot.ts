// Snapshot objects. A host gives a flat list of them; lists, trees, filters and counts are made here.

import { NotFoundError } from '../../std/errors.js';
import { bool, i32 } from '../../xdr/codec.js';
import type { LibvirtHost, SnapshotFacts } from '../../host/libvirt-host.js';
import { procedure, type FlagsOf } from '../procedure.js';
import { domain, nameList, snapshot, snapshotList, string } from '../wire.js';

/** virDomainSnapshotListFlags. Bit 1 is ROOTS for the list of a domain, DESCENDANTS for the list of a snapshot. */
const kinds = {
  metadata: 2,
  leaves: 4,
  noLeaves: 8,
  noMetadata: 16,
  inactive: 32,
  active: 64,
  diskOnly: 128,
  internal: 256,
  external: 512,
  topological: 1024, // the host's order already is
} as const;
const listFlags = { roots: 1, ...kinds } as const;
const childrenFlags = { descendants: 1, ...kinds } as const;

type Tree = readonly SnapshotFacts[];
type KindFlags = FlagsOf<typeof kinds>;
type Kind = keyof typeof kinds;

const isParent = (tree: Tree, facts: SnapshotFacts): boolean =>
  tree.some(({ parent }) => parent === facts.name);

/** A snapshot is listed when, of each group that has a flag set, one that is set holds. */
const filterGroups: readonly Partial<
  Record<Kind, (facts: SnapshotFacts, tree: Tree) => boolean>
>[] = [
  { metadata: () => true, noMetadata: () => false },
  {
    leaves: (facts, tree) => !isParent(tree, facts),
    noLeaves: (facts, tree) => isParent(tree, facts),
  },
  {
    inactive: ({ state }) => state === 'inactive',
    active: ({ state }) => state === 'active',
    diskOnly: ({ state }) => state === 'disk-only',
  },
  {
    internal: ({ location }) => location === 'internal',
    external: ({ location }) => location === 'external',
  },
];

function filtered(some: Tree, tree: Tree, flags: KindFlags): Tree {
  return some.filter((facts) =>
    filterGroups.every((group) => {
      const asked = Object.entries(group).filter(([name]) => flags[name as Kind]); // keys of the group
      return asked.length === 0 || asked.some(([, holds]) => holds(facts, tree));
    }),
  );
}

async function listOf(
  host: LibvirtHost,
  uuid: string,
  flags: FlagsOf<typeof listFlags>,
): Promise<Tree> {
  const tree = await host.snapshots(uuid);
  const some = flags.roots ? tree.filter(({ parent }) => parent === null) : tree;
  return filtered(some, tree, flags);
}

async function childrenOf(
  host: LibvirtHost,
  snap: { readonly name: string; readonly domain: { readonly uuid: string } },
  flags: FlagsOf<typeof childrenFlags>,
): Promise<Tree> {
  const tree = await host.snapshots(snap.domain.uuid);
  const top = named(tree, snap.name);
  const below = flags.descendants
    ? descendants(tree, top.name)
    : tree.filter(({ parent }) => parent === top.name);
  return filtered(below, tree, flags);
}

/** Parents come before their children in `tree`, so one pass finds them all. */
function descendants(tree: Tree, root: string): Tree {
  const below = new Set<string>();
  for (const { name, parent } of tree) {
    if (parent !== null && (parent === root || below.has(parent))) below.add(name);
  }
  return tree.filter(({ name }) => below.has(name));
}

function named(tree: Tree, name: string): SnapshotFacts {
  const found = tree.find((facts) => facts.name === name);
  if (found !== undefined) return found;
  throw new NotFoundError('NO_DOMAIN_SNAPSHOT', `no domain snapshot with matching name '${name}'`);
}

async function snapshotOf(
  host: LibvirtHost,
  snap: { readonly name: string; readonly domain: { readonly uuid: string } },
): Promise<SnapshotFacts> {
  return named(await host.snapshots(snap.domain.uuid), snap.name);
}

const namesOf = (tree: Tree, max: number): string[] =>
  tree.slice(0, Math.max(0, max)).map(({ name }) => name);

export const snapshotProcedures = [
  procedure({
    number: 185,
    name: 'virDomainSnapshotCreateXML',
    access: 'write',
    args: { domain, xml: string },
    flags: {
      redefine: 1,
      current: 2,
      noMetadata: 4,
      halt: 8,
      diskOnly: 16,
      reuseExternal: 32,
      quiesce: 64,
      atomic: 128,
      live: 256,
      validate: 512,
    },
    result: { snapshot },
    async call({ host }, args, flags) {
      const name = await host.createSnapshot(args.domain.uuid, args.xml, flags);
      return { snapshot: { name, domain: args.domain } };
    },
  }),
  procedure({
    number: 186,
    name: 'virDomainSnapshotGetXMLDesc',
    access: 'read',
    args: { snapshot },
    flags: { secure: 1 },
    writeFlags: ['secure'],
    result: { xml: string },
    async call({ host }, args, flags) {
      const { name, domain: of } = args.snapshot;
      return { xml: await host.snapshotXml(of.uuid, name, flags) };
    },
  }),
  procedure({
    number: 187,
    name: 'virDomainSnapshotNum',
    access: 'read',
    args: { domain },
    flags: listFlags,
    result: { count: i32 },
    async call({ host }, args, flags) {
      return { count: (await listOf(host, args.domain.uuid, flags)).length };
    },
  }),
  procedure({
    number: 188,
    name: 'virDomainSnapshotListNames',
    access: 'read',
    args: { domain, max: i32 },
    flags: listFlags,
    result: { names: nameList },
    async call({ host }, args, flags) {
      return { names: namesOf(await listOf(host, args.domain.uuid, flags), args.max) };
    },
  }),
  procedure({
    number: 189,
    name: 'virDomainSnapshotLookupByName',
    access: 'read',
    args: { domain, name: string },
    flags: {},
    result: { snapshot },
    async call({ host }, args) {
      const { name } = await snapshotOf(host, args);
      return { snapshot: { name, domain: args.domain } };
    },
  }),
  procedure({
    number: 190,
    name: 'virDomainHasCurrentSnapshot',
    access: 'read',
    args: { domain },
    flags: {},
    result: { has: bool },
    async call({ host }, args) {
      return { has: (await host.snapshots(args.domain.uuid)).some(({ current }) => current) };
    },
  }),
  procedure({
    number: 191,
    name: 'virDomainSnapshotCurrent',
    access: 'read',
    args: { domain },
    flags: {},
    result: { snapshot },
    async call({ host }, args) {
      const found = (await host.snapshots(args.domain.uuid)).find(({ current }) => current);
      if (found === undefined) {
        const message = 'the domain does not have a current snapshot';
        throw new NotFoundError('NO_DOMAIN_SNAPSHOT', message);
      }
      return { snapshot: { name: found.name, domain: args.domain } };
    },
  }),
  procedure({
    number: 193,
    name: 'virDomainSnapshotDelete',
    access: 'write',
    args: { snapshot },
    // 8 and 16 are ours: the next free bits, as the series of 2012 would have taken them.
    flags: { children: 1, metadataOnly: 2, childrenOnly: 4, reopenMirror: 8, removeMirror: 16 },
    result: {},
    call({ host }, args, flags) {
      const { name, domain: of } = args.snapshot;
      return host.deleteSnapshot(of.uuid, name, flags);
    },
  }),
  procedure({
    number: 244,
    name: 'virDomainSnapshotGetParent',
    access: 'read',
    args: { snapshot },
    flags: {},
    result: { snapshot },
    async call({ host }, args) {
      const { name, parent } = await snapshotOf(host, args.snapshot);
      // `virsh snapshot-list --tree` finds the roots by this very error.
      if (parent === null) {
        const message = `snapshot '${name}' does not have a parent`;
        throw new NotFoundError('NO_DOMAIN_SNAPSHOT', message);
      }
      return { snapshot: { name: parent, domain: args.snapshot.domain } };
    },
  }),
  procedure({
    number: 246,
    name: 'virDomainSnapshotNumChildren',
    access: 'read',
    args: { snapshot },
    flags: childrenFlags,
    result: { count: i32 },
    async call({ host }, args, flags) {
      return { count: (await childrenOf(host, args.snapshot, flags)).length };
    },
  }),
  procedure({
    number: 247,
    name: 'virDomainSnapshotListChildrenNames',
    access: 'read',
    args: { snapshot, max: i32 },
    flags: childrenFlags,
    result: { names: nameList },
    async call({ host }, args, flags) {
      return { names: namesOf(await childrenOf(host, args.snapshot, flags), args.max) };
    },
  }),
  procedure({
    number: 271,
    name: 'virDomainSnapshotIsCurrent',
    access: 'read',
    args: { snapshot },
    flags: {},
    result: { current: bool },
    async call({ host }, args) {
      const { current } = await snapshotOf(host, args.snapshot);
      return { current };
    },
  }),
  procedure({
    number: 272,
    name: 'virDomainSnapshotHasMetadata',
    access: 'read',
    args: { snapshot },
    flags: {},
    result: { metadata: bool },
    async call({ host }, args) {
      await snapshotOf(host, args.snapshot);
      return { metadata: true };
    },
  }),
  procedure({
    number: 274,
    name: 'virDomainListAllSnapshots',
    access: 'read',
    args: { domain, needResults: bool },
    flags: listFlags,
    result: { snapshots: snapshotList, count: i32 },
    async call({ host }, args, flags) {
      const found = await listOf(host, args.domain.uuid, flags);
      const snapshots = found.map(({ name }) => ({ name, domain: args.domain }));
      return { snapshots: args.needResults ? snapshots : [], count: found.length };
    },
  }),
  procedure({
    number: 275,
    name: 'virDomainSnapshotListAllChildren',
    access: 'read',
    args: { snapshot, needResults: bool },
    flags: childrenFlags,
    result: { snapshots: snapshotList, count: i32 },
    async call({ host }, args, flags) {
      const found = await childrenOf(host, args.snapshot, flags);
      const snapshots = found.map(({ name }) => ({ name, domain: args.snapshot.domain }));
      return { snapshots: args.needResults ? snapshots : [], count: found.length };
    },
  }),
];
