/**
 * The numbers of the API's contract. Exceeding one is 2200001, never 401: the value has the right type. The text lengths
 * are the longest that can still name something (IFNAMSIZ, RFC 1035, RFC 4291), so that a copy cut one character behind
 * them is refused for the same reason as the original.
 */
export const MAX_ADDRESSES = 2000;
export const MAX_ROUTES = 10_000;
export const MAX_DNS_ADDRESSES = 64;
export const MAX_SEARCH_DOMAINS = 64;
export const MAX_APPLICATIONS = 256;

export const MIN_MTU = 576;
/** RFC 8200 section 5: a link that carries IPv6 carries 1280 bytes. */
export const MIN_IPV6_MTU = 1280;
export const MAX_MTU = 65_535;
export const DEFAULT_MTU = 1500;

export const MAX_INTERFACE_LENGTH = 15;
export const MAX_ADDRESS_LENGTH = 45;
export const MAX_DOMAIN_LENGTH = 254;
export const MAX_APPLICATION_LENGTH = 1024;
export const MAX_VPN_ID_LENGTH = 64;
