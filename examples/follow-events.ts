// Prints what happens to a domain until it stops. Nothing is missed: not while this program starts, nor when ferryd is
// restarted meanwhile.
//
// usage: node dist/examples/follow-events.js DOMAIN

import { connect } from 'blockferry';

const [name = ''] = process.argv.slice(2);

const ferry = await connect();
const after = (await ferry.pastEvents()).at(-1)?.seq ?? 0;
const { uuid, id } = await ferry.domain(name);
if (id === null) throw new Error(`${name} does not run`);

for await (const { time, domain, event } of ferry.events({ after })) {
  if (domain !== uuid) continue;
  const { type, ...details } = event;
  console.log(time, type, JSON.stringify(details));
  if (type === 'lifecycle' && event['event'] === 'stopped') break;
}
