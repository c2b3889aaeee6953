/** A QuickFile as text that wg-quick(8) and `parseQuickFile` read. It has the private key in it: for the owner's file only. */
import {
  type At,
  prefixText,
  type QuickEndpoint,
  type QuickFile,
  type QuickInterface,
  type QuickPeer,
} from './quick-file.js';

/** Comments are lost. `parseQuickFile` of the result gives the same file, but for line numbers. */
export function printQuickFile({ interface: own, peers }: QuickFile): string {
  return `${[printInterface(own), ...peers.map(printPeer)].map((lines) => `${lines.join('\n')}\n`).join('\n')}`;
}

function printInterface(own: QuickInterface): string[] {
  const dns = [...own.dnsServers, ...own.searchDomains];
  return [
    '[Interface]',
    ...(own.privateKey ? [`PrivateKey = ${base64(own.privateKey.value)}`] : []),
    ...optional('ListenPort', own.listenPort),
    ...optional('FwMark', own.fwMark),
    ...own.addresses.map(({ value }) => `Address = ${prefixText(value)}`),
    ...dns.map(({ value }) => `DNS = ${value}`),
    ...optional('MTU', own.mtu),
    ...(own.table === 'off' ? ['Table = off'] : []),
    ...own.hooks.preUp.map(({ value }) => `PreUp = ${value}`),
    ...own.hooks.postUp.map(({ value }) => `PostUp = ${value}`),
    ...own.hooks.preDown.map(({ value }) => `PreDown = ${value}`),
    ...own.hooks.postDown.map(({ value }) => `PostDown = ${value}`),
    ...(own.saveConfig ? ['SaveConfig = true'] : []),
  ];
}

function printPeer(peer: QuickPeer): string[] {
  return [
    '[Peer]',
    `PublicKey = ${base64(peer.publicKey.value)}`,
    ...(peer.presharedKey ? [`PresharedKey = ${base64(peer.presharedKey.value)}`] : []),
    ...(peer.allowedIps.length > 0
      ? [`AllowedIPs = ${peer.allowedIps.map(({ value }) => prefixText(value)).join(', ')}`]
      : []),
    ...(peer.endpoint ? [`Endpoint = ${endpointText(peer.endpoint.value)}`] : []),
    ...(peer.persistentKeepaliveSeconds > 0 ? [`PersistentKeepalive = ${peer.persistentKeepaliveSeconds}`] : []),
  ];
}

/** @example endpointText({ host: 'fe80::1', port: 51820, zone: 'eth0' }) // '[fe80::1%eth0]:51820' */
export function endpointText({ host, port, zone }: QuickEndpoint): string {
  const scoped = zone === undefined ? host : `${host}%${zone}`;
  return host.includes(':') ? `[${scoped}]:${port}` : `${host}:${port}`;
}

function optional(key: string, field: At<number> | undefined): string[] {
  return field ? [`${key} = ${field.value}`] : [];
}

function base64(key: Uint8Array): string {
  return Buffer.from(key).toString('base64');
}
