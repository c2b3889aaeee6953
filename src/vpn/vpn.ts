/** The namespace `vpn` of `@ohos.net.vpn`: its function, and its types as the document writes them. */
import { BusinessError } from '../model/errors.js';
import { hello } from './client.js';
import { VpnConnection } from './connection.js';

export type { LinkAddress, NetAddress, RouteInfo, VpnConfig } from '../model/vpn-types.js';
export type { VpnConnection } from './connection.js';

/** Any object will do; nothing in it is trusted. */
export type AbilityContext = object;

/**
 * Makes an object to set up, protect and destroy with. Asks the service once, for at most 250 ms, whether the caller is a
 * system application. Throws BusinessError 401, or 202 when it is not; a service that cannot be reached is no error here.
 *
 * @example const connection = vpn.createVpnConnection({});
 */
export function createVpnConnection(context: AbilityContext): VpnConnection;
export function createVpnConnection(...args: unknown[]): VpnConnection {
  const [context] = args;
  if (args.length !== 1) throw new BusinessError(401, 'context', `${args.length} arguments instead of 1`);
  if (typeof context !== 'object' || context === null) throw new BusinessError(401, 'context', 'is not an object');
  const said = hello();
  if (said?.isSystem === false) {
    // A service from before an update says no reason.
    const reason = said.reason ?? `uid ${process.getuid?.()} is no system application under the policy`;
    throw new BusinessError(202, undefined, reason);
  }
  return new VpnConnection();
}
