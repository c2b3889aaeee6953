/** app.ts with the operations of a prober; ../prober.ts is the other side. */
import { operations } from '../app/operations.js';
import { probeOperations } from './operations.js';

Object.assign(operations, probeOperations);
await import('../app/app.js');
