// Which elements and attributes of libvirt's domain XML we understand. Everything else is refused by name before
// anything is read, so that no word of a definition is ever dropped in silence.

import { RequestError } from '../std/errors.js';
import type { XmlElement } from '../xml/tree.js';

/** One element: its attributes and children, and whether it may come more than once. */
export interface Grammar {
  readonly attributes: readonly string[];
  readonly children: Readonly<Record<string, Grammar>>;
  readonly many: boolean;
  /** `text`: holds text. `ignored`: libvirt itself ignores it on input. `free`: belongs to others, kept as it is. */
  readonly content: 'elements' | 'text' | 'ignored' | 'free';
}

type Children = Readonly<Record<string, Grammar>>;

const words = (list: string): readonly string[] => list.split(' ').filter((word) => word !== '');
const one = (attributes = '', children: Children = {}): Grammar => ({
  attributes: words(attributes),
  children,
  many: false,
  content: 'elements',
});
const many = (attributes = '', children: Children = {}): Grammar => ({
  ...one(attributes, children),
  many: true,
});
const text = (attributes = ''): Grammar => ({ ...one(attributes), content: 'text' });
const ignored: Grammar = { ...one(), content: 'ignored' };
const free: Grammar = { ...one(), content: 'free' };

const address = one(
  'type domain bus slot function multifunction controller target unit port iobase irq',
);
const info: Children = { alias: one('name'), address };
const boot = one('order');

const diskSource = one('file dev protocol name tls index', {
  host: many('name port transport socket'),
});
/** Seven levels would do; QEMU's own limit is higher, libvirt's is 200. */
const backingStore: Grammar = one('type index', {
  format: one('type'),
  source: diskSource,
  get backingStore() {
    return backingStore;
  },
});

export const diskGrammar = many('type device snapshot', {
  driver: one('name type cache io discard detect_zeroes'),
  source: diskSource,
  backingStore,
  mirror: ignored,
  target: one('dev bus'),
  readonly: one(),
  shareable: one(),
  serial: text(),
  boot,
  ...info,
});

const character: Children = {
  source: one('mode path append'),
  log: one('file append'),
  target: one('type name port state', { model: one('name') }),
  ...info,
};

const devices = one('', {
  emulator: text(),
  disk: diskGrammar,
  controller: many('type index model ports vectors', {
    model: one('name'),
    target: one('chassis port'),
    master: one('startport'),
    ...info,
  }),
  interface: many('type', {
    mac: one('address'),
    target: one('dev managed'),
    model: one('type'),
    link: one('state'),
    boot,
    ...info,
  }),
  serial: many('type', character),
  console: many('type tty', character),
  channel: many('type', character),
  input: many('type bus', info),
  graphics: many('type port autoport listen keymap', { listen: one('type address') }),
  audio: many('id type'),
  video: many('', { model: one('type vram heads primary'), ...info }),
  memballoon: one('model autodeflate freePageReporting', { stats: one('period'), ...info }),
  rng: many('model', { backend: text('model'), rate: one('bytes period'), ...info }),
});

const os = one('', {
  type: text('arch machine'),
  loader: text('readonly secure type'),
  nvram: text('template'),
  kernel: text(),
  initrd: text(),
  cmdline: text(),
  boot: many('dev'),
  bootmenu: one('enable timeout'),
});

const state = one('state');

export const domainGrammar = one('type id', {
  name: text(),
  uuid: text(),
  title: text(),
  description: text(),
  metadata: free,
  memory: text('unit'),
  currentMemory: text('unit'),
  vcpu: text('placement current'),
  // libvirt puts every running domain into a partition of its own accord.
  resource: one('', { partition: text() }),
  os,
  features: one('', {
    acpi: one(),
    apic: one(),
    pae: one(),
    hap: state,
    pmu: state,
    vmport: state,
    smm: state,
    vmcoreinfo: state,
  }),
  cpu: one('mode match check migratable', {
    model: text('fallback'),
    vendor: text(),
    topology: one('sockets dies cores threads'),
    feature: many('policy name'),
  }),
  clock: one('offset', { timer: many('name present tickpolicy track') }),
  on_poweroff: text(),
  on_reboot: text(),
  on_crash: text(),
  pm: one('', { 'suspend-to-mem': one('enabled'), 'suspend-to-disk': one('enabled') }),
  devices,
  // Labels of the host's security driver; `parseDefinition` refuses the static ones.
  seclabel: {
    ...many('type model relabel', { label: text(), imagelabel: text(), baselabel: text() }),
  },
  'qemu:commandline': one('', { 'qemu:arg': many('value'), 'qemu:env': many('name value') }),
});

/**
 * Refuses what `grammar` does not have, by name and line.
 *
 * @throws {RequestError} CONFIG_UNSUPPORTED: an unknown element or attribute. XML_ERROR: an element given twice, or text
 * where there is none.
 */
export function checkGrammar(
  element: XmlElement,
  grammar: Grammar,
  parent: string | null = null,
): void {
  if (grammar.content === 'ignored' || grammar.content === 'free') return;
  const where = `${parent === null ? '' : ` in <${parent}>`} (line ${element.position.line})`;
  for (const name of Object.keys(element.attributes)) {
    if (grammar.attributes.includes(name) || name === 'xmlns' || name.startsWith('xmlns:'))
      continue;
    throw unsupported(`attribute '${name}' of <${element.name}>${where}`);
  }
  const seen = new Set<string>();
  for (const child of element.children) {
    if (typeof child === 'string') {
      if (grammar.content === 'text' || child.trim() === '') continue;
      throw new RequestError('XML_ERROR', `unexpected text in <${element.name}>${where}`, {
        from: 'domain',
      });
    }
    const known = Object.hasOwn(grammar.children, child.name)
      ? grammar.children[child.name]
      : undefined;
    if (known === undefined) {
      throw unsupported(
        `element <${child.name}> in <${element.name}> (line ${child.position.line})`,
      );
    }
    if (seen.has(child.name) && !known.many) {
      throw new RequestError(
        'XML_ERROR',
        `<${child.name}> given twice in <${element.name}>${where}`,
        { from: 'domain' },
      );
    }
    seen.add(child.name);
    checkGrammar(child, known, element.name);
  }
}

/** The refusal of something that libvirt has and we do not. */
export const unsupported = (what: string, instead = 'remove it'): RequestError =>
  new RequestError('CONFIG_UNSUPPORTED', `${what} is not supported by blockferry; ${instead}`, {
    from: 'domain',
  });
