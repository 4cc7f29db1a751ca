// The fake's block graph: format nodes over protocol nodes, backing links, filters of jobs, and which device
// looks at which node. Refusals are worded as QEMU 7.2 words them.

import type { BlockdevOptions } from '../../src/qapi/blockdev.js';
import { present } from '../../src/std/assert.js';
import type { FakeStorage, Image } from './storage.js';

/** A refusal of QEMU's. */
export class Refusal extends Error {
  readonly qmpClass: string;

  constructor(desc: string, qmpClass = 'GenericError') {
    super(desc);
    this.qmpClass = qmpClass;
  }
}

export interface Node {
  readonly name: string;
  readonly driver: string;
  /** Protocol nodes only. */
  readonly image: Image | null;
  readonly filename: string | null;
  /** Format nodes: the protocol node below. Filters: none, their child is `backing`. */
  readonly file: Node | null;
  backing: Node | null;
  readOnly: boolean;
  /** null: the monitor's own; else the node that brought it. */
  readonly parent: string | null;
  /** Called on each write through a filter. */
  readonly onWrite: ((block: number, value: number) => void) | null;
  /** A filter that nobody named: queries look through it. */
  readonly isImplicit: boolean;
}

/** What job works on a node, and whether it blocks the node's other users or only holds it. */
export type JobUse = (
  node: Node,
) => { readonly type: string; readonly role: 'blocked' | 'held' } | null;

export class Graph {
  readonly nodes = new Map<string, Node>();
  /** Device (qdev) to the node that it looks at. */
  readonly roots = new Map<string, Node>();
  private readonly storage: FakeStorage;
  private readonly owner: string;
  private readonly jobUse: JobUse;
  private lastAuto = 100;

  constructor(storage: FakeStorage, owner: string, jobUse: JobUse) {
    this.storage = storage;
    this.owner = owner;
    this.jobUse = jobUse;
  }

  find(name: string): Node {
    const node = this.nodes.get(name);
    if (node === undefined)
      throw new Refusal(`Cannot find device='${name}' nor node-name='${name}'`);
    return node;
  }

  /** `blockdev-add`: all of it or nothing. */
  add(options: BlockdevOptions): Node {
    const before = new Set(this.nodes.keys());
    try {
      return this.open(options, null);
    } catch (error) {
      for (const [name, node] of this.nodes) if (!before.has(name)) this.drop(node);
      throw error;
    }
  }

  /** `blockdev-del`, with the children that the node brought. */
  delete(name: string): void {
    const node = this.nodes.get(name);
    if (node === undefined) throw new Refusal(`Failed to find node with node-name='${name}'`);
    if (node.parent !== null && node.onWrite === null)
      throw new Refusal(`Node ${name} is not owned by the monitor`);
    this.refuseBusy(node);
    if (this.isUsed(node)) throw new Refusal(`Node ${name} is in use`);
    this.drop(node);
  }

  /** Refuses a node that a job works on or that is somebody's backing. */
  refuseBusy(node: Node): void {
    this.refuseJob(node);
    const reason = this.backingUse(node);
    if (reason !== null) throw new Refusal(`Node '${node.name}' is busy: ${reason}`);
  }

  /** Refuses a node that a job works on. */
  refuseJob(node: Node): void {
    const use = this.jobUse(node);
    if (use?.role !== 'blocked') return;
    const reason = `block device is in use by block job: ${use.type}`;
    throw new Refusal(`Node '${node.name}' is busy: ${reason}`);
  }

  /** A node as the commands that want the top of a graph accept it: no node or job above it. */
  findRoot(name: string): Node {
    const node = this.find(name);
    const isBelow = this.parentsOf(node).length > 0 || this.jobUse(node) !== null;
    if (isBelow) throw new Refusal('Need a root block node');
    return node;
  }

  parentsOf(node: Node): readonly Node[] {
    return [...this.nodes.values()].filter((one) => one.backing === node || one.file === node);
  }

  isRoot(node: Node): boolean {
    return [...this.roots.values()].includes(node);
  }

  /** Whoever looked at `from` looks at `to`: devices, and nodes whose backing it was, except `to` itself. */
  replace(from: Node, to: Node): void {
    for (const [device, node] of this.roots) if (node === from) this.roots.set(device, to);
    for (const node of this.nodes.values())
      if (node.backing === from && node !== to) node.backing = to;
  }

  /** `blockdev-snapshot`, on a base that is not busy. */
  snapshot(base: Node, overlay: Node): void {
    if (this.isUsed(overlay)) throw new Refusal('The overlay is already in use');
    if (overlay.backing !== null) throw new Refusal('The overlay already has a backing image');
    if (sizeOf(overlay) < sizeOf(base))
      this.storage.rude(`snapshot: overlay ${overlay.name} is smaller than ${base.name} (law 6)`);
    this.replace(base, overlay);
    overlay.backing = base;
    this.setReadOnly(base, true);
  }

  setReadOnly(node: Node, readOnly: boolean): void {
    const before = node.readOnly;
    node.readOnly = readOnly;
    const refused = this.lock(node);
    if (refused === null) {
      // QEMU block.c, bdrv_reopen_prepare: what was written is flushed before nothing more can be.
      const image = imageOf(node);
      if (readOnly && !before && image !== null) this.storage.flush(image);
      return;
    }
    node.readOnly = before;
    throw new Refusal(refused);
  }

