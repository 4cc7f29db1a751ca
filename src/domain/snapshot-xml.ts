// `<domainsnapshot>`: what a client asks for, what is printed, and what is given back to be kept (REDEFINE). `<mirror>` is
// the element of the 2012 proposal, in both of its forms.

import type { Format, Image, StorageSource } from '../block/layer.js';
import { RequestError } from '../std/errors.js';
import { parseXml } from '../xml/parse.js';
import { printXml } from '../xml/print.js';
import type { XmlElement } from '../xml/tree.js';
import {
  attributeOf,
  childNamed,
  childrenNamed,
  element,
  elementsOf,
  textElement,
  textOf,
} from '../xml/tree.js';
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

const xmlError = (text: string): RequestError =>
  new RequestError('XML_ERROR', text, { from: 'domainSnapshot' });

const modes = ['no', 'internal', 'external', 'manual'] as const;
const types = ['file', 'block', 'network'] as const;

export function parseSnapshotRequest(xml: string): SnapshotRequest {
  return readRequest(rootOf(xml));
}

function rootOf(xml: string): XmlElement {
  const root = parseXml(xml, 'domain_snapshot');
  if (root.name !== 'domainsnapshot')
    throw xmlError(`unexpected root element <${root.name}>, expecting <domainsnapshot>`);
  return root;
}

function readRequest(root: XmlElement): SnapshotRequest {
  const disks = childNamed(root, 'disks');
  return {
    name: childText(root, 'name'),
    description: readDescription(childNamed(root, 'description')),
    memory: readMemory(childNamed(root, 'memory')),
    disks: disks === null ? [] : childrenNamed(disks, 'disk').map(readDisk),
  };
}

/** As it was written, line breaks and all. */
function readDescription(description: XmlElement | null): string | null {
  const text = description === null ? '' : textOf(description);
  return text === '' ? null : text;
}

function readMemory(memory: XmlElement | null): SnapshotMemory | null {
  if (memory === null) return null;
  const file = attributeOf(memory, 'file');
  const mode = attributeOf(memory, 'snapshot') ?? (file === null ? 'internal' : 'external');
  if (mode !== 'no' && mode !== 'internal' && mode !== 'external')
    throw xmlError(`unknown memory snapshot setting '${mode}'`);
  if (file !== null && mode !== 'external')
    throw xmlError(`memory filename '${file}' requires external snapshot`);
  if (file === null && mode === 'external')
    throw xmlError('external memory snapshots require a filename');
  if (file !== null && !file.startsWith('/'))
    throw xmlError(`memory snapshot file path (${file}) must be absolute`);
  return { mode, file };
}

function readDisk(disk: XmlElement): SnapshotDiskRequest {
  const name = attributeOf(disk, 'name');
  if (name === null || name === '') throw xmlError('missing name from disk snapshot element');
  const source = sourceOf(disk, attributeOf(disk, 'type') ?? 'file');
  const format = formatOf(attributeOf(childNamed(disk, 'driver'), 'type'), `disk '${name}'`);
  const mirrors = childrenNamed(disk, 'mirror');
  if (mirrors.length > 1)
    throw configError(`more than one <mirror> of disk '${name}' is not supported; give one`);
  const mirror = readMirror(mirrors[0] ?? null, name);
  const given = attributeOf(disk, 'snapshot');
  const mode = modes.find((one) => one === given) ?? null;
  if (given !== null && given !== 'default' && mode === null)
    throw xmlError(`unknown disk snapshot setting '${given}'`);
  const implied = source !== null || format !== null || mirror !== null ? 'external' : null;
  return { name, mode: mode ?? implied, source, format, mirror };
}

function sourceOf(parent: XmlElement, type: string): StorageSource | null {
  const known = types.find((one) => one === type);
  if (known === undefined) throw xmlError(`unsupported disk snapshot type '${type}'`);
  const source = childNamed(parent, 'source');
  const path = attributeOf(source, known === 'block' ? 'dev' : 'file');
  if (known !== 'network' && path !== null && !path.startsWith('/')) {
    throw xmlError(`disk snapshot image path '${path}' must be absolute`);
  }
  return readSource(source, known, 'disk snapshot');
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
  const format = formatOf(
    attributeOf(childNamed(mirror, 'format'), 'type') ?? attributeOf(mirror, 'format'),
    what,
  );
  if (nested !== null) {
    const source = sourceOf(mirror, attributeOf(mirror, 'type') ?? 'file');
    if (source === null) throw xmlError(`${what}: its <source> names nothing`);
    return { source, format };
  }
  if (path === null) throw xmlError(`${what}: give file='/path', or a <source> inside`);
  if (!path.startsWith('/')) throw xmlError(`disk snapshot image path '${path}' must be absolute`);
  return { source: { type: 'file', path }, format };
}

