// The parser of event streams: whatever way the bytes are cut.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseSse } from './sse.js';
import { fromJson, toJson } from './wire.js';

async function parsed(chunks: readonly string[]): Promise<readonly string[]> {
  async function* source(): AsyncGenerator<string> {
    yield* chunks;
  }
  const messages: string[] = [];
  for await (const { id, event, data } of parseSse(source())) {
    messages.push(`${id} ${event} ${data}`);
  }
  return messages;
}

const stream = ': hello\n\nid: 1\ndata: a\n\n:\n\nid: 2\nevent: end\ndata: b: c\ndata: d\n\n';

test('messages are the same wherever the stream is cut', async () => {
  for (let cut = 0; cut <= stream.length; cut++) {
    const messages = await parsed([stream.slice(0, cut), stream.slice(cut)]);
    assert.deepEqual(messages, ['1 message a', '2 end b: c\nd'], `cut at ${cut}`);
  }
});

test('a message that was not sent to its end is none', async () => {
  assert.deepEqual(await parsed(['data: a\n\ndata: b\n']), ['null message a']);
});

test('only fields of bytes become bigints', () => {
  const value = {
    sizeBytes: 2n ** 63n,
    bandwidthBytesPerSecond: 0n,
    name: '123',
    list: [{ totalBytes: 5n }],
  };
  const text = toJson(value);
  assert.equal(
    text,
    '{"sizeBytes":"9223372036854775808","bandwidthBytesPerSecond":"0","name":"123","list":[{"totalBytes":"5"}]}',
  );
  assert.deepEqual(fromJson(text), value);
});
