// XML as a tree: what the parser gives and the printer takes. No word of any vocabulary here.

/** Where an element starts, both counted from 1. */
export interface XmlPosition {
  readonly line: number;
  readonly column: number;
}

export type XmlNode = XmlElement | string;

/** An element with its prefix kept in the name. White space between elements is not part of the tree. */
export interface XmlElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly XmlNode[];
  readonly position: XmlPosition;
}

const nowhere: XmlPosition = { line: 0, column: 0 };

/** An attribute or a child that may not be there: null and undefined are left out by `element`. */
export type Maybe<T> = T | null | undefined;

/** Makes an element for printing; attributes keep their order, absent ones and absent children are dropped. */
export function element(
  name: string,
  attributes: Readonly<Record<string, Maybe<string | number>>> = {},
  children: readonly Maybe<XmlNode>[] = [],
): XmlElement {
  const kept: [string, string][] = [];
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) kept.push([key, String(value)]);
  }
  const there = children.filter((child) => child !== null && child !== undefined);
  return { name, attributes: Object.fromEntries(kept), children: there, position: nowhere };
}

/** An element that holds only text; null when there is no text to hold. */
export function textElement(name: string, text: Maybe<string | number>): XmlElement | null {
  return text === null || text === undefined ? null : element(name, {}, [String(text)]);
}

export const elementsOf = (parent: XmlElement): readonly XmlElement[] =>
  parent.children.filter((child) => typeof child !== 'string');

export const childrenNamed = (parent: XmlElement, name: string): readonly XmlElement[] =>
  elementsOf(parent).filter((child) => child.name === name);

export const childNamed = (parent: XmlElement, name: string): XmlElement | null =>
  elementsOf(parent).find((child) => child.name === name) ?? null;

/** The text directly inside, as written. */
export const textOf = (parent: XmlElement): string =>
  parent.children.filter((child) => typeof child === 'string').join('');

export function attributeOf(parent: XmlElement | null, name: string): string | null {
  if (parent === null || !Object.hasOwn(parent.attributes, name)) return null;
  return parent.attributes[name] ?? null;
}
