// `import { connect } from 'blockferry'`: all that programs are promised. docs/library.md shows it at work.

export { connect } from './library/ferry.js';
export type { ConnectOptions, Ferry, MoveOptions, OperationRef } from './library/ferry.js';
export {
  BlockferryError,
  Broken,
  Busy,
  Gone,
  NeedsPerson,
  NotReady,
  Refused,
  Unanswered,
  Undone,
} from './library/errors.js';
export type { StreamReadOptions } from './http/client.js';
export type { DoctorReport } from './host/doctor/types.js';
export type {
  BlockJobView,
  DiskView,
  DomainSummary,
  ImageView,
  OperationAnswer,
  OperationProgress,
  OperationView,
  SnapshotView,
  StreamedEvent,
} from './host/ferry-host.js';
export type { GcRemoved, GcReport } from './host/gc/types.js';
export type { MovePlan } from './host/move-plan-view.js';
