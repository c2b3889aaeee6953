/** What a call has at hand. */
import type { VpnHost } from '../host/vpn-host.js';
import type { Methods } from '../ipc/methods.js';
import type { Events } from './events.js';
import type { Log } from './log.js';
import type { Policy } from './policy.js';
import type { Registry } from './registry.js';
import type { Session } from './session.js';

export interface ServiceContext {
  host: VpnHost;
  registry: Registry;
  events: Events;
  /** The policy of this moment. */
  policy(): Policy;
  /** Reads the policy again. */
  reload(): Promise<Methods['reload']['result']>;
  log: Log;
  /** Sends, and ends a session that does not take what is sent. */
  send(session: Session, message: object): void;
}
