/**
 * The fields of an IP packet that a tunnel looks at (RFC 791 section 3.1, RFC 8200 section 3). Everything else is between the
 * two hosts that talk through it.
 *
 *   IPv4   0 version, header length │ 2 total length (2) │ 12 source (4) │ 16 destination (4) │ 20
 *   IPv6   0 version │ 4 payload length (2) │ 8 source (16) │ 24 destination (16) │ 40
 */
export const IPV4_SOURCE = 12;
export const IPV4_DESTINATION = 16;
export const IPV6_SOURCE = 8;
export const IPV6_DESTINATION = 24;
const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;

/** 4 or 6; 0 when `length` bytes at `offset` cannot be an IP packet's header. */
export function ipVersion(memory: Uint8Array, offset: number, length: number): number {
  if (length < IPV4_HEADER_BYTES) return 0;
  const version = (memory[offset] as number) >>> 4;
  if (version === 4) return 4;
  return version === 6 && length >= IPV6_HEADER_BYTES ? 6 : 0;
}

/**
 * How long the packet says it is; 0 when it says more than the `length` bytes that are there, or less than its header. For a
 * packet for which ipVersion() was `version`.
 */
export function ipPacketLength(memory: Uint8Array, offset: number, length: number, version: number): number {
  const field = offset + (version === 4 ? 2 : 4);
  const says = ((memory[field] as number) << 8) | (memory[field + 1] as number);
  const total = version === 4 ? says : says + IPV6_HEADER_BYTES;
  return total >= IPV4_HEADER_BYTES && total <= length ? total : 0;
}
