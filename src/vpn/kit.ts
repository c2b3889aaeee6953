/**
 * What `@kit.NetworkKit`, `@kit.AbilityKit` and `@kit.BasicServicesKit` export, as far as it exists here. One module stands
 * for all three, so that `vpn-manager/register` can put it in place of any of them. For the compiler, `"types":
 * ["vpn-manager/kit"]` or one import of it declares the three names and `@ohos.net.vpn`.
 */
/// <reference path="./kit-modules.d.ts" preserve="true" />
export { BusinessError } from '../model/errors.js';
export type { AsyncCallback, Callback, ErrorCallback } from './callbacks.js';
export * as common from './common.js';
export * as socket from './socket.js';
export * as vpn from './vpn.js';
