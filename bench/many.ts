// 50 pivots in a row: `ferry move` back and forth between two storages (each has two pivots), the guest writing all the
// time, the verifier at the end. Then what the daemon takes: time to its first answer, memory with ten domains, calls.

import { readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { withLab, type Lab } from '../test/lib/lab.js';
import { verifyChains } from '../test/lib/verify.js';

const MOVES = Number(process.env['MOVES'] ?? 25);
const say = (text: string): void => void process.stdout.write(`${text}\n`);

await withLab('many', async (lab) => {
  await lab.ferryd();
  const guest = await lab.guest({ name: 'vm1' });
  await lab.mustVirsh('create', guest.xmlFile);
  await guest.serial.waitAcked(100);
  const folders = [lab.a, lab.b] as const;
  for (let move = 0; move < MOVES; move++) {
    const to = folders[(move + 1) % 2] ?? lab.b;
    // What the last move left there is stale, and its names are wanted again.
    if (move > 0) for (const file of await readdir(to)) await rm(join(to, file));
    await lab.mustFerry('move', 'vm1', 'vda', '--to', to);
  }
  const live = (await lab.mustVirsh('domblklist', 'vm1')).match(/\/\S+/g) ?? [];
  await lab.mustVirsh('destroy', 'vm1');
  const acked = guest.serial.acked();
  const { ok, lostAcked } = await verifyChains(live, { acked, state: 'crashed' });
  say(
    `${MOVES * 2} pivots in a row: ${acked} writes acknowledged, ${lostAcked} lost${ok ? '' : ' (FAILED)'}`,
  );
});

await withLab('daemon', async (lab) => {
  await (await lab.ferryd()).stop();
  const start = performance.now();
  const daemon = await lab.ferryd();
  await lab.mustVirsh('version');
  say(`daemon start to a first answered virsh call: ${Math.round(performance.now() - start)} ms`);
  await defineTen(lab);
  const status = await readFile(`/proc/${daemon.pid}/status`, 'utf8');
  say(
    `resident memory with ten domains: ${Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024)} MiB`,
  );
  const { stdout } = await lab.python(`
import time
dom = conn.lookupByName('vm0')
for name, call in (('info', dom.info), ('XMLDesc', dom.XMLDesc)):
    for _ in range(500): call()
    start = time.time()
    for _ in range(5000): call()
    print('%s: %d calls/s' % (name, 5000 / (time.time() - start)))
`);
  say(stdout.trim());
});

async function defineTen(lab: Lab): Promise<void> {
  const { xml, xmlFile } = await lab.guest({ name: 'vm', disks: 1 });
  for (let i = 0; i < 10; i++) {
    await writeFile(xmlFile, xml.replace('<name>vm<', `<name>vm${i}<`));
    await lab.mustVirsh('define', xmlFile);
  }
}
