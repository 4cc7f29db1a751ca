// A small world with QEMU's manners: what is missing cannot be removed, what is open neither, what is there cannot be
// made again, a pivot cannot be taken back. It also *records* rudeness, because a runner catches what is thrown at it.

import type { Definition } from '../../src/domain/definition.js';
import type { Change, ImageRole } from '../../src/domain/record.js';
import { Pace } from '../../src/image/pace.js';
import type { Effect, Effects } from '../../src/job/effect.js';
import type { OperationName } from '../../src/plan/operation.js';
import type { Plan, Step, StepKind } from '../../src/plan/step.js';

export const uuid = 'c0ffee00-0000-4000-8000-000000000001';

/** One domain with the disk vda on base.img, and what is open of it. */
export class ToyWorld {
  readonly rude: string[] = [];
  private readonly files = new Set(['/src/base.img']);
  private readonly nodes = new Map([['base', '/src/base.img']]);
  /** Active first. */
  private chain: readonly string[] = ['base'];
  private mirror: {
    readonly target: string;
    readonly state: 'copying' | 'ready' | 'pivoted';
  } | null = null;
  private running = true;
  /** How often a method was called, by name. */
  readonly called = new Map<string, number>();

  /** All that there is, as text. */
  async facts(): Promise<string> {
    const { files, nodes, chain, mirror, running } = this;
    return JSON.stringify({
      files: [...files].toSorted(),
      nodes: [...nodes.keys()].toSorted(),
      chain,
      mirror,
      running,
    });
  }

  async hasFile(path: string): Promise<boolean> {
    return this.files.has(path);
  }

  async hasNode(node: string): Promise<boolean> {
    return this.nodes.has(node);
  }

  async active(): Promise<string | undefined> {
    return this.chain[0];
  }

  async job(): Promise<'none' | 'copying' | 'ready' | 'pivoted'> {
    return this.mirror?.state ?? 'none';
  }

  async create(path: string): Promise<void> {
    this.mannered('create', !this.files.has(path), `${path} exists`);
    this.files.add(path);
  }

  async remove(path: string): Promise<void> {
    this.mannered('remove', this.files.has(path), `${path} does not exist`);
    this.mannered('remove', ![...this.nodes.values()].includes(path), `${path} is open`);
    this.files.delete(path);
  }

  async open(node: string, path: string): Promise<void> {
    this.mannered('open', this.files.has(path), `${path} does not exist`);
    this.mannered('open', !this.nodes.has(node), `node ${node} exists`);
    this.nodes.set(node, path);
  }

  async close(node: string): Promise<void> {
    this.mannered('close', this.nodes.has(node), `there is no node ${node}`);
    this.mannered('close', !this.chain.includes(node), `node ${node} is in use by vda`);
    this.mannered(
      'close',
      this.mirror?.target !== node || this.mirror.state === 'pivoted',
      `${node} is mirrored to`,
    );
    this.nodes.delete(node);
  }

  async snapshot(overlay: string): Promise<void> {
    this.mannered('snapshot', this.nodes.has(overlay), `there is no node ${overlay}`);
    this.mannered('snapshot', !this.chain.includes(overlay), `${overlay} is an overlay already`);
    this.chain = [overlay, ...this.chain];
  }

  async commitBack(overlay: string): Promise<void> {
    this.mannered('commitBack', this.chain[0] === overlay, `${overlay} is not active`);
    this.mannered('commitBack', this.mirror === null, 'a mirror runs on it');
    this.chain = this.chain.slice(1);
  }

  async startMirror(target: string): Promise<void> {
    this.mannered('startMirror', this.mirror === null, 'the job exists');
    this.mannered('startMirror', this.nodes.has(target), `there is no node ${target}`);
    this.mirror = { target, state: 'copying' };
  }

  async waitReady(): Promise<void> {
    this.mannered('waitReady', this.mirror !== null, 'there is no job');
    if (this.mirror !== null) this.mirror = { ...this.mirror, state: 'ready' };
  }

  async cancel(): Promise<void> {
    this.mannered('cancel', this.mirror !== null, 'there is no job');
    this.mannered('cancel', this.mirror?.state !== 'pivoted', 'a pivot cannot be taken back');
    this.mirror = null;
  }

