// Every call of every operation struck by an error and by a crash of the daemon, and pairs of faults; see every-call.ts.

import { strikeAll } from './every-call.js';

await strikeAll(['an error', 'a crash of the daemon'], true, {
  tried: 6500,
  rolledBack: 1400,
  attention: 800,
});
