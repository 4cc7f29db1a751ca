// Inside a ferryd under torture (strike.ts loads it); nothing of it is in the product. Counts every transaction of the
// journal and every QMP command, names each, and at the one that the harness chose does what it was told. A kill happens
// inside this process, between two instructions of it: no race with the harness.
//
// A point is named by what it is, not by its number, so that polling does not shift the names behind it:
//   append doing 3 (pivot)      a transaction of the journal
//   qmp blockdev-mirror #2      a command that changes something, counted by its name
//   ask query-jobs @ <point>    a question, counted once between two changes: it changes nothing

import { readdirSync, readFileSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { SqliteJournal } from '../../src/journal/sqlite.js';
import type { Plan } from '../../src/plan/step.js';
import { CommandError } from '../../src/qmp/error.js';
import { Session } from '../../src/qmp/session.js';
import { present } from '../../src/std/assert.js';
import { strikeLog, strikeWaits, type Blow, type Moment, type Note, type Order } from './blow.js';
import { unsynced, watchFiles } from './unsynced.js';

const log = openSync(present(process.env[strikeLog], `${strikeLog} names the log`), 'a');

function note(line: Note): void {
  writeSync(log, `${JSON.stringify(line)}\n`);
}

class Points {
  private blow: Blow | null = null;
  private counting = false;
  /** The last change, and the last point. */
  private last = 'begin';
  private at = '';
  private number = 0;
  private struckName: string | null = null;
  private readonly seen = new Map<string, number>();

  arm(blow: Blow | null): void {
    this.blow = blow;
    this.counting = true;
    this.last = 'begin';
    this.number = 0;
    this.struckName = null;
    this.seen.clear();
  }

  disarm(): void {
    this.counting = false;
  }

  /** False: the harness was told that no blow falls any more, and believes it. */
  get armed(): boolean {
    return this.counting;
  }

  /** The blow that falls at this point, if it is the one. */
  transaction(name: string): Blow | null {
    return this.reach(this.count(name) === 1 ? name : `${name} #${this.seen.get(name)}`, false);
  }

  command(command: string): Blow | null {
    if (!isQuestion(command)) return this.reach(`qmp ${command} #${this.count(command)}`, false);
    return this.reach(`ask ${command} @ ${this.last}`, true);
  }

  private count(name: string): number {
    const times = (this.seen.get(name) ?? 0) + 1;
    this.seen.set(name, times);
    return times;
  }

  private reach(point: string, asks: boolean): Blow | null {
    if (!this.counting) return null;
    if (!asks) this.last = point;
    // Asked again before anything changed: the same point.
    if (asks && this.count(point) > 1) return this.lasting(point);
    note({ point, asks });
    this.at = point;
    this.number++;
    const { blow } = this;
    return blow?.point === point || blow?.point === this.number ? blow : this.lasting(point);
  }

  private lasting(point: string): Blow | null {
    const { blow } = this;
    if (blow?.lasting !== true || this.struckName === null) return null;
    return nameOf(point) === this.struckName ? blow : null;
  }

  /** From now on a lasting blow falls on every command of this name. The name of the point. */
  struck(): string {
    this.struckName ??= nameOf(this.at);
    return this.at;
  }
}

const nameOf = (point: string): string => point.split(' ').slice(0, 2).join(' ');

/** `human-monitor-command` is used for a flush, which is no question. */
const isQuestion = (command: string): boolean =>
  command.startsWith('query-') || command === 'qmp_capabilities';

const points = new Points();

function strike(blow: Blow): void {
  const { deed } = blow;
  const killed = deed === 'qemu' || deed === 'both' || deed === 'host' ? qemus() : [];
  note({ struck: blow, at: points.struck(), killed, unsynced: unsynced() });
  killAndWait(killed);
  if (deed === 'host') killAndWait(children());
  if (deed === 'daemon' || deed === 'both' || deed === 'host') process.kill(process.pid, 'SIGKILL');
}

/** The guests of this run directory, by their pid files. */
function qemus(): readonly number[] {
  const runDir = present(process.argv[process.argv.indexOf('--run-dir') + 1], 'it was given');
  const folder = join(runDir, 'qemu');
  const files = readdirSync(runDir).includes('qemu') ? readdirSync(folder) : [];
  return files
    .filter((name) => name.endsWith('.pid'))
    .map((name) => Number(readFileSync(join(folder, name), 'utf8').trim()))
    .filter((pid) => pid > 1 && commandOf(pid).includes(runDir));
}

/** What ferryd runs just now: cp, qemu-img. */
function children(): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => statOf(pid)?.parent === process.pid);
}