  async pivot(): Promise<void> {
    this.mannered(
      'pivot',
      this.mirror?.state === 'ready',
      `the job is ${this.mirror?.state ?? 'gone'}`,
    );
    this.mannered('pivot', !this.running, 'the guest runs');
    if (this.mirror === null) return;
    this.chain = [this.mirror.target, ...this.chain.slice(1)];
    this.mirror = { ...this.mirror, state: 'pivoted' };
  }

  async dismiss(): Promise<void> {
    this.mannered('dismiss', this.mirror?.state === 'pivoted', 'no job is concluded');
    this.mirror = null;
  }

  /** Both are fine twice, as QMP's `stop` and `cont` are. */
  async stop(): Promise<void> {
    this.count('stop');
    this.running = false;
  }

  async cont(): Promise<void> {
    this.count('cont');
    this.running = true;
  }

  /** For an undo of what cannot be undone. */
  async regret(what: string): Promise<void> {
    this.mannered('regret', false, `${what} cannot be taken back`);
  }

  private count(method: string): void {
    this.called.set(method, (this.called.get(method) ?? 0) + 1);
  }

  private mannered(method: string, fine: boolean, otherwise: string): void {
    this.count(method);
    if (fine) return;
    this.rude.push(`${method}: ${otherwise}`);
    throw new Error(`${method}: ${otherwise}`);
  }
}

/** Kinds are the real ones, because a plan has no others; the toy needs no more of a step than this. */
interface ToyStep {
  readonly kind: StepKind;
  readonly node?: string;
  readonly path?: string;
  readonly changes?: readonly Change[];
  readonly reverts?: readonly Change[];
}

type ToyEffects = { readonly [K in StepKind]?: Effect<Required<ToyStep>, ToyWorld> };

const stepsOfToy = {
  'create-image': {
    do: async ({ path }, world) => await world.create(path),
    undo: async ({ path }, world) => {
      if (await world.hasFile(path)) await world.remove(path);
    },
    probe: async ({ path }, world) => ((await world.hasFile(path)) ? 'done' : 'absent'),
  },
  'open-node': {
    do: async ({ node, path }, world) => await world.open(node, path),
    undo: async ({ node }, world) => {
      if (await world.hasNode(node)) await world.close(node);
    },
    probe: async ({ node }, world) => ((await world.hasNode(node)) ? 'done' : 'absent'),
  },
  snapshot: {
    do: async (_, world) => await world.snapshot('overlay'),
    undo: async (_, world) => {
      if ((await world.active()) === 'overlay') await world.commitBack('overlay');
    },
    probe: async (_, world) => ((await world.active()) === 'base' ? 'absent' : 'done'),
  },
  'start-mirror': {
    do: async ({ node }, world) => await world.startMirror(node),
    undo: async (_, world) => {
      if ((await world.job()) !== 'none') await world.cancel();
    },
    probe: async (_, world) => ((await world.job()) === 'none' ? 'absent' : 'done'),
  },
  'wait-ready': {
    background: true,
    do: async (_, world) => await world.waitReady(),
    undo: async () => undefined,
    probe: async (_, world) => ((await world.job()) === 'copying' ? 'absent' : 'done'),
  },
  'create-nvram': {
    repeatable: true,
    do: async (_, world) => await world.stop(),
    undo: async (_, world) => await world.cont(),
    probe: async () => 'unknown',
  },
  pivot: {
    do: async (_, world) => await world.pivot(),
    undo: async (_, world) => {
      if ((await world.active()) === 'dest') await world.regret('a pivot');
    },
    probe: async (_, world) => ((await world.active()) === 'dest' ? 'done' : 'absent'),
    changes: async (_, world) => [told(`pivoted to ${await world.active()}`)],
  },
  'resume-guest': {
    repeatable: true,
    do: async (_, world) => await world.cont(),
    undo: async (_, world) => await world.regret('a resume'),
    probe: async () => 'unknown',
  },
  'dismiss-jobs': {
    do: async (_, world) => await world.dismiss(),
    undo: async (_, world) => await world.regret('a dismissal'),
    probe: async (_, world) => ((await world.job()) === 'none' ? 'done' : 'absent'),
  },
  'close-node': {
    do: async ({ node }, world) => await world.close(node),
    undo: async (_, world) => await world.regret('a close behind the commit'),
    probe: async ({ node }, world) => ((await world.hasNode(node)) ? 'absent' : 'done'),
  },
  'remove-file': {
    do: async ({ path }, world) => await world.remove(path),
    undo: async (_, world) => await world.regret('a removal'),
    probe: async ({ path }, world) => ((await world.hasFile(path)) ? 'absent' : 'done'),
  },
  record: {
    repeatable: true,
    do: async () => undefined,
    undo: async () => undefined,
    probe: async () => 'unknown',
  },
} satisfies ToyEffects;

