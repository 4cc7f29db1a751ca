// Calls per second of libvirt-python, one connection: ferryd and a real libvirtd, each serving a paused domain of its own.
// libvirtd (Debian: libvirt-daemon, libvirt-daemon-driver-qemu) runs privately, on sockets of its own.
//
// On a busy machine a rate says little: it changes threefold within seconds. So one client holds both connections and asks
// them in turns of a tenth of a second or so, and what counts is the ratio of two turns that follow one another. Who is
// asked first changes with each pair. The median over all pairs is the result; quartiles and every ratio are printed too.

import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { withLab, type Lab } from '../test/lib/lab.js';
import { must } from '../test/lib/process.js';
import { LIBVIRTD, Libvirtd } from './lib/libvirtd.js';
import { quantile } from './lib/numbers.js';

const PAIRS = Number(process.env['PAIRS'] ?? 40);
const CALLS = Number(process.env['CALLS'] ?? 1000);
/** Calls before the first pair: V8 compiles what is hot, libvirtd fills its caches. */
const WARM_UP_CALLS = 5000;

const verbs = ['info', 'XMLDesc'] as const;
type Verb = (typeof verbs)[number];

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** Gives libvirtd a domain like ours, on an image of its own. */
async function startTheirs(lab: Lab, uri: string): Promise<void> {
  const image = await lab.createImage(join(lab.b, 'theirs'));
  const { xmlFile } = await lab.guest({ name: 'vm1', disks: [{ file: image }] });
  // Its QEMU runs as that other user.
  await must('/bin/chmod', ['-R', 'a+rwX', lab.b, lab.directory]);
  await must('/usr/bin/virsh', ['-c', uri, 'create', xmlFile, '--paused']);
}

/** Calls per second: one row a pair of turns, one column a daemon. */
async function rates(uris: readonly string[], verb: Verb): Promise<readonly number[][]> {
  const script = `
import json, libvirt, time
calls = [libvirt.open(uri).lookupByName('vm1').${verb} for uri in ${JSON.stringify(uris)}]
def rate(call, count):
    start = time.perf_counter()
    for _ in range(count): call()
    return count / (time.perf_counter() - start)
for call in calls: rate(call, ${WARM_UP_CALLS})
rows = []
for pair in range(${PAIRS}):
    row = {}
    order = list(range(len(calls)))
    for which in order if pair % 2 == 0 else reversed(order): row[which] = rate(calls[which], ${CALLS})
    rows.append([row[which] for which in order])
print(json.dumps(rows))
`;
  const stdout = await must('/usr/bin/python3', ['-'], { input: script, timeoutMs: 600_000 });
  return JSON.parse(stdout) as number[][]; // of the script above
}

function report(verb: Verb, rows: readonly number[][]): void {
  const column = (which: number): number[] => rows.map((row) => row[which] ?? Number.NaN);
  const ratios = rows.map(([ours = Number.NaN, theirs = Number.NaN]) => ours / theirs);
  const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(ratios, part).toFixed(2));
  const medians = [0, 1].map((which) => Math.round(quantile(column(which), 0.5)));
  say(
    `${verb}: ratio ${middle} (quartiles ${low} to ${high}, ${rows.length} pairs); ` +
      `ferryd ${medians[0]}, libvirtd ${medians[1]} calls/s`,
  );
  say(`  ${ratios.map((ratio) => ratio.toFixed(2)).join(' ')}`);
}

await withLab('rpc', async (lab) => {
  await lab.ferryd();
  const guest = await lab.guest({ name: 'vm1' });
  await lab.mustVirsh('create', guest.xmlFile, '--paused');
  if (!existsSync(LIBVIRTD)) {
    for (const verb of verbs) {
      const alone = (await rates([lab.uri], verb)).flat();
      say(`${verb}: ferryd ${Math.round(quantile(alone, 0.5))} calls/s; libvirtd is not installed`);
    }
    return;
  }
  await using real = await Libvirtd.start(lab);
  await startTheirs(lab, real.uri);
  for (const verb of verbs) report(verb, await rates([lab.uri, real.uri], verb));
});
