// Traffic between virsh 9.0 and a real libvirtd 9.0, recorded: what we decode, we must encode to the same bytes.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

import type { Codec } from '../xdr/codec.js';
import { Writer } from '../xdr/writer.js';
import {
  decodePacket,
  encodePacket,
  HEADER_BYTES,
  messageStatus,
  messageTypes,
  programs,
  type Header,
} from './packet.js';
import type { Procedure } from './procedure.js';
import { procedureTables } from './procedures.js';
import { eventRows } from './registrations.js';
import { nothing, wireError } from './wire.js';

const captures = new URL('../../../test/fixtures/rpc-captures/', import.meta.url);

/** The kinds of packets that the recordings hold and we serve; fewer means that the test lost its material. */
const MIN_KINDS = 130;
const MIN_PACKETS = 1800;

interface Captured {
  readonly name: string;
  /** Missing where the packet was too long to be kept. */
  readonly hex?: string;
}

function capturedPackets(file: string): readonly Captured[] {
  const lines = readFileSync(new URL(file, captures), 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line): Captured => JSON.parse(line));
}

const tableOf = (program: number): ReadonlyMap<number, Procedure> =>
  program === programs.qemu ? procedureTables.qemu : procedureTables.remote;

/** How the body of such a packet is laid out; null when we do not serve it. */
function layoutOf({ program, procedure, type, status }: Header): Codec<unknown> | null {
  if (program === programs.keepalive) return nothing;
  if (type === messageTypes.stream) return null;
  if (type === messageTypes.event) {
    return eventRows.find((row) => row.procedure === procedure)?.body ?? null;
  }
  const row = tableOf(program).get(procedure);
  if (row === undefined) return null;
  if (status === messageStatus.error) return wireError;
  return type === messageTypes.call ? row.args : row.result;
}

const kinds = new Set<string>();
let packets = 0;

for (const file of readdirSync(captures)) {
  test(`${file} is read and written byte for byte`, () => {
    for (const { hex, name } of capturedPackets(file)) {
      if (hex === undefined) continue;
      const bytes = Buffer.from(hex, 'hex');
      const { header, body } = decodePacket(bytes);
      const layout = layoutOf(header);
      if (layout === null) continue;
      const value = layout.read(body);
      assert.equal(body.remaining, 0, `${name} leaves bytes`);
      assert.equal(encodePacket(header, layout, value).toString('hex'), hex, name);
      // Every field crosses a boundary of a buffer that has to grow.
      const writer = new Writer(1);
      layout.write(writer, value);
      assert.deepEqual(writer.finish(), bytes.subarray(HEADER_BYTES), name);
      kinds.add(`${name} ${header.type} ${header.status}`);
      packets++;
    }
  });
}

test('the recordings cover what we serve', (t) => {
  t.diagnostic(`${packets} packets of ${kinds.size} kinds`);
  assert.ok(kinds.size >= MIN_KINDS);
  assert.ok(packets >= MIN_PACKETS);
});
