// Moves a disk of a running guest, and prints how far it is.
//
// usage: node dist/examples/move.js DOMAIN DISK DIR

import { connect } from 'blockferry';

const [domain = '', disk = '', to = ''] = process.argv.slice(2);

const ferry = await connect();
const move = await ferry.move(domain, { disks: disk, to });
for await (const { progress, status } of ferry.watch(move))
  console.log(progress === null ? status : `${progress.phase}: ${progress.percent} %`);
const { pauses } = await ferry.operation(move);
for (const { what, ms } of pauses) console.log(`the guest stood still for ${ms} ms: ${what}`);
