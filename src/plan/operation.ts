// Every operation that there is, by the name that its plan has. A planner's new one does not compile until it stands
// here, and `docs/operations.md` has a heading for each (its test says so).

/** Name → what it does, in the words of `ferry ops show`. */
export const operations = {
  define: 'makes a definition known',
  undefine: 'forgets a definition; the images stay',
  autostart: 'says whether a domain starts with its host',
  start: 'starts a domain',
  create: 'starts a transient domain',
  destroy: 'ends QEMU at once',
  seal: 'ends mirrors with both sides equal, then QEMU',
  'stop (shutdown)': 'clears up after a guest that powered off',
  'stop (crashed)': 'makes known that QEMU is gone',
  'stop (failed)': 'makes known that QEMU could not be started',
  shutdown: 'asks the guest to power off',
  reboot: 'asks the guest to power off and come up again',
  'reboot (restart)': 'lets a guest that powered off come up again in the same QEMU',
  reset: 'resets the guest',
  suspend: 'stops the CPUs of the guest',
  resume: 'lets the guest go on',
  'snapshot-create': 'puts a new layer on each disk',
  'snapshot-create (mirrored)':
    'puts a new layer on each disk and keeps a copy of it in step elsewhere',
  'snapshot-redefine': 'changes what is kept of a snapshot',
  'snapshot-delete (reopen-mirror)': 'switches the disks over to their mirrors',
  'snapshot-delete (remove-mirror)': 'drops the mirrors; the guest stays where it is',
  'snapshot-delete (metadata)': 'forgets a snapshot; its images and mirrors stay',
  'blockjob (pivot)': 'switches a disk over to its copy',
  'blockjob (abort)': 'ends the copy of a disk; the guest stays where it is',
  'mirror lost': 'clears up after a mirror that failed; the guest stays where it is',
  'mirror-attach': 'takes up mirrors again that ended with their QEMU',
  rotate: 'puts a fresh layer on the disks of a move',
  move: 'moves disks to another place while the guest runs',
  'undo-window': 'keeps the old side of a move exact, so that there is a way back',
  'undo-window (close)': 'ends the way back of a move: what was written since goes into the copies',
  undo: 'takes a move back: its disks switch to where they were',
  'undo (ask)': 'has the way back of a move gone that is kept open',
  'delete-source': 'deletes the source of a move, as was asked for',
  gc: 'removes files that we left and nobody uses',
} as const satisfies Readonly<Record<string, string>>;

export type OperationName = keyof typeof operations;
