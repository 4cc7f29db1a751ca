// Law 14, file by file: nothing is deleted that is not proven ours, verified elsewhere, and used by nobody. What is
// proven is said, and so is what is missing. Pure.

import type { Candidate } from './candidates.js';
import type { FileSeen, GcFacts } from './facts.js';
import type { GcFate, GcItem } from './types.js';

/** Clocks of a file system tick by the timer, and the end of an operation is written a moment after its last step. */
const SLACK_MS = 1000;

export function judgeAll(facts: GcFacts): readonly GcItem[] {
  const items = facts.candidates.flatMap((candidate) => {
    const seen = facts.files.get(candidate.path);
    return seen === undefined ? [] : [judge(candidate, seen, facts)];
  });
  return withNames(items);
}

function judge(candidate: Candidate, seen: FileSeen, { older }: GcFacts): GcItem {
  const proof = [candidate.ours, candidate.elsewhere].filter((text) => text !== null);
  const missing = missingProofs(candidate, seen);
  const fate: GcFate =
    missing.length > 0 ? 'kept' : candidate.onlyByName === null ? 'removable' : 'by-name';
  const { path, kind, domain, domainName, target, role, left, keptUntilMs } = candidate;
  const leftSeconds = left?.endedAtMs == null ? null : Math.floor(left.endedAtMs / 1000);
  return {
    path,
    kind,
    domain,
    domainName,
    target,
    allocatedBytes: seen.allocatedBytes,
    sinceSeconds: role?.sinceSeconds ?? leftSeconds,
    older: older.get(path) ?? null,
    operation: left?.id ?? null,
    keptUntilSeconds: keptUntilMs === null ? null : Math.floor(keptUntilMs / 1000),
    fate,
    proof:
      missing.length > 0
        ? proof
        : [...proof, 'nobody has it open, no domain and no operation names it'],
    against: missing.length > 0 ? missing : [candidate.onlyByName].filter((text) => text !== null),
    namedBy: seen.namedBy,
  };
}

function missingProofs(candidate: Candidate, seen: FileSeen): readonly string[] {
  const { left, ours, elsewhere, doubt, kind } = candidate;
  const isImage = kind === 'unfinished' || kind === 'stale';
  const holders = seen.holders.map(({ pid, command }) => `${command} (pid ${pid ?? 'not known'})`);
  const changed =
    left?.endedAtMs != null && seen.changedMs > left.endedAtMs + SLACK_MS
      ? [
          `it changed at ${new Date(seen.changedMs).toISOString().slice(0, 19)}Z, after operation ${left.id} left it: it may be another file by now`,
        ]
      : [];
  return [
    ...(seen.problem === null ? [] : [seen.problem]),
    ...(seen.kind === 'other' ? ['it is neither a file nor a socket'] : []),
    ...(ours === null
      ? ['nothing in the journal shows that we made it or that it was left by a switch']
      : []),
    ...(isImage && left === null ? ['the operation that left it is not remembered any more'] : []),
    ...(elsewhere === null
      ? [doubt ?? 'nothing shows that what it holds is elsewhere as well']
      : []),
    ...changed,
    ...(isImage && seen.liveMissing === null
      ? ['which image is live instead is not known any more']
      : []),
    ...(seen.liveMissing ?? []).map(
      (path) => `${path}, which has what it holds, is not there: is its storage mounted?`,
    ),
    ...seen.usedBy,
    ...(holders.length === 0 ? [] : [`it is open in ${holders.join(', ')}`]),
  ];
}

/** An image that another one names goes only together with that one, so not at all while that one is kept. */
function withNames(items: readonly GcItem[]): readonly GcItem[] {
  const fates = new Map(items.map(({ path, fate }) => [path, fate]));
  const next = items.map((item): GcItem => {
    const strange = item.namedBy.filter((path) => (fates.get(path) ?? 'kept') === 'kept');
    if (item.fate === 'kept' || item.namedBy.length === 0) return item;
    if (strange.length > 0) {
      const texts = strange.map((path) => `${path} names it`);
      return { ...item, fate: 'kept', proof: item.proof.slice(0, -1), against: texts };
    }
    const together = `only together with ${item.namedBy.join(', ')}, whose header names it`;
    return item.against.includes(together)
      ? item
      : { ...item, against: [...item.against, together] };
  });
  // What is kept now may keep others.
  const isSettled = next.every(({ path, fate }) => fates.get(path) === fate);
  return isSettled ? next : withNames(next);
}
