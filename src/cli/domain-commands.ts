// Commands on whole domains, spelled as virsh spells them.

import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';

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
    .description('start a domain that is shut off; mirrors that it owes are taken up first')
    .option('--paused', 'leave the guest paused')
    .option('--mirror-later', 'run now, and mirror when the destination is back')
    .action(
      async (name: string, options: { readonly paused?: true; readonly mirrorLater?: true }) => {
        const session = open();
        const { paused = false, mirrorLater = false } = options;
        const domain = await session.client.start(name, { paused, mirrorLater });
        const note = domain.owed === null ? '' : `\n  ${domain.owed}`;
        session.print(domain, () => `Domain '${domain.name}' started${note}`);
      },
    );

  addSealCommand(program, open);

  addEndCommands(program, open);
  addShowCommands(program, open);
}

interface SealOptions {
  readonly all?: true;
  readonly timeout: number;
}

function addSealCommand(program: Command, open: () => Session): void {
  program
    .command('seal')
    .argument('[domain]', 'name, UUID or id')
    .description('stop a domain so that its mirrors end with both sides equal')
    .option('--all', 'every running domain that has a mirror')
    .option('--timeout <seconds>', 'how long the guest may take to power off', secondsOf, 60)
    .addHelpText(
      'after',
      `
The guest is asked to power off; one that has not in time is stopped where it stands, and ended. Its next start takes
the mirrors up again and copies nothing, if nobody touches either side in between. For a planned stop of the host.

Examples:
  ferry seal vm1
  ferry seal --all --timeout 30`,
    )
    .action(async (name: string | undefined, options: SealOptions) => {
      const session = open();
      const names = await sealed(session, name, options);
      const timeoutSeconds = options.timeout;
      const domains = await Promise.all(
        names.map((one) => session.client.seal(one, { timeoutSeconds })),
      );
      session.print(domains, () =>
        domains.length === 0
          ? 'No running domain has a mirror'
          : domains.map((domain) => `Domain '${domain.name}' is sealed and shut off`).join('\n'),
      );
    });
}

const secondsOf = (text: string): number => {
  if (/^\d{1,4}$/.test(text) && Number(text) <= 3600) return Number(text);
  throw new InvalidArgumentError('It has to be a whole number of seconds, at most 3600.');
};

async function sealed(
  { client }: Session,
  name: string | undefined,
  { all }: SealOptions,
): Promise<readonly string[]> {
  if ((name === undefined) === (all === undefined))
    throw new RequestError('INVALID_ARG', 'seal: name one domain, or say --all');
  if (name !== undefined) return [name];
  const running = (await client.listDomains()).filter((domain) => domain.id !== null);
  const chains = await Promise.all(
    running.map(async ({ uuid }) => [uuid, await client.chain(uuid)] as const),
  );
  return chains.flatMap(([uuid, disks]) =>
    disks.some((disk) => disk.mirror !== null) ? uuid : [],
  );
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
      const nvram = options.nvram === true ? 'remove' : options.keepNvram === true ? 'keep' : null;
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
  if (domain.owed !== null) return domain.owed;
  const numbers = domain.operations.join(', ');
  return domain.operations.length === 0 ? '' : `operation ${numbers}: ferry ops`;
}
