// Text to tree and back: what is refused is refused with its place, what is printed is read back the same.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { RequestError } from '../std/errors.js';
import { parseXml } from './parse.js';
import { printXml } from './print.js';
import { attributeOf, element, textOf } from './tree.js';

const refused: readonly (readonly [name: string, xml: string, message: RegExp])[] = [
  ['an empty document', '', /^\(xml\):1:\d+: /],
  ['an element without an end', '<a>\n  <b></a>', /^\(xml\):2:\d+: .*\n {2}<b><\/a>\n-+\^$/],
  ['two roots', '<a/><b/>', /^\(xml\):1:\d+: /],
  ['an attribute given twice', "<a x='1' x='2'/>", /^\(xml\):1:\d+: /],
  ['an attribute without quotes', '<a x=1/>', /^\(xml\):1:\d+: /],
  ['a document type', "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", /document type declaration/],
  ['an entity of its own', '<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>', /document type declaration/],
  ['an unknown entity', '<a>&e;</a>', /^\(xml\):1:\d+: /],
  ['NUL', '<a>\n\0</a>', /^\(xml\):2:1: U\+0000 is not a character of XML/],
  ['NUL as a reference', '<a>&#0;</a>', /^\(xml\):1:\d+: /],
  ['half a character', '<a>\ud800</a>', /U\+D800/],
  ['65 levels', '<a>'.repeat(65) + '</a>'.repeat(65), /nested deeper than 64/],
  ['100 001 elements', `<a>${'<b/>'.repeat(100_000)}</a>`, /more than 100000 elements/],
  ['33 MiB', `<a>${'x'.repeat(33 * 1024 * 1024)}</a>`, /longer than 33554432 bytes/],
];
for (const [name, xml, message] of refused) {
  test(`${name} is refused with its place`, () => {
    assert.throws(() => parseXml(xml), { name: 'RequestError', code: 'XML_DETAIL', message });
  });
}

test('64 levels are read', () => {
  assert.equal(parseXml('<a>'.repeat(64) + '</a>'.repeat(64)).name, 'a');
});

test('a property of all objects is not an attribute', () => {
  assert.equal(attributeOf(parseXml('<a/>'), 'constructor'), null);
  assert.equal(attributeOf(parseXml("<a __proto__='x'/>"), 'toString'), null);
});

test('white space between elements is layout, beside text it is text', () => {
  assert.equal(parseXml('<a>\n  <b/>\n</a>').children.length, 1);
  assert.equal(textOf(parseXml('<a> x\n</a>')), ' x\n');
});

const character = fc.constantFrom(...'a\'"<>&\t\n\r ,=é\u{1f600}');
const text = fc.array(character, { minLength: 1, maxLength: 12 }).map((all) => all.join(''));

test('any text and any attribute come back as they were', () => {
  fc.assert(
    fc.property(text, text, (attribute, content) => {
      const read = parseXml(printXml(element('a', { x: attribute }, [content])));
      assert.equal(attributeOf(read, 'x'), attribute);
      assert.equal(textOf(read), content);
    }),
  );
});

test('any bytes are read or refused', () => {
  const piece = fc.constantFrom(
    '<',
    '>',
    '/',
    'a',
    "='",
    "'",
    '&',
    ';',
    '<!--',
    '-->',
    '<![CDATA[',
    ']]>',
    '<?',
    '\0',
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      try {
        parseXml(pieces.join(''));
      } catch (error) {
        assert.ok(error instanceof RequestError, String(error));
      }
    }),
  );
});
