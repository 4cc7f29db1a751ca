// Empties a storage: moves every disk of every running domain that has an image below one folder to another, one after
// the other. Run it again after anything went wrong, this program's death too: what has moved is not looked at again, and a
// move that is under way is waited for.
//
// usage: node dist/examples/evacuate.js FROM_DIR TO_DIR

import { resolve, sep } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { BlockferryError, Busy, connect } from 'blockferry';
import type { DiskView, DomainSummary } from 'blockferry';

const [from = '', to = ''] = process.argv.slice(2).map((folder) => resolve(folder));
const isBelow = ({ chain, readonly }: DiskView): boolean =>
  !readonly && chain.some(({ path }) => path.startsWith(from + sep));

const ferry = await connect();
let left = 0;
for (const domain of await ferry.domains()) {
  if (domain.id === null) continue;
  try {
    await evacuate(domain);
  } catch (error) {
    // One domain that cannot be moved now does not keep the others from it.
    if (!(error instanceof BlockferryError)) throw error;
    left++;
    console.error(`${domain.name}: ${error.message}`);
  }
}
if (left > 0) process.exitCode = 1;

async function evacuate({ name }: DomainSummary): Promise<void> {
  for (const operation of await ferry.operations({ domain: name }))
    if (operation.kind === 'move') await ferry.wait(operation);
  for (const { target } of (await ferry.chain(name)).filter(isBelow)) {
    console.log(`${name}: ${target} goes to ${to}`);
    await ferry.wait(await whenFree(() => ferry.move(name, { disks: target, to })));
    console.log(`${name}: ${target} is there`);
  }
}

/** Somebody else may hold the domain for a moment: `Busy` says that nothing was done. */
async function whenFree<T>(begin: () => Promise<T>, tries = 10): Promise<T> {
  try {
    return await begin();
  } catch (error) {
    if (!(error instanceof Busy) || tries === 1) throw error;
    await delay(1000);
    return await whenFree(begin, tries - 1);
  }
}