function killAndWait(pids: readonly number[]): void {
  for (const pid of pids) process.kill(pid, 'SIGKILL');
  // Not a moment may pass in this process meanwhile.
  while (pids.some((pid) => !['Z', 'X', undefined].includes(statOf(pid)?.state))) continue;
}

function statOf(pid: number): { readonly state: string; readonly parent: number } | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const [state = '', parent] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { state, parent: Number(parent) };
  } catch {
    return null; // gone
  }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return ''; // gone
  }
}

function fallsAt(blow: Blow | null, moment: Moment): void {
  if (blow?.moment === moment) strike(blow);
}

/** What the next transaction is about; the methods of a journal do it at once, before anything else can run. */
let about: string | null = null;
const plans = new Map<number, Plan>();

function named<A extends unknown[], R>(
  method: (this: SqliteJournal, ...args: A) => R,
  name: (...args: A) => string,
): (this: SqliteJournal, ...args: A) => R {
  return function (this: SqliteJournal, ...args: A): R {
    about = name(...args);
    try {
      return method.apply(this, args);
    } finally {
      about = null;
    }
  };
}

function watchJournal(): void {
  const journal = SqliteJournal.prototype;
  const { begin } = journal;
  journal.begin = named(
    async function (this: SqliteJournal, plan) {
      const operation = await begin.call(this, plan);
      plans.set(operation, plan);
      return operation;
    },
    (plan) => `begin ${plan.operation}`,
  );
  journal.append = named(journal.append, (operation, entry) => {
    if (!('step' in entry)) return `append ${entry.type}`;
    const kind = plans.get(operation)?.steps[entry.step]?.kind;
    return `append ${entry.type} ${entry.step}${kind === undefined ? '' : ` (${kind})`}`;
  });
  journal.commitAtOnce = named(journal.commitAtOnce, (plan) => `commit ${plan.operation}`);
  journal.record = named(
    journal.record,
    (_, changes) => `record ${changes.map(({ change }) => change).join(', ')}`,
  );
  journal.nextDomainId = named(journal.nextDomainId, () => 'next domain id');
  journal.putSetting = named(journal.putSetting, (key) => `setting ${key}`);

  // Every transaction passes here, whatever method made it: the first of an operation too.
  const attempt = journal['attempt'];
  journal['attempt'] = function <T>(this: SqliteJournal, body: () => T): T {
    const blow = points.transaction(about ?? 'transaction');
    fallsAt(blow, 'before');
    const value = attempt.call(this, body) as T; // `call` forgets what a generic method returns
    fallsAt(blow, 'after');
    return value;
  };
}

function watchMonitors(): void {
  const { call } = Session.prototype;
  Session.prototype.call = async function (this: Session, command, args, limits) {
    const blow = points.command(command);
    const wrong = blow?.deed === 'refuse' || blow?.deed === 'cancel';
    if (blow !== null && wrong) {
      strike(blow);
      if (blow.deed === 'refuse') throw refused(command, args);
      await call.call(this, 'job-cancel', args, limits);
      return {};
    }
    fallsAt(blow, 'before');
    const answer = await call.call(this, command, args, limits);
    if (blow?.moment !== 'after' || !points.armed) return answer;
    strike(blow);
    // The daemon still lives: it is QEMU that died, after the deed and before its answer was out.
    await this.closed;
    throw lost(command, args);
  };
}

type Arguments = Parameters<Session['call']>[1];

const refused = (command: string, args: Arguments): CommandError =>
  new CommandError(command, args, {
    qmpClass: 'GenericError',
    message: 'refused by the torture',
    reply: { class: 'GenericError', desc: 'refused by the torture' },
  });

const lost = (command: string, args: Arguments): CommandError =>
  new CommandError(command, args, {
    qmpClass: 'Gone',
    message: 'the connection ended (torture); its outcome is unknown',
  });

function obey(order: Order): void {
  if (order.do === 'arm') points.arm(order.blow);
  if (order.do === 'disarm') points.disarm();
  process.send?.({ obeyed: order.do });
}

const go = new Promise<void>((resolve) =>
  process.on('message', (order: Order) => {
    obey(order);
    if (order.do === 'go') resolve();
  }),
);
// The harness is gone: nobody will ever say `go`.
process.on('disconnect', () => process.exit(1));

watchJournal();
watchMonitors();
watchFiles();
if (process.env[strikeWaits] === '1') {
  // Everything is loaded when the word comes: a daemon is then back within a few hundredths of a second.
  await import('../../src/daemon/main.js');
  await go;
}
