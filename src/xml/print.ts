// Tree to text, as libvirt lays it out: two spaces a level, single quotes, `<a/>` for an empty element. What others
// wrote (`<metadata>`) is laid out as libxml2 does, because libvirt lets libxml2 print it.

import type { XmlElement, XmlNode } from './tree.js';

interface Style {
  readonly quote: "'" | '"';
  readonly text: (text: string) => string;
  readonly attribute: (value: string) => string;
}

export interface PrintOptions {
  /** Elements below one of this name are printed in the style of libxml2. */
  readonly foreignBelow?: string;
  /** Levels that the root is already deep. */
  readonly depth?: number;
}

const escapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
  '\t': '&#9;',
  '\n': '&#10;',
  '\r': '&#13;',
};
const escape = (pattern: RegExp) => (text: string) => text.replace(pattern, (c) => escapes[c] ?? c);

// A line break or a tab in an attribute would be read back as a space: unlike libvirt we do not lose it.
const libvirtStyle: Style = {
  quote: "'",
  text: escape(/[&<>"'\r]/g),
  attribute: escape(/[&<>"'\t\n\r]/g),
};
const libxmlStyle: Style = {
  quote: '"',
  text: escape(/[&<>\r]/g),
  attribute: escape(/[&<>"\t\n\r]/g),
};

/** The text of `root`, ended by a line break. */
export function printXml(root: XmlElement, options: PrintOptions = {}): string {
  return print(root, options.depth ?? 0, libvirtStyle, options.foreignBelow ?? null);
}

function print(node: XmlElement, depth: number, style: Style, foreignBelow: string | null): string {
  const indent = '  '.repeat(depth);
  const start = `<${node.name}${attributes(node, style)}`;
  if (node.children.length === 0) return `${indent}${start}/>\n`;
  if (node.children.some((child) => typeof child === 'string')) {
    const content = node.children.map((child) => inline(child, style)).join('');
    return `${indent}${start}>${content}</${node.name}>\n`;
  }
  const below = node.name === foreignBelow ? libxmlStyle : style;
  const inner = node.children.map((child) =>
    typeof child === 'string' ? below.text(child) : print(child, depth + 1, below, foreignBelow),
  );
  return `${indent}${start}>\n${inner.join('')}${indent}</${node.name}>\n`;
}

/** Beside text every space counts, so nothing is added. */
function inline(node: XmlNode, style: Style): string {
  if (typeof node === 'string') return style.text(node);
  const start = `<${node.name}${attributes(node, style)}`;
  if (node.children.length === 0) return `${start}/>`;
  return `${start}>${node.children.map((child) => inline(child, style)).join('')}</${node.name}>`;
}

function attributes(node: XmlElement, style: Style): string {
  return Object.entries(node.attributes)
    .map(([name, value]) => ` ${name}=${style.quote}${style.attribute(value)}${style.quote}`)
    .join('');
}
