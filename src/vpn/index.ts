/** `vpn-manager`: the API. */
export { BusinessError } from '../model/errors.js';
export type {
  Family,
  LinkAddress,
  NetAddress,
  RouteInfo,
  VpnConfig,
} from '../model/vpn-types.js';
export type { AsyncCallback } from './callbacks.js';
export type { VpnConnection } from './connection.js';
export type { AbilityContext } from './vpn.js';
export * as vpn from './vpn.js';
