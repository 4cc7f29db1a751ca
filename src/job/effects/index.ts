// Every kind of step with its effect. A new kind does not compile until it stands here.

import type { Effects } from '../effect.js';
import type { DomainWorld } from '../world.js';
import { takeDevice } from './devices.js';
import {
  createNvram,
  killQemu,
  pauseGuest,
  record,
  resumeGuest,
  signalGuest,
  startQemu,
} from './guest.js';
import { endFuse, startFuse } from './fuse.js';
import { thawGuest } from './freeze.js';
import { trimGuest } from './trim.js';
import { checkImage, copyImage, createImage, recreateImage, removeFile } from './images.js';
import { cancelJob, dismissJobs, sealJob, startCommit, startMirror, waitReady } from './jobs.js';
import { closeNode, openNode } from './nodes.js';
import { arrive, holdImages, letGoImages } from './offline.js';
import { pivot } from './pivot.js';
import { waitPivot } from './wait-pivot.js';
import { waitWindow } from './wait-window.js';
import { rotate } from './rotate.js';
import { closeSealed, seal, stamp } from './seal.js';
import { snapshot } from './snapshot.js';

export const effects: Effects<DomainWorld> = {
  'create-image': createImage,
  'recreate-image': recreateImage,
  'take-device': takeDevice,
  'start-fuse': startFuse,
  'end-fuse': endFuse,
  'open-node': openNode,
  'close-node': closeNode,
  snapshot,
  'start-mirror': startMirror,
  'start-commit': startCommit,
  'wait-ready': waitReady,
  'wait-pivot': waitPivot,
  'wait-window': waitWindow,
  'copy-image': copyImage,
  'check-image': checkImage,
  'hold-images': holdImages,
  arrive,
  'let-go-images': letGoImages,
  pivot,
  'resume-guest': resumeGuest,
  'thaw-guest': thawGuest,
  'trim-guest': trimGuest,
  'pause-guest': pauseGuest,
  'cancel-job': cancelJob,
  'seal-job': sealJob,
  rotate,
  seal,
  'close-sealed': closeSealed,
  stamp,
  'dismiss-jobs': dismissJobs,
  'remove-file': removeFile,
  'create-nvram': createNvram,
  'start-qemu': startQemu,
  'kill-qemu': killQemu,
  'signal-guest': signalGuest,
  record,
};
