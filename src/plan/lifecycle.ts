// Plans of a domain's life: define, start, stop and the small verbs between. Which event a client sees, and in which
// order, is libvirt 9.0's (spec: libvirt-rpc §4).

import type { Definition } from '../domain/definition.js';
import type { LifecycleChange } from '../domain/events.js';
import type { Change, DomainRecord, LiveRecord, RecordedChain } from '../domain/record.js';
import type { DomainState } from '../domain/state.js';
import { formatNode, localPath, showSource } from '../block/layer.js';
import { present } from '../std/assert.js';
import type { Attach } from './attach.js';
import type { Mirrored } from './mirror-end.js';
import { mirrorsOf } from './mirror-end.js';
import type { OperationName } from './operation.js';
import { abandoned } from './roles.js';
import { topOf } from './overlay.js';
import { layersOf } from './refuse.js';
import type { Plan, QemuStart, SealDisk, StampDisk, Step, StepOf } from './step.js';

const lifecycle = (id: number, change: LifecycleChange): Change => ({
  change: 'event',
  event: { type: 'lifecycle', id, change },
});

interface Named {
  readonly uuid: string;
  readonly name: string;
}

function plan(operation: OperationName, domain: Named, steps: readonly Step[], commitAt = 0): Plan {
  return { operation, domain: domain.uuid, domainName: domain.name, steps, commitAt };
}

export function planDefine(
  definition: Definition,
  chains: readonly RecordedChain[],
  known: DomainRecord | null,
): Plan {
  const detail = known?.persistent == null ? 'added' : 'updated';
  const changes: readonly Change[] = [
    { change: 'define', definition, chains },
    lifecycle(known?.live?.id ?? -1, { event: 'defined', detail }),
  ];
  return plan('define', definition, [{ kind: 'record', changes }]);
}

/** `nvram`: the file of UEFI variables that goes with it. */
export function planUndefine(record: DomainRecord, nvram: string | null): Plan {
  // A running domain goes on as a transient one and keeps its snapshots.
  const changes: readonly Change[] = [
    lifecycle(record.live?.id ?? -1, { event: 'undefined', detail: 'removed' }),
    { change: 'undefine' },
  ];
  const remove: readonly Step[] = nvram === null ? [] : [{ kind: 'remove-file', path: nvram }];
  return plan('undefine', record, [{ kind: 'record', changes }, ...remove]);
}

export function planAutostart(record: DomainRecord, on: boolean): Plan {
  return plan('autostart', record, [{ kind: 'record', changes: [{ change: 'autostart', on }] }]);
}

export interface Start {
  readonly live: LiveRecord;
  readonly qemu: QemuStart;
  readonly paused: boolean;
  readonly nvram: Pick<StepOf<'create-nvram'>, 'path' | 'template' | 'reset'> | null;
  /** Mirrors that are taken up before the guest runs. */
  readonly attach: readonly Attach[];
  /** What moves that wait had open besides. */
  readonly open: readonly Step[];
  /** What is told with it: mirrors that are put off. */
  readonly told: readonly Change[];
  /** The state before, should it come to nothing. */
  readonly lastState: DomainState;
  readonly nowSeconds: number;
}

/** QEMU comes up stopped and is known before its guest runs, so that no crash leaves one that nobody knows. */
export function planStart(
  operation: 'start' | 'create',
  { live, qemu, paused, nvram, attach, open, told, lastState, nowSeconds }: Start,
): Plan {
  const { definition, id } = live;
  const start: Step = {
    kind: 'start-qemu',
    start: qemu,
    changes: [{ change: 'start', live }, ...told],
    reverts: [{ change: 'stop', state: lastState, nowSeconds }],
  };
  const before: readonly Step[] = [
    ...(nvram === null ? [] : [{ kind: 'create-nvram' as const, ...nvram }]),
    ...attach.flatMap((one) => one.before),
    start,
    ...open,
    // Law 1 and design §4: whoever is mirrored is mirrored from its first instruction on.
    ...attach.flatMap((one) => one.inQemu),
  ];
  const started = lifecycle(id, { event: 'started', detail: 'booted' });
  const rest: Step = paused
    ? {
        kind: 'record',
        changes: [
          { change: 'state', state: { state: 'paused', reason: 'user' } },
          started,
          lifecycle(id, { event: 'suspended', detail: 'paused' }),
        ],
      }
    : {
        kind: 'resume-guest',
        when: 'always',
        changes: [
          { change: 'state', state: { state: 'running', reason: 'booted' } },
          lifecycle(id, { event: 'resumed', detail: 'unpaused' }),
          started,
        ],
      };
  return plan(operation, definition, [...before, rest], before.length);
}

export function planSuspend(record: DomainRecord, live: LiveRecord): Plan {
  const changes: readonly Change[] = [
    { change: 'state', state: { state: 'paused', reason: 'user' } },
    lifecycle(live.id, { event: 'suspended', detail: 'paused' }),
  ];
  return plan('suspend', record, [{ kind: 'pause-guest', changes }]);
}

export function planResume(record: DomainRecord, live: LiveRecord): Plan {
  const changes: readonly Change[] = [
    { change: 'state', state: { state: 'running', reason: 'unpaused' } },
    lifecycle(live.id, { event: 'resumed', detail: 'unpaused' }),
  ];
  return plan('resume', record, [{ kind: 'resume-guest', when: 'always', changes }]);
}

/**
 * ACPI knows one button: what the guest's poweroff turns into is decided when it comes (libvirt's fake reboot), and is
 * known before the button is pressed, because a guest may be fast.
 */
