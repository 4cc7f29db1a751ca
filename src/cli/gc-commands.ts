// `ferry gc`: lists what we left anywhere, and removes it when told so.

import { resolve } from 'node:path';
import type { Command } from 'commander';

import type { GcReport } from '../host/gc/types.js';
import { RemoteError } from '../http/wire.js';
import { RequestError } from '../std/errors.js';
import { gcText, removedText } from './gc-text.js';
import type { Session } from './session.js';

/** Many images are looked at; a daemon that takes longer hangs. */
const DAEMON_TIMEOUT_MS = 120_000;

export function addGcCommand(program: Command, open: () => Session): void {
  program
    .command('gc')
    .argument('[path...]', 'with --yes: exactly these, also what goes only by its name')
    .description('list files that we left anywhere, with the proof that they can go')
    .option('--yes', 'remove what is proven ours, elsewhere as well, and used by nobody')
    .addHelpText(
      'after',
      `
A + is a proof that holds, a - what is against it. Without a proof nothing is removed, named or not.

Examples:
  ferry gc                                        what takes room?
  ferry gc --yes                                  remove what needs no naming
  ferry gc --yes /old/vm1.move-7 /old/vm1.qcow2   and the source of a move that is over`,
    )
    .action(async (paths: readonly string[], options: { readonly yes?: true }) => {
      const session = open();
      if (options.yes === true) {
        const named = paths.length === 0 ? null : paths.map((path) => resolve(path));
        const removed = await session.client.gcRemove(named);
        session.print(removed, () => removedText(removed));
        return;
      }
      if (paths.length > 0)
        throw new RequestError('INVALID_ARG', 'paths are for removing; say --yes to remove them');
      const report = await listed(session);
      session.print(report, () => gcText(report, session.paint));
    });
}

async function listed({ client, runDir, stateDir }: Session): Promise<GcReport> {
  try {
    return await client.gcList(AbortSignal.timeout(DAEMON_TIMEOUT_MS));
  } catch (error) {
    if (error instanceof RemoteError) throw error;
    // Half of the daemon: no other command loads it.
    const { gcWithoutDaemon } = await import('../host/gc/gc.js');
    const nowSeconds = Math.floor(Date.now() / 1000);
    return await gcWithoutDaemon({ runDir, stateDir, nowSeconds });
  }
}