/** Kinds that the toy plan does not use are not there: the runner would stumble, and the test fail. */
export const toyEffects = stepsOfToy as unknown as Effects<ToyWorld>;

const unfinished: ImageRole = {
  path: '/dst/dest.img',
  role: 'unfinished',
  domain: uuid,
  domainName: 'vm1',
  target: 'vda',
  live: '/src/overlay.img',
  sinceSeconds: 1,
};

/** Like a mirrored snapshot that pivots at once and then clears up. */
export const toyPlan: Plan = {
  operation: 'toy-move' as string as OperationName, // A plan of its own, which no planner makes.
  domain: uuid,
  domainName: 'vm1',
  steps: steps([
    { kind: 'create-image', path: '/src/overlay.img' },
    { kind: 'open-node', node: 'overlay', path: '/src/overlay.img' },
    { kind: 'snapshot' },
    {
      kind: 'create-image',
      path: '/dst/dest.img',
      changes: [{ change: 'role', role: unfinished }, told('began')],
      reverts: [{ change: 'forget-role', path: '/dst/dest.img' }, told('took it back')],
    },
    { kind: 'open-node', node: 'dest', path: '/dst/dest.img' },
    { kind: 'start-mirror', node: 'dest' },
    { kind: 'wait-ready' },
    { kind: 'create-nvram' },
    {
      kind: 'pivot',
      changes: [
        {
          change: 'chain',
          target: 'vda',
          images: [image('/dst/dest.img'), image('/src/base.img')],
          was: image('/src/base.img').source,
        },
        { change: 'forget-role', path: '/dst/dest.img' },
      ],
    },
    { kind: 'resume-guest' },
    { kind: 'dismiss-jobs' },
    { kind: 'close-node', node: 'overlay' },
    { kind: 'remove-file', path: '/src/overlay.img' },
    { kind: 'record', changes: [told('ended')] },
  ]),
  commitAt: 9,
};

/** Only what `applyChange` looks at. */
export const toyDefinition = {
  uuid,
  name: 'vm1',
  disks: [
    {
      target: 'vda',
      source: image('/src/base.img').source,
      format: 'qcow2',
      index: null,
      backing: [],
      mirror: null,
    },
  ],
} as unknown as Definition;

export function told(message: string): Change {
  return {
    change: 'event',
    event: { type: 'monitor', event: message, details: null },
  };
}

function image(path: string) {
  return { source: { type: 'file', path }, format: 'qcow2', index: null } as const;
}

// The runner looks at `kind`, `changes` and `reverts`; the rest is between a plan and its effects.
function steps(toy: readonly ToyStep[]): readonly Step[] {
  return toy as unknown as readonly Step[];
}

/** What the plan makes of the world when nothing goes wrong. */
export async function factsAfter(plan: Plan): Promise<string> {
  const world = new ToyWorld();
  for (const step of plan.steps) {
    const effect: Effect<Step, ToyWorld> = toyEffects[step.kind];
    await effect.do(step, world, {
      operation: 0,
      direction: 'forward',
      begun: false,
      signal: new AbortController().signal,
      progress: () => undefined,
      notePause: () => undefined,
      pace: () => null,
      budget: (limit) => new Pace(limit),
      isPivotSaid: () => false,
      saved: async () => null,
      save: async () => undefined,
    });
  }
  return await world.facts();
}
