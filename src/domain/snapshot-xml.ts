// `<domainsnapshot>`: what a client asks for, what is printed, and what is given back to be kept (REDEFINE). `<mirror>` is
// the element of the 2012 proposal, in both of its forms.

import type { Format, Image, StorageSource } from '../block/layer.js';
import { RequestError } from '../std/errors.js';
import { parseXml } from '../xml/parse.js';
import { printXml } from '../xml/print.js';
import type { XmlElement } from '../xml/tree.js';
import { attributeOf, childNamed, childrenNamed, element, elementsOf, textElement, textOf } from '../xml/tree.js';
import type { Definition, ParseContext } from './definition.js';
import type { SnapshotMode } from './disk.js';
import { readDefinition } from './parse.js';
import { readSource } from './parse-disk.js';
import { definitionElement } from './print.js';
import { printSource } from './print-disk.js';
import type { Snapshot, SnapshotDisk, SnapshotMemory, SnapshotState } from './snapshot.js';
import { childText, configError } from './values.js';

/** A second new layer as it was asked for. */
export interface MirrorRequest {
  readonly source: StorageSource;
  readonly format: Format | null;
}

export interface SnapshotDiskRequest {
  /** Target or source path. */
  readonly name: string;
  readonly mode: SnapshotMode | null;
  readonly source: StorageSource | null;
  readonly format: Format | null;
  readonly mirror: MirrorRequest | null;
}

export interface SnapshotRequest {
  readonly name: string | null;
  readonly description: string | null;
  readonly memory: SnapshotMemory | null;
  readonly disks: readonly SnapshotDiskRequest[];
}

const xmlError = (text: string): RequestError => new RequestError('XML_ERROR', text, { from: 'domainSnapshot' });

const modes = ['no', 'internal', 'external', 'manual'] as const;
const types = ['file', 'block', 'network'] as const;

export function parseSnapshotRequest(xml: string): SnapshotRequest {
  return readRequest(rootOf(xml));
}

function rootOf(xml: string): XmlElement {
  const root = parseXml(xml, 'domain_snapshot');
  if (root.name !== 'domainsnapshot') throw xmlError(`unexpected root element <${root.name}>, expecting <domainsnapshot>`);
  return root;
}

function readRequest(root: XmlElement): SnapshotRequest {
  const disks = childNamed(root, 'disks');
  return {
    name: childText(root, 'name'),
    description: childText(root, 'description'),
    memory: readMemory(childNamed(root, 'memory')),
    disks: disks === null ? [] : childrenNamed(disks, 'disk').map(readDisk),
  };
}

function readMemory(memory: XmlElement | null): SnapshotMemory | null {
  if (memory === null) return null;
  const file = attributeOf(memory, 'file');
  const mode = attributeOf(memory, 'snapshot') ?? (file === null ? 'internal' : 'external');
  if (mode !== 'no' && mode !== 'internal' && mode !== 'external') throw xmlError(`unknown memory snapshot setting '${mode}'`);
  if (file !== null && mode !== 'external') throw xmlError(`memory filename '${file}' requires external snapshot`);
  if (file === null && mode === 'external') throw xmlError('external memory snapshots require a filename');
  if (file !== null && !file.startsWith('/')) throw xmlError(`memory snapshot file path (${file}) must be absolute`);
  return { mode, file };
}

function readDisk(disk: XmlElement): SnapshotDiskRequest {
  const name = attributeOf(disk, 'name');
  if (name === null || name === '') throw xmlError('missing name from disk snapshot element');
  const source = sourceOf(disk, attributeOf(disk, 'type') ?? 'file');
  const format = formatOf(attributeOf(childNamed(disk, 'driver'), 'type'), `disk '${name}'`);
  const mirror = readMirror(childNamed(disk, 'mirror'), name);
  const given = attributeOf(disk, 'snapshot');
  const mode = modes.find((one) => one === given) ?? null;
  if (given !== null && given !== 'default' && mode === null) throw xmlError(`unknown disk snapshot setting '${given}'`);
  const implied = source !== null || format !== null || mirror !== null ? 'external' : null;
  return { name, mode: mode ?? implied, source, format, mirror };
}

function sourceOf(parent: XmlElement, type: string): StorageSource | null {
  const known = types.find((one) => one === type);
  if (known === undefined) throw xmlError(`unsupported disk snapshot type '${type}'`);
  const element_ = childNamed(parent, 'source');
  const path = attributeOf(element_, known === 'block' ? 'dev' : 'file');
  if (known !== 'network' && path !== null && !path.startsWith('/')) {
    throw xmlError(`disk snapshot image path '${path}' must be absolute`);
  }
  return readSource(element_, known, 'disk snapshot');
}

function formatOf(text: string | null, what: string): Format | null {
  if (text === null) return null;
  if (text === 'qcow2' || text === 'raw') return text;
  throw configError(`unknown disk snapshot driver '${text}' for ${what}`);
}

