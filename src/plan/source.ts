// What becomes of the images that a move leaves: kept, or deleted when the move has ended or some time later. Which of
// them may go is for law 14 to say (host/gc/judge); here is what a request may ask for, and the plan that deletes.

import type { VerifyMode } from '../block/copy.js';
import type { Image } from '../block/layer.js';
import { localPath } from '../block/layer.js';
import type { SourceFate } from '../domain/source-fate.js';
import { RequestError } from '../std/errors.js';
import { sources } from './move-tail.js';
import type { Plan, Refusal } from './step.js';

/** An image that stays, and why. */
export interface KeptImage {
  readonly path: string;
  readonly why: string;
}

/** What a plan that deletes the source of a move knows of itself besides its steps. */
export interface SourceDeletion {
  /** Number of the move. */
  readonly move: number;
  readonly kept: readonly KeptImage[];
}

/** Null: it may be asked for. */
export function checkFate(
  name: string,
  { keepSeconds, shared }: SourceFate,
  verify: VerifyMode,
): RequestError | null {
  if (keepSeconds === null && shared)
    return new RequestError(
      'INVALID_ARG',
      `move ${name}: --delete-shared is about layers below a source that is deleted, and it is kept; say --delete-source or --keep-source TIME too`,
    );
  if (keepSeconds !== null && verify === 'none')
    return new RequestError(
      'INVALID_ARG',
      `move ${name}: with --verify none nothing proves that the copies are whole, so the source is not deleted; use --verify sample or full, or --keep-source forever`,
    );
  return null;
}

/** Kept for ever is left out, as in the plans of a ferryd that did not know of anything else. */
export const withFate = (plan: Plan | Refusal, source: SourceFate): Plan | Refusal =>
  'refusal' in plan || source.keepSeconds === null ? plan : { ...plan, source };

/** The images that a move leaves of one disk, each before the one that it stands on. */
export interface LeftImages {
  readonly target: string;
  /** Down to the former top layer: the layers of the move itself stand on it. */
  readonly own: readonly string[];
  /** Below that: images that others may stand on too. */
  readonly below: readonly string[];
}

export function leftBy({ move, offline }: Plan): readonly LeftImages[] {
  return [
    ...(move?.ways ?? []).map((way) => left(way.target, sources(way), way.epochs.length + 1)),
    ...(offline?.ways ?? []).map((way) => left(way.target, way.from, 1)),
  ];
}

function left(target: string, images: readonly Image[], owned: number): LeftImages {
  const paths = images.flatMap(({ source }) => localPath(source) ?? []);
  return { target, own: paths.slice(0, owned), below: paths.slice(owned) };
}

/** Whether a copy of the move was not read back: then nothing of it counts as proof (law 14). */
export const isUnverified = ({ steps }: Plan): boolean =>
  steps.some((step) => step.kind === 'copy-image' && step.verify === 'none');

export interface DeleteSource extends SourceDeletion {
  readonly domain: string;
  readonly domainName: string;
  /** What names another comes before it. */
  readonly paths: readonly string[];
}

/** Nothing but what was kept to be told: one record. */
export function planDeleteSource({ move, domain, domainName, paths, kept }: DeleteSource): Plan {
  const told = (event: string, what: object) =>
    ({
      change: 'event',
      event: { type: 'monitor', event, details: JSON.stringify({ operation: move, ...what }) },
    }) as const;
  return {
    operation: 'delete-source',
    domain,
    domainName,
    steps: [
      ...paths.map((path) => ({ kind: 'remove-file' as const, path })),
      {
        kind: 'record',
        changes: [
          ...paths.map((path) => ({ change: 'forget-role' as const, path })),
          ...(paths.length === 0 ? [] : [told('SOURCE_DELETED', { paths })]),
          ...(kept.length === 0 ? [] : [told('SOURCE_KEPT', { kept })]),
        ],
      },
    ],
    commitAt: 0,
    deletes: { move, kept },
  };
}
