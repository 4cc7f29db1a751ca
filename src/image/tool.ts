// Tools of QEMU that answer soon.

import { execFile } from 'node:child_process';

import { QemuError } from '../std/errors.js';

/** Runs a tool of QEMU without a shell; its own words are in the error. */
export function runTool(tool: string, args: readonly string[], timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(tool, args, { timeout: timeoutMs, maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else
        reject(
          new QemuError(`${tool} ${args[0] ?? ''}: ${stderr.trim() || error.message}`, {
            cause: error,
          }),
        );
    });
  });
}
