// Preloaded into a ferryd under torture: node --import …/strike.js bin/ferryd …. Threads that it starts load this as
// well, and are left alone.

import { isMainThread } from 'node:worker_threads';

if (isMainThread) await import('./striker.js');