/** `<mirror file= format=>`, or `<mirror type=><format type=/><source …/></mirror>` as the domain XML has it. */
function readMirror(mirror: XmlElement | null, disk: string): MirrorRequest | null {
  if (mirror === null) return null;
  const what = `mirror of disk '${disk}'`;
  const path = attributeOf(mirror, 'file');
  const nested = childNamed(mirror, 'source');
  const format = formatOf(attributeOf(childNamed(mirror, 'format'), 'type') ?? attributeOf(mirror, 'format'), what);
  if (nested !== null) {
    const source = sourceOf(mirror, attributeOf(mirror, 'type') ?? 'file');
    if (source === null) throw xmlError(`${what}: its <source> names nothing`);
    return { source, format };
  }
  if (path === null) throw xmlError(`${what}: give file='/path', or a <source> inside`);
  if (!path.startsWith('/')) throw xmlError(`disk snapshot image path '${path}' must be absolute`);
  return { source: { type: 'file', path }, format };
}

/** What libvirt's schema allows below `<domainsnapshot>`, with `<mirror>`; `null`: anything. */
const schema: Readonly<Record<string, readonly string[] | null>> = {
  domainsnapshot: ['name', 'description', 'state', 'parent', 'creationTime', 'memory', 'disks', 'active', 'domain', 'inactiveDomain', 'cookie'],
  disks: ['disk'],
  disk: ['driver', 'source', 'mirror', 'snapshotDeleteInProgress'],
  mirror: ['format', 'source', 'backingStore'],
  parent: ['name'],
  domain: null,
  inactiveDomain: null,
  cookie: null,
  source: null,
  driver: null,
  backingStore: null,
};

/** The VALIDATE flag. */
export function validateSnapshotRequest(xml: string): void {
  checkSchema(rootOf(xml));
}

function checkSchema(parent: XmlElement): void {
  const allowed = Object.hasOwn(schema, parent.name) ? schema[parent.name] : [];
  if (allowed === null) return;
  for (const child of elementsOf(parent)) {
    if (allowed?.includes(child.name) !== true) {
      throw new RequestError('XML_INVALID_SCHEMA', `<${child.name}> in <${parent.name}> (line ${child.position.line}) is not known`, { from: 'domainSnapshot' });
    }
    checkSchema(child);
  }
}

export function printSnapshot(snapshot: Snapshot): string {
  const domain = (definition: Definition, name: string): XmlElement => definitionElement(definition, { id: null, inactive: true }, name);
  const root = element('domainsnapshot', {}, [
    textElement('name', snapshot.name),
    textElement('description', snapshot.description),
    textElement('state', snapshot.state),
    snapshot.parent === null ? null : element('parent', {}, [textElement('name', snapshot.parent)]),
    textElement('creationTime', snapshot.creationTimeSeconds),
    element('memory', { snapshot: snapshot.memory.mode, file: snapshot.memory.file }),
    snapshot.disks.length === 0 ? null : element('disks', {}, snapshot.disks.map(printDisk)),
    domain(snapshot.domain, 'domain'),
    snapshot.inactiveDomain === null ? null : domain(snapshot.inactiveDomain, 'inactiveDomain'),
  ]);
  return printXml(root, { foreignBelow: 'metadata' });
}

function printDisk({ name, mode, image, mirror }: SnapshotDisk): XmlElement {
  return element('disk', { name, snapshot: mode, type: image?.source.type }, [
    image === null ? null : element('driver', { type: image.format }),
    image === null ? null : printSource(image.source),
    mirror === null ? null : printMirror(mirror),
  ]);
}

function printMirror({ source, format }: Image): XmlElement {
  const compatible = source.type === 'file' ? { file: source.path, format } : {};
  return element('mirror', { type: source.type, ...compatible }, [element('format', { type: format }), printSource(source)]);
}

const states: readonly SnapshotState[] = ['disk-snapshot', 'running', 'paused', 'shutdown', 'shutoff', 'crashed', 'blocked'];

/** A snapshot object's own XML, given back to be kept: name, time and state must be there. */
export function parseSnapshotRedefinition(xml: string, context: ParseContext): Snapshot {
  const root = rootOf(xml);
  const request = readRequest(root);
  if (request.name === null) throw xmlError('a redefined snapshot must have a name');
  const time = Number(childText(root, 'creationTime') ?? Number.NaN);
  if (!Number.isInteger(time)) throw xmlError('missing creationTime from existing snapshot');
  const state = states.find((one) => one === childText(root, 'state'));
  if (state === undefined) throw xmlError('missing or invalid state from existing snapshot');
  const domain = childNamed(root, 'domain');
  if (domain === null) throw xmlError('missing domain in snapshot');
  const inactive = childNamed(root, 'inactiveDomain');
  const parent = childNamed(root, 'parent');
  const parentName = parent === null ? null : childNamed(parent, 'name');
  return {
    name: request.name,
    description: request.description,
    state,
    parent: parentName === null ? null : textOf(parentName),
    creationTimeSeconds: time,
    memory: request.memory ?? { mode: 'no', file: null },
    disks: request.disks.map(keptDisk),
    domain: readDefinition(domain, context),
    inactiveDomain: inactive === null ? null : readDefinition({ ...inactive, name: 'domain' }, context),
  };
}

const keptDisk = ({ name, mode, source, format, mirror }: SnapshotDiskRequest): SnapshotDisk => ({
  name,
  mode: mode ?? 'no',
  image: source === null ? null : { source, format: format ?? 'qcow2', index: null },
  mirror: mirror === null ? null : { source: mirror.source, format: mirror.format ?? 'qcow2', index: null },
});
