// Plans of a domain's life: define, start, stop and the small verbs between. Which event a client sees, and in which
// order, is libvirt 9.0's (spec: libvirt-rpc §4).

import type { Definition } from '../domain/definition.js';
import type { LifecycleChange } from '../domain/events.js';
import type { Change, DomainRecord, LiveRecord, RecordedChain } from '../domain/record.js';
import type { DomainState } from '../domain/state.js';
import { localPath } from '../block/layer.js';
import { abandoned, mirrorsOf } from './mirror-end.js';
import type { Plan, QemuStart, Step, StepOf } from './step.js';

const lifecycle = (id: number, change: LifecycleChange): Change => ({
  change: 'event',
  event: { type: 'lifecycle', id, change },
});

interface Named {
  readonly uuid: string;
  readonly name: string;
}

function plan(operation: string, domain: Named, steps: readonly Step[], commitAt = 0): Plan {
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
}

/** QEMU comes up stopped and is known before its guest runs, so that no crash leaves one that nobody knows. */
export function planStart(
  operation: 'start' | 'create',
  { live, qemu, paused, nvram }: Start,
): Plan {
  const { definition, id } = live;
  const start: Step = { kind: 'start-qemu', start: qemu, changes: [{ change: 'start', live }] };
  const before: readonly Step[] =
    nvram === null ? [start] : [{ kind: 'create-nvram', ...nvram }, start];
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

/** Ends a QEMU if it is still there, and records that it is gone. Used for destroy, for a guest's poweroff, and for deaths. */
export function planStop(
  record: DomainRecord,
  live: LiveRecord,
  reason: StopReason,
  { pidFile, nowSeconds }: { readonly pidFile: string; readonly nowSeconds: number },
): Plan {
  const state = stateAfter[reason];
  const owed = owedText(record);
  const changes: readonly Change[] = [
    ...(reason === 'destroyed' ? [lifecycle(live.id, { event: 'shutdown', detail: 'host' })] : []),
    ...(reason === 'shutdown' ? [lifecycle(live.id, { event: 'shutdown', detail: 'guest' })] : []),
    ...dropped(record, nowSeconds),
    { change: 'stop', state, owed },
    // libvirt calls a QEMU that went by itself crashed in the state, failed in the event (qemuProcessHandleMonitorEOF).
    lifecycle(-1, { event: 'stopped', detail: reason === 'crashed' ? 'failed' : reason }),
  ];
  const operation = reason === 'destroyed' ? 'destroy' : `stop (${reason})`;
  return plan(operation, record, [
    { kind: 'kill-qemu', pidFile },
    { kind: 'record', changes },
  ]);
}

const stateAfter = {
  destroyed: { state: 'shutoff', reason: 'destroyed' },
  shutdown: { state: 'shutoff', reason: 'shutdown' },
  crashed: { state: 'shutoff', reason: 'crashed' },
  failed: { state: 'shutoff', reason: 'failed' },
} as const satisfies Record<StopReason, DomainState>;

/** A mirror ends with its QEMU: stock clients see FAILED and a monitor event, before the lifecycle event (design §4). */
function dropped(record: DomainRecord, nowSeconds: number): readonly Change[] {
  return mirrorsOf(record).flatMap((mirrored): readonly Change[] => {
    const { disk, mirror } = mirrored;
    const path = disk.source === null ? null : localPath(disk.source);
    const details = JSON.stringify({
      disk: disk.target,
      source: path,
      mirror: localPath(mirror.image.source),
      live: path,
    });
    return [
      // Laws 2 and 13. What a move made is removed by its rollback.
      ...(mirrored.record.move ? [] : abandoned({ record, nowSeconds }, mirrored)),
      {
        change: 'event',
        event: { type: 'block-job', path, target: disk.target, job: 'copy', status: 'failed' },
      },
      { change: 'event', event: { type: 'monitor', event: 'MIRROR_DROPPED', details } },
    ];
  });
}

function owedText(record: DomainRecord): string | null {
  const owned = mirrorsOf(record).filter((m) => m.record.snapshot !== null);
  const first = owned[0];
  if (first === undefined || record.persistent === null) return null;
  const disks = owned.map(({ disk }) => disk.target).join(', ');
  return (
    `the mirror of ${disks} (snapshot '${first.record.snapshot}') ended when QEMU did, and the source is complete; ` +
    `to run on the source, remove the mirror first: 'ferry snapshot-delete ${record.name} ${first.record.snapshot} --remove-mirror'`
  );
}
