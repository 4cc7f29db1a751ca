// Commands on whole domains, spelled as virsh spells them.

import type { Command } from 'commander';
import { Option } from 'commander';

import type { DiskView, DomainSummary } from '../host/ferry-host.js';
import { RequestError } from '../std/errors.js';
import { chainText } from './chain-text.js';
import type { Session } from './session.js';
import { readInput } from './session.js';
import { table } from './text.js';

interface ListOptions {
  readonly all?: true;
  readonly inactive?: true;
  readonly name?: true;
  readonly uuid?: true;
}

export function addDomainCommands(program: Command, open: () => Session): void {
  program
    .command('list')
    .description('list the running domains')
    .option('--all', 'those that are shut off too')
    .option('--inactive', 'only those that are shut off')
    .option('--name', 'only the names, one a line')
    .option('--uuid', 'only the UUIDs, one a line')
    .action(async (options: ListOptions) => {
      const session = open();
      const domains = (await session.client.listDomains()).filter((d) => isListed(d, options));
      session.print(domains, () => listText(domains, options));
    });

  program
    .command('define')
    .argument('<file>', 'domain XML; - is standard input')
    .description('define a domain, or define it anew, without starting it')
    .action(async (file: string) => {
      const session = open();
      const domain = await session.client.define(await readInput(file));
      session.print(domain, () => `Domain '${domain.name}' defined from ${file}`);
    });

  program
    .command('create')
    .argument('<file>', 'domain XML; - is standard input')
    .description('create a transient domain and start it')
    .option('--paused', 'leave the guest paused')
    .action(async (file: string, options: { readonly paused?: true }) => {
      const session = open();
      const paused = options.paused === true;
      const domain = await session.client.createXml(await readInput(file), { paused });
      session.print(domain, () => `Domain '${domain.name}' created from ${file}`);
    });

  program
    .command('start')
    .argument('<domain>', 'name, UUID or id')
    .description('start a domain that is shut off')
    .option('--paused', 'leave the guest paused')
    .action(async (name: string, options: { readonly paused?: true }) => {
      const session = open();
      const domain = await session.client.start(name, { paused: options.paused === true });
      session.print(domain, () => `Domain '${domain.name}' started`);
    });

  addEndCommands(program, open);
  addShowCommands(program, open);
}

function addEndCommands(program: Command, open: () => Session): void {
  program
    .command('shutdown')
    .argument('<domain>', 'name, UUID or id')
    .description('ask the guest to shut down')
    .action(async (domain: string) => {
      const session = open();
      await session.client.shutdown(domain);
      const text = `Domain '${domain}' is being shutdown`;
      session.print({ domain, done: 'shutdown' }, () => text);
    });

  program
    .command('destroy')
    .argument('<domain>', 'name, UUID or id')
    .description('stop a domain at once, as if its power was cut')
    .action(async (domain: string) => {
      const session = open();
      await session.client.destroy(domain);
      session.print({ domain, done: 'destroy' }, () => `Domain '${domain}' destroyed`);
    });

  program
    .command('undefine')
    .argument('<domain>', 'name, UUID or id')
    .description('forget the definition of a domain; its images stay')
    .option('--snapshots-metadata', 'forget its snapshots and an owed mirror too')
    .addOption(new Option('--nvram', 'remove its UEFI variables').conflicts('keepNvram'))
    .option('--keep-nvram', 'keep its UEFI variables')
    .action(async (domain: string, options: UndefineOptions) => {
      const session = open();
      const snapshotsMetadata = options.snapshotsMetadata === true;
      const nvram =
        options.nvram === true ? 'remove' : options.keepNvram === true ? 'keep' : null;
      await session.client.undefine(domain, { snapshotsMetadata, nvram });
      session.print({ domain, done: 'undefine' }, () => `Domain '${domain}' has been undefined`);
    });
}

interface UndefineOptions {
  readonly snapshotsMetadata?: true;
  readonly nvram?: true;
  readonly keepNvram?: true;
}

function addShowCommands(program: Command, open: () => Session): void {
  program
    .command('dumpxml')
    .argument('<domain>', 'name, UUID or id')
    .description('print the XML of a domain')
    .option('--inactive', 'as it will be at the next start')
    .action(async (domain: string, options: { readonly inactive?: true }) => {
      const session = open();
      const inactive = options.inactive === true;
      const xml = await session.client.dumpXml(domain, { inactive });
      session.print({ xml }, () => xml.trimEnd());
    });

  program
    .command('chain')
    .argument('<domain>', 'name, UUID or id')
    .argument('[disk]', 'its target or the path of its image; default: all disks')
    .description('draw the images of the disks: which is live, what backs it, what mirrors it')
    .addHelpText(
      'after',
      '\nExamples:\n  ferry chain vm1\n  ferry chain vm1 vda --json | jq -r .disks[0].chain[0].path',
    )
    .action(async (name: string, wanted: string | undefined) => {
      const session = open();
      const domain = await session.client.showDomain(name);
      const disks = await session.client.chain(name);
      const shown = wanted === undefined ? disks : [findDisk(domain, disks, wanted)];
      session.print({ domain, disks: shown }, () => chainText(domain, shown, session.paint));
    });
}

/** The disk with target `wanted`, or with that live image. */
export function findDisk(
  domain: Pick<DomainSummary, 'name'>,
  disks: readonly DiskView[],
  wanted: string,
): DiskView {
  const found = disks.find((d) => d.target === wanted || d.chain[0]?.path === wanted);
  if (found !== undefined) return found;
  const known = disks.map((disk) => disk.target).join(', ');
  throw new RequestError(
    'INVALID_ARG',
    `no disk '${wanted}' in domain '${domain.name}'; it has: ${known === '' ? 'none' : known}`,
  );
}

function isListed(domain: DomainSummary, { all, inactive }: ListOptions): boolean {
  if (all === true) return true;
  return (domain.id === null) === (inactive === true);
}

function listText(domains: readonly DomainSummary[], { name, uuid }: ListOptions): string {
  if (name === true || uuid === true) {
    const lines = domains.map((d) => [...(uuid ? [d.uuid] : []), ...(name ? [d.name] : [])]);
    return lines.map((line) => line.join(' ')).join('\n');
  }
  const rows = domains.map((d) => [
    d.id === null ? '-' : String(d.id),
    d.name,
    d.state === 'shutoff' ? 'shut off' : d.state,
    d.disks.join(', '),
    noteOf(d),
  ]);
  return table(['Id', 'Name', 'State', 'Disks', 'Note'], rows);
}

function noteOf(domain: DomainSummary): string {
  if (domain.owed !== null) return `start is refused: ${domain.owed}`;
  const numbers = domain.operations.join(', ');
  return domain.operations.length === 0 ? '' : `operation ${numbers}: ferry ops`;
}
