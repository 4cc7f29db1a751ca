// Every call of every operation struck by power cuts and by QEMU's death; see every-call.ts.

import { strikeAll } from './every-call.js';

// Errors make an operation wait for a person; after a death the world can be asked instead.
await strikeAll(
  ['a power cut', 'a power cut, and a storage that lied', 'the death of QEMU'],
  false,
  { tried: 6500, rolledBack: 1200, attention: 0 },
);
