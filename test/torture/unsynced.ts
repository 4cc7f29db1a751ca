// What of the files of ferryd would not survive a power cut just now, as far as it can be known from inside ferryd: what
// it and the tools that it runs (cp, qemu-img) wrote, made, renamed and removed, and what it made durable since.
// Not known: what QEMU wrote, and what SQLite wrote (its own file is whole after each transaction: synchronous=FULL).

import * as childProcess from 'node:child_process';
import { copyFileSync, linkSync, mkdirSync, rmSync, statSync } from 'node:fs';
import * as promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { createRequire } from 'node:module';

import type { NameChange, Unsynced } from './blow.js';

/** Files that are being written, and what of each is durable: a copy of it; null: nothing, so a power cut may leave it empty. */
const data = new Map<string, string | null>();
/** Of these, the ones that somebody goes on writing after a sync, until they have their name. */
const growing = new Set<string>();
let names: readonly NameChange[] = [];
let keptCount = 0;

export const unsynced = (): Unsynced => ({
  data: [...data].map(([path, kept]) => ({ path, kept })),
  names,
});

/** Replaces what `node:fs/promises` and `node:child_process` give to everybody who imports them. */
export function watchFiles(): void {
  const require = createRequire(import.meta.url);
  // The objects behind the modules: what is set here is exported after `syncBuiltinESMExports`.
  const fs = require('node:fs/promises') as {
    -readonly [K in keyof typeof promises]: (typeof promises)[K];
  };
  const child = require('node:child_process') as {
    -readonly [K in keyof typeof childProcess]: (typeof childProcess)[K];
  };
  watchCalls(fs);
  watchTools(child);
  syncBuiltinESMExports();
}

const isThere = (path: string): boolean => statSync(path, { throwIfNoEntry: false }) !== undefined;

/** A tool is about to write there. What was durable before and is only changed cannot be put back, and is left. */
function written(path: string, how: 'anew' | 'changed'): void {
  const isNew = !isThere(path);
  if (isNew || how === 'anew') data.set(path, null);
  if (isNew) names = [...names, { change: 'made', path }];
}

function watchCalls(fs: { -readonly [K in keyof typeof promises]: (typeof promises)[K] }): void {
  const { open, rename, rm, copyFile } = fs;
  fs.rename = async (from, to) => {
    await rename(from, to);
    names = [...names, { change: 'renamed', path: String(to), from: String(from) }];
    const kept = data.get(String(from));
    data.delete(String(from));
    // Nobody writes any more to what has its name; what was not synced before it got that is still not.
    if (kept === null) data.set(String(to), null);
    growing.delete(String(from));
  };
  fs.rm = async (path, options) => {
    const kept = keep(String(path));
    await rm(path, options);
    data.delete(String(path));
    growing.delete(String(path));
    if (kept !== null) names = [...names, { change: 'removed', path: String(path), kept }];
  };
  fs.copyFile = async (from, to, mode) => {
    written(String(to), 'anew');
    await copyFile(from, to, mode);
  };
  fs.open = async (path, flags, mode) => {
    if (flags === 'w+') {
      written(String(path), 'anew');
      growing.add(String(path));
    }
    const handle = await open(path, flags, mode);
    for (const verb of ['sync', 'datasync'] as const) {
      const original = handle[verb];
      handle[verb] = async () => {
        await original.call(handle);
        synced(String(path));
      };
    }
    return handle;
  };
}

/** A second name for what is about to be removed; null when there is nothing, or nothing that can have one. */
function keep(path: string): string | null {
  if (!(statSync(path, { throwIfNoEntry: false })?.isFile() ?? false)) return null;
  const kept = newKept(path);
  linkSync(path, kept);
  return kept;
}

function newKept(path: string): string {
  const folder = join(dirname(path), '.kept');
  mkdirSync(folder, { recursive: true });
  return join(folder, `${process.pid}-${keptCount++}-${basename(path)}`);
}

function synced(path: string): void {
  const before = data.get(path);
  if (growing.has(path)) {
    const kept = before ?? newKept(path);
    copyFileSync(path, kept);
    data.set(path, kept);
  } else data.delete(path);
  const durable = names.filter((one) => dirname(one.path) === path);
  names = names.filter((one) => !durable.includes(one));
  for (const one of durable) if (one.change === 'removed') rmSync(one.kept, { force: true });
}

type Child = { -readonly [K in keyof typeof childProcess]: (typeof childProcess)[K] };

function watchTools(child: Child): void {
  const { execFile, spawn } = child;
  child.execFile = new Proxy(execFile, {
    apply(target, self, args: Parameters<typeof execFile>) {
      noteTool(args as unknown as readonly [string, readonly string[]]);
      return Reflect.apply(target, self, args) as unknown;
    },
  });
  child.spawn = new Proxy(spawn, {
    apply(target, self, args: Parameters<typeof spawn>) {
      noteTool(args as unknown as readonly [string, readonly string[]]);
      return Reflect.apply(target, self, args) as unknown;
    },
  });
}

/** Files that a tool makes or writes, by its command line (src/image/qemu-img.ts). */
function noteTool([tool, args]: readonly [string, readonly string[]]): void {
  const last = args.at(-1) ?? '';
  if (basename(tool) === 'cp') written(last, 'anew');
  if (basename(tool) !== 'qemu-img') return;
  if (args[0] === 'create') written(args.at(-2) ?? '', 'anew');
  if (args[0] === 'rebase') written(last, 'changed');
}
