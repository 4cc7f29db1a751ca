// Schemas on disk, one file for each QEMU binary, because asking costs 10 ms and 200 kB at every connect.
//
// A file is found by the binary's path, size and modification time, and believed only when the greeting of
// the process in question names the same version: after an upgrade the old process is still running while
// its path already shows the new binary.

import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { isObject, parseJson, stringifyJson } from './json.js';
import { parseSchema, type Schema } from './schema.js';

export interface SchemaCache {
  readonly directory: string;
  /** The QEMU binary that the process was started from. */
  readonly binary: string;
  /** What this process has learnt: who meets many QEMUs at once gives the same map for all, and one parse serves them. */
  readonly memory?: Map<string, Promise<Schema>>;
}

/**
 * The schema of the binary, from its file or from `fetch`, whose answer is then kept.
 *
 * `version` is the greeting's version and package as text. A file that cannot be read, or is of another
 * version, is replaced; a cache directory that cannot be written costs time, not the connection.
 */
export async function cachedSchema(
  cache: SchemaCache,
  version: string,
  fetch: () => Promise<unknown>,
): Promise<Schema> {
  const path = await fileFor(cache);
  const key = `${path}\n${version}`;
  const known = path === null ? undefined : cache.memory?.get(key);
  if (known !== undefined) return await known;
  const found = find(cache.directory, path, version, fetch);
  if (path !== null) cache.memory?.set(key, found);
  // Whoever comes next asks its own QEMU.
  found.catch(() => cache.memory?.delete(key));
  return await found;
}

async function find(
  directory: string,
  path: string | null,
  version: string,
  fetch: () => Promise<unknown>,
): Promise<Schema> {
  const kept = path === null ? null : await read(path, version);
  if (kept !== null) return kept;

  const reply = await fetch();
  const schema = parseSchema(reply);
  if (path !== null) await write(directory, path, stringifyJson({ version, schema: reply }));
  return schema;
}

async function fileFor(cache: SchemaCache): Promise<string | null> {
  const binary = await stat(cache.binary, { bigint: true }).catch(() => null);
  if (binary === null) return null;
  const key = `${cache.binary}\n${binary.size}\n${binary.mtimeNs}`;
  const hash = createHash('sha256').update(key).digest('hex');
  return join(cache.directory, `qmp-schema-${hash.slice(0, 32)}.json`);
}

async function read(path: string, version: string): Promise<Schema | null> {
  try {
    const file = parseJson(await readFile(path, 'utf8'));
    if (!isObject(file) || file['version'] !== version) return null;
    return parseSchema(file['schema']);
  } catch {
    // Missing or torn: the same as not cached.
    return null;
  }
}

/** Whole or not at all, also for a reader at the same time and after a power cut. */
async function write(directory: string, path: string, text: string): Promise<void> {
  const draft = `${path}.${randomUUID()}.part`;
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const file = await open(draft, 'wx', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch {
    await rm(draft, { force: true }).catch(() => undefined);
  }
}
