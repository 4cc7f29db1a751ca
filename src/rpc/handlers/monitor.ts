// QEMU's own monitor, of libvirt's qemu program.

import { procedure } from '../procedure.js';
import { domain, string } from '../wire.js';

export const monitorProcedures = [
  procedure({
    number: 1,
    name: 'virDomainQemuMonitorCommand',
    access: 'write',
    args: { domain, command: string },
    flags: { hmp: 1 },
    result: { reply: string },
    async call({ host }, args, flags) {
      return { reply: await host.monitorCommand(args.domain.uuid, args.command, flags) };
    },
  }),
];
