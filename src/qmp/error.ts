// Errors of commands: what was asked, what came back, and whether it may have happened all the same.

import { isObject, stringifyJson, type JsonObject, type JsonValue } from '../qapi/json.js';
import { QemuError } from '../std/errors.js';

/** What QEMU said in place of a result. */
export interface QmpErrorReply {
  readonly class: string;
  readonly desc: string;
}

/**
 * A command that failed. `qmpClass` says how:
 *
 *   GenericError, CommandNotFound, DeviceNotActive, …   QEMU refused it: it had no effect
 *   Gone       the connection ended before the answer: the outcome is unknown
 *   NoAnswer   no answer in time, or the caller gave up: the outcome is unknown, it may still happen
 *
 * After an unknown outcome ask QEMU for its state before repeating anything.
 */
export class CommandError extends QemuError {
  readonly command: string;
  /** As given, but for the data of a secret: errors are logged. */
  readonly arguments: JsonValue;
  /** null when nothing came back. */
  readonly reply: QmpErrorReply | null;

  constructor(
    command: string,
    args: JsonValue,
    failure: { qmpClass: string; message: string; reply?: QmpErrorReply; cause?: unknown },
  ) {
    super(`qmp ${command}: ${failure.message}`, {
      qmpClass: failure.qmpClass,
      cause: failure.cause,
    });
    this.command = command;
    this.arguments = withoutSecrets(args);
    this.reply = failure.reply ?? null;
  }
}

const withoutSecrets = (args: JsonValue): JsonValue =>
  isObject(args) && args['qom-type'] === 'secret' && 'data' in args
    ? { ...args, data: '(hidden)' }
    : args;

/** QEMU's refusal, as it came in `error`. */
export function refusal(command: string, args: JsonValue, error: JsonObject): CommandError {
  const reply = {
    class: typeof error['class'] === 'string' ? error['class'] : 'GenericError',
    desc: typeof error['desc'] === 'string' ? error['desc'] : stringifyJson(error),
  };
  return new CommandError(command, args, { qmpClass: reply.class, message: reply.desc, reply });
}

/** The connection or its process is no more; with `command` when one was under way. */
export const gone = (what: string, cause?: unknown): QemuError =>
  new QemuError(what, { qmpClass: 'Gone', cause });