interface Rule {
  readonly attributes?: readonly string[];
  /** Null: checked elsewhere. */
  readonly children?: readonly string[] | null;
}

/** What libvirt's schema has below `<domainsnapshot>`, by the name of the element, and `<mirror>`. */
const schema: Readonly<Record<string, Rule>> = {
  domainsnapshot: {
    children: [
      'name',
      'description',
      'state',
      'parent',
      'creationTime',
      'memory',
      'disks',
      'active',
      'domain',
      'inactiveDomain',
      'cookie',
    ],
  },
  parent: { children: ['name'] },
  memory: { attributes: ['snapshot', 'file'] },
  disks: { children: ['disk'] },
  disk: {
    attributes: ['name', 'snapshot', 'type'],
    children: ['driver', 'source', 'mirror', 'snapshotDeleteInProgress'],
  },
  driver: { attributes: ['type'] },
  source: { attributes: ['file', 'dev', 'protocol', 'name', 'index'], children: ['host'] },
  host: { attributes: ['name', 'port', 'transport', 'socket'] },
  mirror: { attributes: ['type', 'file', 'format'], children: ['format', 'source'] },
  format: { attributes: ['type'] },
  domain: { children: null },
  inactiveDomain: { children: null },
  cookie: { children: null },
};

/** The VALIDATE flag: every word has to be known. @throws {RequestError} XML_INVALID_SCHEMA. */
export function validateSnapshotRequest(xml: string): void {
  checkSchema(rootOf(xml));
}

function checkSchema(parent: XmlElement): void {
  const { attributes = [], children = [] } =
    (Object.hasOwn(schema, parent.name) ? schema[parent.name] : null) ?? {};
  if (children === null) return;
  const where = `<${parent.name}> (line ${parent.position.line})`;
  for (const name of Object.keys(parent.attributes)) {
    if (!attributes.includes(name) && !name.startsWith('xmlns'))
      throw schemaError(`attribute '${name}' of ${where} is not known`);
  }
  for (const child of elementsOf(parent)) {
    if (!children.includes(child.name))
      throw schemaError(`element <${child.name}> in ${where} is not known`);
    checkSchema(child);
  }
}

const schemaError = (text: string): RequestError =>
  new RequestError('XML_INVALID_SCHEMA', text, { from: 'domainSnapshot' });

export function printSnapshot(snapshot: Snapshot): string {
  const domain = (definition: Definition, name: string): XmlElement =>
    definitionElement(definition, { id: null, inactive: true }, name);
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
  return element('mirror', { type: source.type, ...compatible }, [
    element('format', { type: format }),
    printSource(source),
  ]);
}

const states: readonly SnapshotState[] = [
  'disk-snapshot',
  'running',
  'paused',
  'shutdown',
  'shutoff',
  'crashed',
  'blocked',
];

/** A snapshot object's own XML, given back to be kept: name, time and state must be there. */
export function parseSnapshotRedefinition(xml: string, context: ParseContext): Snapshot {
  const root = rootOf(xml);
  const request = readRequest(root);
  if (request.name === null) throw xmlError('a redefined snapshot must have a name');
  const time = childText(root, 'creationTime') ?? '';
  if (!/^\d{1,15}$/.test(time)) throw xmlError('missing creationTime from existing snapshot');
  const text = childText(root, 'state');
  if (text === null) throw xmlError('missing state from existing snapshot');
  const state = states.find((one) => one === text);
  if (state === undefined) throw configError(`Invalid state '${text}' in domain snapshot XML`);
  const domain = childNamed(root, 'domain');
  if (domain === null) throw xmlError('missing domain in snapshot');
  const inactive = childNamed(root, 'inactiveDomain');
  const parent = childNamed(root, 'parent');
  return {
    name: request.name,
    description: request.description,
    state,
    parent: parent === null ? null : childText(parent, 'name'),
    creationTimeSeconds: Number(time),
    memory: request.memory ?? { mode: 'no', file: null },
    disks: request.disks.map(keptDisk),
    domain: readDefinition(domain, context),
    inactiveDomain: inactive === null ? null : readDefinition(inactive, context),
  };
}

const keptDisk = ({ name, mode, source, format, mirror }: SnapshotDiskRequest): SnapshotDisk => ({
  name,
  mode: mode ?? 'no',
  image: source === null ? null : { source, format: format ?? 'qcow2', index: null },
  mirror:
    mirror === null
      ? null
      : { source: mirror.source, format: mirror.format ?? 'qcow2', index: null },
});
