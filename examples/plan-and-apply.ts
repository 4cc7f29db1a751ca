// Plans a move, shows what it would do and cost, and does it after a yes: with --yes, or from a person.
//
// usage: node dist/examples/plan-and-apply.js DOMAIN DISK DIR [--yes]

import { createInterface } from 'node:readline/promises';

import { NotReady, connect } from 'blockferry';

const [domain = '', disk = '', to = '', yes] = process.argv.slice(2);

const ferry = await connect();
const plan = await ferry.planMove(domain, { disks: disk, to });
for (const { target, before, after } of plan.disks)
  console.log(`${target}: ${before[0]?.path} goes to ${after[0]?.path}`);
console.log(`${plan.copyBytes} bytes, ${plan.destination.freeBytes} are free in ${to}`);
if (plan.seconds !== null)
  console.log(`about ${plan.seconds.least.toFixed(1)} to ${plan.seconds.most.toFixed(1)} s`);
for (const risk of plan.risks) console.log(`risk: ${risk}`);

if (yes === '--yes' || (await ask('Do it? ')) === 'yes') {
  try {
    const { id } = await ferry.wait(await ferry.apply(plan));
    console.log(`done: operation ${id}`);
  } catch (error) {
    // The world has changed while the person thought, or QEMU died: the text says which, and what to do.
    if (!(error instanceof NotReady)) throw error;
    console.error(error.message);
    for (const command of error.next) console.error(`next: ${command}`);
    process.exitCode = 1;
  }
}

async function ask(question: string): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question(question);
  terminal.close();
  return answer;
}
