// The guest agent's protocol, against agents that are well, late, in the middle of something, or rude.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import type { Server, Socket } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { test } from 'node:test';

import { QemuError } from '../std/errors.js';
import type { Agent } from './agent.js';
import { agentAt } from './agent.js';

interface Command {
  readonly execute: string;
  readonly arguments?: { readonly id: number };
}

/** An agent that answers each command with `answer`; what it was told comes back with it. */
async function agent(
  t: TestContext,
  answer: (command: Command, socket: Socket) => void,
): Promise<{ readonly agent: Agent; readonly told: readonly string[] }> {
  const directory = await mkdtemp(join(tmpdir(), 'ferry-agent-'));
  const path = join(directory, 'agent');
  const told: string[] = [];
  const open = new Set<Socket>();
  const server: Server = createServer((socket) => {
    open.add(socket);
    let rest = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      rest = Buffer.concat([rest, chunk]);
      for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
        // As qemu-ga: 0xFF ends what came before, whatever it was.
        const line = rest.subarray(rest.lastIndexOf(0xff, end) + 1, end).toString();
        rest = rest.subarray(end + 1);
        const command = JSON.parse(line) as Command; // our own client
        told.push(command.execute);
        answer(command, socket);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(async () => {
    for (const socket of open) socket.destroy();
    server.close();
    await rm(directory, { recursive: true });
  });
  return { agent: agentAt(path), told };
}

const synced = ({ execute, arguments: args }: Command, socket: Socket): boolean => {
  if (execute !== 'guest-sync-delimited') return false;
  socket.write(Buffer.concat([Buffer.from([0xff]), Buffer.from(`{"return": ${args?.id}}\n`)]));
  return true;
};

test('each command is asked after a sync', async (t) => {
  const { agent: well, told } = await agent(t, (command, socket) => {
    if (!synced(command, socket))
      socket.write(
        command.execute.endsWith('status') ? '{"return": "frozen"}\n' : '{"return": 2}\n',
      );
  });
  assert.equal(await well.isFrozen(), true);
  await well.freeze();
  await well.thaw();
  const sync = 'guest-sync-delimited';
  const commands = ['guest-fsfreeze-status', 'guest-fsfreeze-freeze', 'guest-fsfreeze-thaw'];
  assert.deepEqual(
    told,
    commands.flatMap((command) => [sync, command]),
  );
});

test('what an earlier connection left behind is no answer', async (t) => {
  const { agent: busy } = await agent(t, (command, socket) => {
    if (command.execute === 'guest-sync-delimited') {
      socket.write(
        'turn": "frozen"}\n{"return": "frozen"}\n{"error": {"class": "GenericError"}}\n',
      );
      socket.write('{"return": 1}\n{"ret');
      synced(command, socket);
    } else socket.write('{"return": "thawed"}\n');
  });
  assert.equal(await busy.isFrozen(), false);
});

const isOf =
  (qmpClass: string, text: RegExp) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof QemuError);
    assert.equal(error.qmpClass, qmpClass);
    assert.match(error.message, text);
    return true;
  };

test('a refusal is told in the words of the agent', async (t) => {
  const { agent: rude } = await agent(t, (command, socket) => {
    if (!synced(command, socket))
      socket.write('{"error": {"class": "GenericError", "desc": "frozen by another"}}\n');
  });
  await assert.rejects(rude.freeze(), isOf('AgentRefused', /fsfreeze-freeze: .*frozen by another/));
});

test('one that goes in the middle is no answer', async (t) => {
  const { agent: gone } = await agent(t, (command, socket) => {
    if (!synced(command, socket)) socket.destroy();
  });
  await assert.rejects(gone.freeze(), isOf('NoAnswer', /ended before the answer/));
});

test('one that is not there is told at once, one that says nothing within its time', async (t) => {
  await assert.rejects(agentAt('/nowhere/agent').isFrozen(), isOf('NoAnswer', /ENOENT/));
  const { agent: silent, told } = await agent(t, () => undefined);
  const begun = performance.now();
  await assert.rejects(silent.isFrozen(), isOf('NoAnswer', /no answer within 5000 ms/));
  assert.ok(performance.now() - begun < 8000);
  assert.deepEqual(told, ['guest-sync-delimited']);
});