  insertFilter(given: string | undefined, below: Node, onWrite: Node['onWrite']): Node {
    const name = given ?? this.autoName();
    if (this.nodes.has(name)) throw new Refusal(`Duplicate nodes with node-name='${name}'`);
    const filter: Node = {
      name,
      driver: 'mirror_top',
      image: null,
      filename: null,
      file: null,
      backing: null,
      readOnly: below.readOnly,
      parent: '',
      onWrite,
      isImplicit: given === undefined,
    };
    this.replace(below, filter);
    filter.backing = below;
    this.nodes.set(name, filter);
    return filter;
  }

  removeFilter(filter: Node, put: Node): void {
    this.replace(filter, put);
    filter.backing = null;
    this.nodes.delete(filter.name);
  }

  autoName(): string {
    return `#block${++this.lastAuto}`;
  }

  read(node: Node, block: number): number {
    const image = imageOf(node);
    const own = image?.blocks.get(block);
    if (own !== undefined) return own;
    return node.backing === null ? 0 : this.read(node.backing, block);
  }

  write(node: Node, block: number, value: number): void {
    if (node.onWrite !== null) {
      this.write(present(node.backing, 'a filter has a child'), block, value);
      node.onWrite(block, value);
      return;
    }
    if (node.readOnly) throw new Error(`the fake writes to ${node.name}, which is read-only`);
    const below = node.backing;
    this.storage.put(imageIn(node), block, value, (other) =>
      below === null ? 0 : this.read(below, other),
    );
  }

  /** Flushes what a device's flush reaches: the layer under the filters, never a mirror's target. */
  flush(node: Node): void {
    if (node.onWrite !== null && node.backing !== null) this.flush(node.backing);
    const image = imageOf(node);
    if (image !== null) this.storage.flush(image);
  }

  private open(options: BlockdevOptions, parent: string | null): Node {
    const name = options['node-name'] ?? this.autoName();
    if (name.length > 31) throw new Refusal('Node name too long');
    const inner = 'filename' in options ? null : 'file' in options ? options.file : undefined;
    if (inner === undefined) throw new Refusal(`the fake has no driver '${options.driver}'`);
    // QEMU opens children first: of two names that are taken it complains of the child's.
    const file = inner === null ? null : this.reference(inner, name);
    if (this.nodes.has(name)) throw new Refusal(`Duplicate nodes with node-name='${name}'`);
    const filename = 'filename' in options ? options.filename : null;
    const image = filename === null ? null : this.imageAt(filename);
    const node: Node = {
      name,
      driver: options.driver,
      image,
      filename,
      file,
      backing: null,
      readOnly: options['read-only'] ?? false,
      parent,
      onWrite: null,
      isImplicit: false,
    };
    this.nodes.set(name, node);
    if (file !== null) this.attach(node, options);
    return node;
  }

  private attach(node: Node, options: BlockdevOptions): void {
    const image = imageIn(node);
    if (node.driver !== image.format && node.driver !== 'raw')
      throw new Refusal(`Image is not in ${node.driver} format`);
    if (node.driver === 'qcow2') node.backing = this.backingFor(node, options, image);
    const refused = this.lock(node);
    if (refused !== null) throw new Refusal(refused);
  }

  private backingFor(node: Node, options: BlockdevOptions, image: Image): Node | null {
    const given = 'backing' in options ? options.backing : undefined;
    if (given === null) return null;
    try {
      if (given !== undefined) return this.reference(given, node.name);
      if (image.backing === null) return null;
      const { path, format } = image.backing;
      const file = { driver: 'file', filename: path } as const;
      return this.open({ driver: format, 'read-only': true, file }, node.name);
    } catch (error) {
      if (error instanceof Refusal)
        throw new Refusal(`Could not open backing file: ${error.message}`);
      throw error;
    }
  }

  private reference(ref: BlockdevOptions | string, parent: string): Node {
    return typeof ref === 'string' ? this.find(ref) : this.open(ref, parent);
  }

  private imageAt(filename: string): Image {
    const image = this.storage.files.get(filename);
    if (image === undefined)
      throw new Refusal(`Could not open '${filename}': No such file or directory`);
    return image;
  }

  /** Takes the file lock that a format node needs. */
  private lock(node: Node): string | null {
    if (node.file === null) return null;
    return this.storage.open(
      imageIn(node),
      `${this.owner}:${node.name}`,
      node.readOnly ? 'read' : 'write',
    );
  }

  private drop(node: Node): void {
    this.nodes.delete(node.name);
    if (node.file !== null) imageIn(node).opens.delete(`${this.owner}:${node.name}`);
    const image = imageOf(node);
    if (image !== null && !node.readOnly && node.file !== null) this.storage.flush(image);
    for (const child of [node.file, node.backing])
      if (child !== null && child.parent === node.name && this.parentsOf(child).length === 0)
        this.drop(child);
  }

  private isUsed(node: Node): boolean {
    return (
      this.isRoot(node) ||
      this.parentsOf(node).length > 0 ||
      this.jobUse(node) !== null ||
      node.parent === ''
    );
  }

  private backingUse(node: Node): string | null {
    const over = this.parentsOf(node).findLast(
      (one) => one.backing === node && one.onWrite === null,
    );
    return over === undefined ? null : `node is used as backing hd of '${over.name}'`;
  }
}

/** The image that a format or protocol node reads and writes; null for filters. */
export const imageOf = (node: Node): Image | null => node.image ?? node.file?.image ?? null;

export const imageIn = (node: Node): Image =>
  present(imageOf(node), `${node.name} has no image of its own`);

export function sizeOf(node: Node): bigint {
  const image = imageOf(node);
  if (image !== null) return image.virtualSizeBytes;
  return node.backing === null ? 0n : sizeOf(node.backing);
}
