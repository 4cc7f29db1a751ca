// What a running move does, in words: rates, what it is behind, what the guest feels of it, when it will be ready.

import type { OperationProgress, ProgressRates } from '../host/ferry-host.js';
import { duration, humanBytes } from './text.js';

type Parts = readonly string[];

/** What it carries: of frozen images while they are copied, else of its mirrors. */
export function speed({ copyBytesPerSecond, mirrorBytesPerSecond }: ProgressRates): Parts {
  const rate = (copyBytesPerSecond ?? 0n) > 0n ? copyBytesPerSecond : mirrorBytesPerSecond;
  return rate === null || rate === 0n ? [] : [perSecond(rate)];
}

export function guestText({ guestBytesPerSecond, lagBytes }: ProgressRates): Parts {
  return [
    ...(guestBytesPerSecond === null ? [] : [`guest ${perSecond(guestBytesPerSecond)}`]),
    ...(lagBytes === null ? [] : [`behind ${humanBytes(lagBytes)}`]),
  ];
}

/** `writes p99 2.1 → 4.5 ms`: before the move, and now. */
export function latencyText({ latency: { before, now } }: ProgressRates): Parts {
  if (now === null && before === null) return [];
  return [`writes p99 ${msOf(before?.p99Ms)} → ${msOf(now?.p99Ms)} ms`];
}

/** The same with the median, for who has the room. */
export function latencyLine({ latency: { before, now } }: ProgressRates): string | null {
  if (now === null && before === null) return null;
  const of = (name: string, latency: typeof now): string =>
    latency === null
      ? `${name}: not seen`
      : `${name}: p50 ${msOf(latency.p50Ms)} ms, p99 ${msOf(latency.p99Ms)} ms (${latency.writes} writes)`;
  return `${of('before', before)}; ${of('now', now)}`;
}

export function readyIn({ readySeconds }: OperationProgress): Parts {
  const text = readyText(readySeconds);
  return text === null ? [] : [`ready in ${text}`];
}

/** `40s to 1m10s`; null: nobody knows. */
export function readyText(band: OperationProgress['readySeconds']): string | null {
  if (band === null) return null;
  if (band.most === null) return `${duration(band.least)} or more`;
  const [least, most] = [duration(band.least), duration(band.most)];
  return least === most ? `about ${most}` : `${least} to ${most}`;
}

/** `at most 10 MiB/s`, `auto, now at most 12 MiB/s, for a p99 of 20 ms`. */
export function limitText({ limitBytesPerSecond, auto }: OperationProgress): Parts {
  if (auto !== null && limitBytesPerSecond === 0n)
    return ["auto, standing still to see what the guest's writes take without it"];
  const limit = limitBytesPerSecond === null ? [] : [`at most ${perSecond(limitBytesPerSecond)}`];
  if (auto === null) return limit;
  const bound = auto.latencyMs === null ? '' : `, for a p99 of ${msOf(auto.latencyMs)} ms`;
  return limit.map((text) => `auto, now ${text}${bound}`);
}

/** What `ops show` says besides how far it is: name and text. */
export function progressFacts(progress: OperationProgress): readonly (readonly string[])[] {
  const { copyBytesPerSecond, mirrorBytesPerSecond, guestBytesPerSecond, lagBytes } = progress;
  const rates = [
    ...(copyBytesPerSecond === null ? [] : [`copies ${perSecond(copyBytesPerSecond)}`]),
    ...(mirrorBytesPerSecond === null ? [] : [`mirrors ${perSecond(mirrorBytesPerSecond)}`]),
    ...(guestBytesPerSecond === null ? [] : [`guest ${perSecond(guestBytesPerSecond)}`]),
    ...(lagBytes === null ? [] : [`behind ${humanBytes(lagBytes)}`]),
  ].join(', ');
  const { state, why } = progress.convergence;
  return [
    ...fact('rates', rates === '' ? null : rates),
    ...fact('guest writes', latencyLine(progress)),
    ...fact('ready in', readyText(progress.readySeconds)),
    ...fact('will not converge', state === 'diverges' ? why : null),
  ];
}

const fact = (name: string, value: string | null): readonly (readonly string[])[] =>
  value === null ? [] : [[name, value]];

const perSecond = (bytes: bigint): string => `${humanBytes(bytes)}/s`;

/** Two digits where they say something. */
const msOf = (ms: number | undefined): string =>
  ms === undefined ? '?' : ms < 10 ? String(Math.round(ms * 10) / 10) : String(Math.round(ms));
