// Text to tree. Strict and bounded: no DTD, no entities but the five of XML, and nothing is fetched. What is refused
// is refused with the place, in the shape of libvirt's own messages: `(domain_definition):3:16: …`, the line, a caret.

import { SaxesParser } from 'saxes';

import { RequestError } from '../std/errors.js';
import type { XmlElement, XmlNode, XmlPosition } from './tree.js';

const maxBytes = 32 * 1024 * 1024;
const maxDepth = 64;
const maxElements = 100_000;

/** Characters that XML 1.0 does not have, lone surrogates among them. */
const foreignCharacter = /[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/u;

/** An element whose end was not read yet. */
interface OpenElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: XmlNode[];
  readonly position: XmlPosition;
}

/**
 * Parses a document; `what` names it in messages, as libvirt's `domain_definition`.
 *
 * @throws {RequestError} XML_DETAIL: not well-formed, or beyond a limit.
 */
export function parseXml(text: string, what = 'xml'): XmlElement {
  refuseForeign(text, what);
  const parser = new SaxesParser({ xmlns: false, forceXMLVersion: true, defaultXMLVersion: '1.0' });
  const open: OpenElement[] = [];
  let root: XmlElement | null = null;
  let count = 0;

  const fail = (message: string): never => {
    throw malformed(text, what, { line: parser.line, column: parser.columnIndex + 1 }, message);
  };
  const add = (child: XmlNode): void => void open.at(-1)?.children.push(child);

  parser.on('error', (error) => fail(saxesMessage(error)));
  parser.on('doctype', () => fail('a document type declaration is not allowed'));
  parser.on('opentag', (tag) => {
    if (++count > maxElements) fail(`more than ${maxElements} elements`);
    if (open.length >= maxDepth) fail(`elements nested deeper than ${maxDepth}`);
    const position = { line: parser.line, column: parser.columnIndex };
    open.push({ name: tag.name, attributes: { ...tag.attributes }, children: [], position });
  });
  parser.on('closetag', () => {
    const done = open.pop();
    // An end without a start is an error of the parser, which does not come back.
    if (done === undefined) return;
    const closed: XmlElement = { ...done, children: significant(done.children) };
    if (open.length === 0) root = closed;
    else add(closed);
  });
  parser.on('text', add);
  parser.on('cdata', add);
  parser.write(text).close();
  return root ?? fail('no root element');
}

function refuseForeign(text: string, what: string): void {
  if (text.length > maxBytes || Buffer.byteLength(text) > maxBytes) {
    throw new RequestError('XML_DETAIL', `(${what}): longer than ${maxBytes} bytes`, {
      from: 'xml',
    });
  }
  const at = text.search(foreignCharacter);
  if (at < 0) return;
  const before = text.slice(0, at).split('\n');
  const position = { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
  const code = (text.charCodeAt(at) ?? 0).toString(16).toUpperCase().padStart(4, '0');
  throw malformed(text, what, position, `U+${code} is not a character of XML`);
}

/** White space between elements is layout; beside text it is text. */
function significant(children: readonly XmlNode[]): readonly XmlNode[] {
  if (children.every((child) => typeof child === 'string')) {
    return children.length === 0 ? children : [children.join('')];
  }
  return children.filter((child) => typeof child !== 'string' || child.trim() !== '');
}

/** saxes puts `file:line:column: ` in front; the place is told in our own way. */
const saxesMessage = (error: Error): string =>
  error.message.replace(/^(?:[^:]*:)?\d+:\d+: /, '').replace(/\.$/, '');

function malformed(
  text: string,
  what: string,
  position: XmlPosition,
  message: string,
): RequestError {
  const { line, column } = position;
  // A long line is shown around the place only.
  const from = Math.max(0, column - 60);
  const shown = (text.split('\n')[line - 1] ?? '').replaceAll('\r', '').slice(from, column + 20);
  const caret = `${'-'.repeat(Math.max(0, column - 1 - from))}^`;
  return new RequestError(
    'XML_DETAIL',
    `(${what}):${line}:${column}: ${message}\n${shown}\n${caret}`,
    {
      from: 'xml',
    },
  );
}
