/** The service inside a Worker: the thread side of startService(). Talks to the starter in four words. */
import { parentPort, workerData } from 'node:worker_threads';
import { checkFacilities } from './facilities.js';
import { createLog, describeError, type LogLevel } from './log.js';
import { Service } from './service.js';

/** What startService() hands over. */
export interface ServiceWorkerData {
  socket: string;
  stateDir: string;
  policyFile: string | undefined;
  logLevel: LogLevel;
  /** Becomes 1 when the service has ended; the starter's thread may be waiting for it. */
  ended: Int32Array;
}

export type FromWorker =
  | { kind: 'ready'; wakeFd: number }
  | { kind: 'failed'; message: string }
  | { kind: 'log'; line: string };
export type ToWorker = 'reload' | 'close';

async function run(data: ServiceWorkerData): Promise<void> {
  const post = (message: FromWorker): void => parentPort?.postMessage(message);
  const tellEnded = (): void => {
    Atomics.store(data.ended, 0, 1);
    Atomics.notify(data.ended, 0);
  };
  const log = createLog(data.logLevel, (line) => post({ kind: 'log', line }));
  try {
    checkFacilities();
    const service = await Service.start({ ...data, log });
    parentPort?.on('message', (word: ToWorker) => {
      if (word === 'reload') void service.reload();
      else
        service
          .close()
          .then(
            () => parentPort?.close(),
            (error) => post({ kind: 'failed', message: describeError(error) }),
          )
          .finally(tellEnded);
    });
    post({ kind: 'ready', wakeFd: service.wakeFd });
  } catch (error) {
    post({ kind: 'failed', message: describeError(error) });
    parentPort?.close();
  }
}

if (parentPort && workerData && typeof workerData.stateDir === 'string') await run(workerData as ServiceWorkerData);
