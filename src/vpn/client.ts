/**
 * This process's one connection to the service: made when first needed, shared by all VpnConnection objects, independent of
 * garbage collection, made anew after the service has gone. It ends with the process, from an exit handler at the latest,
 * so that a read blocked on the TUN returns and the process can end.
 */
import { type Methods, socketPath } from '../ipc/methods.js';
import { ServiceConnection } from '../ipc/service-connection.js';

/** createVpnConnection may take this long to learn whether the caller is a system application. */
const HELLO_TIMEOUT_MS = 250;

let current: ServiceConnection | undefined;

process.on('exit', () => current?.shutdown());

/** The connection, made if there is none. Throws BusinessError 2200002. */
export function serviceConnection(helloTimeoutMs = 0): ServiceConnection {
  const path = socketPath();
  if (current && !current.isClosed && current.path === path) return current;
  const made = new ServiceConnection(path, helloTimeoutMs);
  current = made;
  return made;
}

/**
 * What the service says to this process at first, among it whether the policy counts it as a system application; undefined when it cannot
 * be asked. Asked anew every time, because the policy may have changed since the shared connection said hello.
 */
export function hello(): Methods['hello']['result'] | undefined {
  try {
    if (!current || current.isClosed || current.path !== socketPath()) {
      return serviceConnection(HELLO_TIMEOUT_MS).hello;
    }
    const asked = new ServiceConnection(current.path, HELLO_TIMEOUT_MS);
    asked.shutdown();
    return asked.hello;
  } catch {
    return undefined;
  }
}

const listening = new WeakSet<ServiceConnection>();

/**
 * A VPN that is up keeps the process alive, until it ends: by this process's destroy, or by another one's of the same user,
 * which the service tells.
 */
export function holdWhileUp(service: ServiceConnection, link: string): void {
  service.hold(true);
  service.onEvent = (event) => {
    if (event.type === 'down' && event.link === link) service.hold(false);
  };
  if (listening.has(service)) return;
  listening.add(service);
  service.call('subscribe', {}).catch(() => undefined);
}
