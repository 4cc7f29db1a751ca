// Bytes that no honest client sends, and honest ones in unusual portions.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { RequestError } from '../std/errors.js';
import { callHeader } from '../../test/rpc/client.js';
import { connected, opened } from '../../test/rpc/connected.js';
import { encodePacket, FrameReader, messageStatus, type Header } from './packet.js';
import { nothing } from './wire.js';

const packet = (header: Header, body = Buffer.alloc(0)): Buffer => {
  const bytes = Buffer.concat([encodePacket(header, nothing, {}), body]);
  bytes.writeUInt32BE(bytes.length, 0);
  return bytes;
};
const withLength = (length: number): Buffer => {
  const bytes = packet(callHeader(66, 0));
  bytes.writeUInt32BE(length, 0);
  return bytes;
};

for (const [name, length] of [
  ['no length', 0],
  ['a length below the header', 27],
  ['a length above the limit', 33_554_437],
  ['the largest length there is', 0xffff_ffff],
] as const) {
  test(`${name} ends the connection`, async () => {
    const { client, connection } = connected();
    client.raw(withLength(length));
    await connection.closed;
    assert.equal(await client.next(), null);
  });
}

test('a client that leaves in the middle of a packet is forgotten', async () => {
  const { client, connection } = connected();
  client.raw(packet(callHeader(66, 0)).subarray(0, 20));
  client.hangUp();
  await connection.closed;
});

test('a promise of 32 MB costs nothing until it is kept', () => {
  const frames = new FrameReader();
  frames.push(withLength(33_554_436));
  assert.equal(frames.next(), null);
});

test('packets come out as they went in, whatever the portions', () => {
  const packets = [0, 1, 2, 3].map((serial) =>
    packet(callHeader(66, serial), Buffer.alloc(serial * 4)),
  );
  const all = Buffer.concat(packets);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (sizes) => {
      const frames = new FrameReader();
      const seen: Buffer[] = [];
      for (let at = 0, turn = 0; at < all.length; turn++) {
        const size = sizes[turn % sizes.length] ?? 1;
        frames.push(all.subarray(at, at + size));
        at += size;
        for (let frame = frames.next(); frame !== null; frame = frames.next()) {
          seen.push(Buffer.from(frame));
        }
      }
      assert.deepEqual(seen, packets);
    }),
  );
});

test('any bytes are packets, a wait for more, or a RequestError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const frames = new FrameReader();
      frames.push(Buffer.from(bytes));
      try {
        while (frames.next() !== null);
      } catch (error) {
        assert.ok(error instanceof RequestError);
      }
    }),
  );
});

test('one byte at a time is answered like any other call', async () => {
  const { client } = connected();
  for (const byte of packet(callHeader(66, 5))) client.raw(Buffer.from([byte]));
  const reply = await client.next();
  assert.deepEqual(reply?.body, { types: [0] });
  assert.equal(reply.header.serial, 5);
});

test('two calls in one chunk get two replies', async () => {
  const { client } = connected();
  client.raw(Buffer.concat([packet(callHeader(66, 5)), packet(callHeader(66, 6))]));
  assert.equal((await client.next())?.header.serial, 5);
  assert.equal((await client.next())?.header.serial, 6);
});

test('a serial used twice is answered twice', async () => {
  const { client } = connected();
  client.raw(Buffer.concat([packet(callHeader(66, 5)), packet(callHeader(66, 5))]));
  assert.equal((await client.next())?.header.serial, 5);
  assert.equal((await client.next())?.header.serial, 5);
});

test('bytes behind the arguments are ignored: go-libvirt sends them to AUTH_LIST', async () => {
  const { client } = connected();
  client.raw(packet(callHeader(66, 1), Buffer.alloc(24, 7)));
  assert.deepEqual((await client.next())?.body, { types: [0] });
});

test("go-libvirt's presence word is understood", async () => {
  const { client } = connected();
  const presence = '01000000';
  const name = '0000000571656d753a000000'; // qemu:
  const body = Buffer.from(`${presence}${name}00000000`, 'hex');
  client.raw(packet(callHeader(1, 1), body));
  assert.equal((await client.next())?.header.status, messageStatus.ok);
});

const refused: readonly (readonly [string, Buffer, string])[] = [
  [
    'a program that does not exist',
    packet({ ...callHeader(66, 1), program: 0x20008099 }),
    'Cannot find program 536903833 version 1',
  ],
  [
    'a version that does not exist',
    packet({ ...callHeader(66, 1), version: 2 }),
    'Cannot find program 536903814 version 2',
  ],
  ['a reply', packet({ ...callHeader(66, 1), type: 1 }), 'Unexpected message type 1'],
  [
    'a call with descriptors',
    packet({ ...callHeader(66, 1), type: 4 }),
    'Unexpected message type 4',
  ],
  [
    'a call that failed already',
    packet({ ...callHeader(66, 1), status: 1 }),
    'Unexpected message status 1',
  ],
  ['a number that does not exist', packet(callHeader(9999, 1)), 'unknown procedure: 9999'],
  ['a negative number', packet(callHeader(-1, 1)), 'unknown procedure: -1'],
  [
    'arguments that end too early',
    packet(callHeader(23, 1), Buffer.from('00000003', 'hex')),
    'Unable to decode message payload: 3 bytes expected at 32, 0 are left',
  ],
];
for (const [name, bytes, message] of refused) {
  test(`${name} is refused with code 39, and the connection goes on`, async () => {
    const { client } = await opened();
    client.raw(bytes);
    const reply = await client.next();
    assert.deepEqual(reply?.body, {
      code: 39,
      domain: 7,
      message,
      level: 2,
      dom: null,
      str1: '%s',
      str2: message,
      str3: null,
      int1: -1,
      int2: -1,
      net: null,
    });
    assert.equal((await client.call(66)).header.status, messageStatus.ok);
  });
}

test('stream data for no stream is ignored', async () => {
  const { client } = await opened();
  client.raw(packet({ ...callHeader(211, 1), type: 3, status: 2 }, Buffer.from('data')));
  client.raw(packet({ ...callHeader(211, 1), type: 6 }));
  assert.deepEqual((await client.call(66)).body, { types: [0] });
});
