/**
 * The wish for a TUN with segmentation offload. It is no field of VpnConfig, whose fields are the API's: it travels as a mark on
 * the object that setUp is given, and as an option of its own beside the config to the service.
 */
import { BusinessError } from './errors.js';
import { quote } from './quote.js';
import type { VpnConfig } from './vpn-types.js';

/** Registered, so that two copies of this package in one program understand each other. */
const OFFLOAD = Symbol.for('vpn-manager.offload');

/**
 * A copy of the config with which setUp gives a TUN of another form: every read and write begins with a virtio_net_hdr
 * (IFF_VNET_HDR), and one of them may carry a TCP or UDP packet of up to 64 KiB that stands for many. For who segments and
 * coalesces by himself; packets() of `vpn-manager/tunnel` refuses such a descriptor. Copying it with `{...}` keeps the mark.
 *
 * @example const fd = await connection.setUp(withOffload(config));
 */
export function withOffload(config: VpnConfig): VpnConfig {
  const marked: VpnConfig & { [OFFLOAD]?: true } = { ...config };
  marked[OFFLOAD] = true;
  return marked;
}

/** Whether an object comes from withOffload. */
export function isWithOffload(config: object): boolean {
  return (config as { [OFFLOAD]?: unknown })[OFFLOAD] === true;
}

/** The option beside the config, as it comes over the wire. Throws BusinessError 401 for anything but a boolean. */
export function parseOffload(value: unknown): boolean {
  if (value === undefined) return false;
  if (typeof value !== 'boolean') throw new BusinessError(401, 'offload', `${quote(value)} is not a boolean`);
  return value;
}
