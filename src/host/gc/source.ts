// Which images of a move's source may be deleted when the time for it has come, and why the others stay. Law 14 itself is
// in `judge.ts`; here is only which of its items are meant. Pure, but for `deleteSource`, which looks and deletes.

import type { OperationRecord } from '../../journal/journal.js';
import type { KeptImage } from '../../plan/source.js';
import { leftBy, planDeleteSource } from '../../plan/source.js';
import { refuse } from '../../plan/refuse.js';
import type { Host } from '../host.js';
import { gcList } from './gc.js';
import type { GcItem } from './types.js';

export interface SourceChoice {
  /** What names another comes before it. */
  readonly paths: readonly string[];
  readonly kept: readonly KeptImage[];
}

/** Images that are not there any more are in neither. */
export function chooseSource(items: readonly GcItem[], move: OperationRecord): SourceChoice {
  const paths: string[] = [];
  const kept: KeptImage[] = [];
  for (const { own, below } of leftBy(move.plan)) {
    let above: string | null = null;
    for (const path of [...own, ...(move.plan.source?.shared === true ? below : [])]) {
      const item = items.find((one) => one.path === path && one.operation === move.id);
      if (item === undefined || paths.includes(path)) continue;
      const why = above === null ? against(item, paths) : `it goes only after ${above}`;
      if (why === null) paths.push(path);
      else {
        kept.push({ path, why });
        above ??= path;
      }
    }
  }
  return { paths, kept };
}

/** Null: nothing. That it goes only by its name is no hindrance: whoever asked for it named all of them. */
function against({ fate, against: texts, namedBy }: GcItem, going: readonly string[]) {
  if (fate === 'kept') return texts.join('; ');
  const others = namedBy.filter((path) => !going.includes(path));
  return others.length === 0 ? null : `${others.join(', ')} names it`;
}

/** Deletes what law 14 allows, looked at under the domain's lock, under which `isDue` is asked too. */
export async function deleteSource(
  host: Host,
  move: OperationRecord,
  isDue: () => boolean,
): Promise<void> {
  const { id, domain, domainName } = move;
  const before = chooseSource((await gcList(host)).items, move);
  if (before.paths.length + before.kept.length === 0) return;
  await host.operate(domain, async () => {
    if (!isDue()) return refuse(new Error('somebody said meanwhile that it is kept'));
    const { paths, kept } = chooseSource((await gcList(host)).items, move);
    return planDeleteSource({ move: id, domain, domainName, paths, kept });
  });
}
