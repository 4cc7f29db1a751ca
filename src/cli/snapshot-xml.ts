// A <domainsnapshot> from options: `--diskspec` as virsh's snapshot-create-as has it, and `--mirror DISK=PATH`.

import { RequestError } from '../std/errors.js';

export interface SnapshotOptions {
  readonly name: string | null;
  readonly description: string | null;
  readonly diskspecs: readonly string[];
  readonly mirrors: readonly string[];
}

interface DiskSpec {
  readonly disk: string;
  readonly fields: Readonly<Partial<Record<Field, string>>>;
}

const fieldNames = ['snapshot', 'driver', 'file', 'mirror'] as const;
type Field = (typeof fieldNames)[number];

/** `absolute` makes a path whole: the daemon does not know our directory. */
export function snapshotXml(options: SnapshotOptions, absolute: (path: string) => string): string {
  const specs = merged(options.diskspecs.map(parseDiskspec), options.mirrors.map(parseMirror));
  const disks = specs.map((spec) => diskXml(spec, absolute));
  return [
    '<domainsnapshot>',
    ...(options.name === null ? [] : [`  <name>${escaped(options.name)}</name>`]),
    ...(options.description === null
      ? []
      : [`  <description>${escaped(options.description)}</description>`]),
    ...(disks.length === 0 ? [] : ['  <disks>', ...disks, '  </disks>']),
    '</domainsnapshot>\n',
  ].join('\n');
}

/** `vda,snapshot=external,driver=qcow2,file=/a`; a comma in a value is written twice. */
function parseDiskspec(text: string): DiskSpec {
  const [disk = '', ...settings] = text
    .replaceAll(',,', '\0')
    .split(',')
    .map((part) => part.replaceAll('\0', ','));
  const fields: Partial<Record<Field, string>> = {};
  for (const setting of settings) {
    const at = setting.indexOf('=');
    const field = fieldNames.find((name) => name === setting.slice(0, at));
    if (field === undefined) {
      throw wrong(`--diskspec ${text}: '${setting}' is none of ${fieldNames.join('=, ')}=`);
    }
    fields[field] = setting.slice(at + 1);
  }
  if (disk === '') throw wrong(`--diskspec ${text}: the disk is missing, as in vda,file=PATH`);
  return { disk, fields };
}

function parseMirror(text: string): DiskSpec {
  const at = text.indexOf('=');
  const [disk, mirror] = [text.slice(0, at), text.slice(at + 1)];
  if (at < 1 || mirror === '') throw wrong(`--mirror ${text}: it has to be DISK=PATH`);
  return { disk, fields: { mirror } };
}

/** A disk named by both options is one disk. */
function merged(specs: readonly DiskSpec[], mirrors: readonly DiskSpec[]): readonly DiskSpec[] {
  const disks = new Map<string, DiskSpec>();
  for (const spec of [...specs, ...mirrors]) {
    const before = disks.get(spec.disk)?.fields ?? {};
    const twice = fieldNames.find((name) => name in before && name in spec.fields);
    if (twice !== undefined) throw wrong(`${spec.disk}: '${twice}' is given twice; say it once`);
    disks.set(spec.disk, { disk: spec.disk, fields: { ...before, ...spec.fields } });
  }
  return [...disks.values()];
}

function diskXml({ disk, fields }: DiskSpec, absolute: (path: string) => string): string {
  const { snapshot, driver, file, mirror } = fields;
  const kind = snapshot ?? (file === undefined && mirror === undefined ? null : 'external');
  const children = [
    ...(driver === undefined ? [] : [`      <driver type='${escaped(driver)}'/>`]),
    ...(file === undefined ? [] : [`      <source file='${escaped(absolute(file))}'/>`]),
    ...(mirror === undefined ? [] : [`      <mirror file='${escaped(absolute(mirror))}'/>`]),
  ];
  const open = `    <disk name='${escaped(disk)}'${kind === null ? '' : ` snapshot='${escaped(kind)}'`}`;
  if (children.length === 0) return `${open}/>`;
  return [`${open}>`, ...children, '    </disk>'].join('\n');
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&apos;',
  '"': '&quot;',
};

const escaped = (text: string): string => text.replace(/[&<>'"]/g, (c) => entities[c] ?? c);

const wrong = (text: string): RequestError =>
  new RequestError('INVALID_ARG', `${text}; see: ferry snapshot-create --help`);