export function planSignal(
  record: DomainRecord,
  live: LiveRecord,
  verb: 'shutdown' | 'reboot' | 'reset',
): Plan {
  const on = verb === 'reboot';
  const known: readonly Step[] =
    live.rebooting === on ? [] : [{ kind: 'record', changes: [{ change: 'rebooting', on }] }];
  return plan(verb, record, [
    ...known,
    { kind: 'signal-guest', signal: verb === 'reset' ? 'reset' : 'powerdown' },
  ]);
}

/** A guest that powered off and is to come up again: QEMU stays (libvirt's fake reboot). */
export const planRestart = (record: DomainRecord): Plan =>
  plan('reboot (restart)', record, [
    { kind: 'signal-guest', signal: 'reset' },
    {
      kind: 'resume-guest',
      when: 'always',
      changes: [
        { change: 'rebooting', on: false },
        { change: 'state', state: { state: 'running', reason: 'booted' } },
        { change: 'event', event: { type: 'reboot' } },
      ],
    },
  ]);

/** Why a QEMU is no more. */
export type StopReason = 'destroyed' | 'shutdown' | 'crashed' | 'failed';

export interface Stop {
  readonly pidFile: string;
  readonly nowSeconds: number;
  /** How long mirrors may take to end with both sides equal; null: they are not waited for. The guest must stand still. */
  readonly sealMs: number | null;
}

/** Ends a QEMU if it is still there, and records that it is gone. Used for destroy, for a guest's poweroff, and for deaths. */
export function planStop(
  record: DomainRecord,
  live: LiveRecord,
  reason: StopReason,
  { pidFile, nowSeconds, sealMs }: Stop,
): Plan {
  const state = stateAfter[reason];
  // A move makes its target anew in any case; its live layer is kept small by other means (design §5).
  const sealed = sealMs === null ? [] : mirrorsOf(record).filter(isSealable);
  const changes: readonly Change[] = [
    ...(reason === 'destroyed' ? [lifecycle(live.id, { event: 'shutdown', detail: 'host' })] : []),
    ...(reason === 'shutdown' ? [lifecycle(live.id, { event: 'shutdown', detail: 'guest' })] : []),
    ...dropped(record, nowSeconds),
    { change: 'stop', state, nowSeconds },
    // libvirt calls a QEMU that went by itself crashed in the state, failed in the event (qemuProcessHandleMonitorEOF).
    lifecycle(-1, { event: 'stopped', detail: reason === 'crashed' ? 'failed' : reason }),
  ];
  const ended = sealMs === null ? 'destroy' : 'seal';
  const operation = reason === 'destroyed' ? ended : (`stop (${reason})` as const);
  const steps: readonly Step[] = [
    { kind: 'kill-qemu', pidFile },
    { kind: 'record', changes },
  ];
  if (sealed.length === 0 || sealMs === null) return plan(operation, record, steps);
  return plan(operation, record, [
    { kind: 'seal', disks: sealed.map(sealDisk), timeoutMs: sealMs },
    { kind: 'close-sealed', disks: sealed.map(sealDisk) },
    ...steps,
    { kind: 'stamp', disks: sealed.map(stampDisk) },
  ]);
}

const isSealable = ({ mirror, record }: Mirrored): boolean =>
  mirror.ready === 'yes' && !record.move;

function sealDisk({ disk, mirror }: Mirrored): SealDisk {
  const index = present(mirror.image.index, 'an open image has an index');
  return {
    target: disk.target,
    jobId: mirror.jobId,
    node: formatNode({ index }),
    path: localPath(mirror.image.source),
  };
}

const stampDisk = ({ disk, mirror }: Mirrored): StampDisk => ({
  target: disk.target,
  source: showSource(topOf(disk).source),
  image: showSource(mirror.image.source),
});

const stateAfter = {
  destroyed: { state: 'shutoff', reason: 'destroyed' },
  shutdown: { state: 'shutoff', reason: 'shutdown' },
  crashed: { state: 'shutoff', reason: 'crashed' },
  failed: { state: 'shutoff', reason: 'failed' },
} as const satisfies Record<StopReason, DomainState>;

/** A mirror ends with its QEMU: stock clients see FAILED and a monitor event, before the lifecycle event (design §4). */
function dropped(record: DomainRecord, nowSeconds: number): readonly Change[] {
  const isOwed = record.persistent !== null;
  return mirrorsOf(record).flatMap((mirrored): readonly Change[] => {
    const { disk, mirror } = mirrored;
    const path = disk.source === null ? null : localPath(disk.source);
    const details = JSON.stringify({
      disk: disk.target,
      source: path,
      mirror: localPath(mirror.image.source),
      live: path,
    });
    // A move that waits is to be taken up again, whoever its domain was.
    const event = isOwed || mirrored.record.move ? 'MIRROR_OWED' : 'MIRROR_DROPPED';
    return [
      // Laws 2 and 13. What a move made is known by its operation.
      ...(mirrored.record.move ? [] : abandoned({ record, nowSeconds }, mirrored)),
      ...(isOwed || mirrored.record.move ? [] : belowOf(record, mirrored, nowSeconds)),
      {
        change: 'event',
        event: { type: 'block-job', path, target: disk.target, job: 'copy', status: 'failed' },
      },
      { change: 'event', event: { type: 'monitor', event, details } },
    ];
  });
}

/** Nothing will remember the chain of a transient domain: what lies below its live image is not to be opened instead. */
function belowOf(
  record: DomainRecord,
  { disk }: Mirrored,
  sinceSeconds: number,
): readonly Change[] {
  const [top, ...below] = layersOf(disk);
  return below.flatMap((layer): readonly Change[] => {
    const path = localPath(layer.source);
    if (path === null || top === undefined) return [];
    const live = showSource(top.source);
    const role = { path, role: 'sealed', domain: record.uuid, domainName: record.name } as const;
    return [{ change: 'role', role: { ...role, target: disk.target, live, sinceSeconds } }];
  });
}
