/**
 * A wg-quick file from text to QuickFile: all keys of [Interface] and [Peer] (wg-quick(8), wg(8)). What goes beyond bringing up a
 * VPN is refused with the reason: routing tables and marks are vpnd's, and a file that somebody was sent must not run commands
 * or be written over unless the user says so.
 */
import { EX_CONFIG, EX_DATAERR, FileProblem, type Refuse } from './problem.js';
import { checkQuickFile } from './quick-check.js';
import { type Hook, prefixText, type QuickFile, type QuickInterface, type QuickPeer } from './quick-file.js';
import { type Key, type Section, splitSections } from './quick-lines.js';
import {
  parseAddress,
  parseAllowedIp,
  parseBoolean,
  parseDns,
  parseEndpoint,
  parseFwMark,
  parseKeepalive,
  parseKey,
  parseMtu,
  parsePort,
  parseTable,
  splitAllowedIps,
} from './quick-values.js';

export interface QuickOptions {
  /** Takes PreUp, PostUp, PreDown, PostDown and SaveConfig, which otherwise are refused (78). */
  readonly allowHooks: boolean;
}

const HOOKS: Readonly<Record<Hook, Key>> = {
  preUp: 'PreUp',
  postUp: 'PostUp',
  preDown: 'PreDown',
  postDown: 'PostDown',
};

/**
 * Throws FileProblem, and nothing else, for the first thing that is wrong: 65 for content that is wrong by itself, 78 for what
 * cannot be set up here. `path` is only for messages.
 *
 * @example parseQuickFile('[Interface]\nPrivateKey = …\nAddress = 10.0.0.2/24', 'office.conf', { allowHooks: false })
 */
export function parseQuickFile(text: string, path: string, options: QuickOptions): QuickFile {
  const sections = splitSections(text, path);
  const file: QuickFile = {
    path,
    interface: parseInterface(sections.interface, path, options),
    peers: sections.peers.map((section) => parsePeer(section, path)),
  };
  checkQuickFile(file);
  return file;
}

function parseInterface(section: Section, path: string, { allowHooks }: QuickOptions): QuickInterface {
  const dns = section.list('DNS', parseDns);
  const addresses = section.list('Address', parseAddress);
  if (addresses.length === 0)
    missing(path, section, '[Interface] has no Address; a VPN needs one, such as 10.0.0.2/32');
  const privateKey = section.single('PrivateKey', parseKey);
  const command = hookParser(allowHooks);
  const postUp = section.each(HOOKS.postUp, command);
  // A command that runs when the tunnel does may set one: until then it is silent.
  if (privateKey === undefined && postUp.length === 0)
    missing(path, section, '[Interface] has no PrivateKey; `vpnctl wg genkey` makes one');
  return {
    line: section.line,
    privateKey,
    listenPort: section.single('ListenPort', parsePort),
    fwMark: section.single('FwMark', parseFwMark),
    addresses,
    dnsServers: dns.flatMap(({ value, line }) => ('server' in value ? [{ value: value.server, line }] : [])),
    searchDomains: dns.flatMap(({ value, line }) => ('domain' in value ? [{ value: value.domain, line }] : [])),
    mtu: section.single('MTU', parseMtu),
    table: section.single('Table', parseTable)?.value ?? 'auto',
    hooks: {
      preUp: section.each(HOOKS.preUp, command),
      postUp,
      preDown: section.each(HOOKS.preDown, command),
      postDown: section.each(HOOKS.postDown, command),
    },
    saveConfig: section.single('SaveConfig', saveConfigParser(allowHooks))?.value ?? false,
  };
}

function parsePeer(section: Section, path: string): QuickPeer {
  const publicKey = section.single('PublicKey', parseKey);
  const prefixes = section.list('AllowedIPs', parseAllowedIp, splitAllowedIps);
  return {
    line: section.line,
    publicKey: publicKey ?? missing(path, section, '[Peer] has no PublicKey; ask the other side for it'),
    presharedKey: section.single('PresharedKey', parseKey),
    allowedIps: [...new Map(prefixes.map((prefix) => [prefixText(prefix.value), prefix])).values()],
    endpoint: section.single('Endpoint', parseEndpoint),
    persistentKeepaliveSeconds: section.single('PersistentKeepalive', parseKeepalive)?.value ?? 0,
  };
}

function hookParser(allowHooks: boolean): (text: string, refuse: Refuse) => string {
  return (text, refuse) => {
    if (!allowHooks)
      refuse('runs a command, which a file may not do by itself; remove it or use --allow-hooks', EX_CONFIG);
    return text;
  };
}

function saveConfigParser(allowHooks: boolean): (text: string, refuse: Refuse) => boolean {
  return (text, refuse) => {
    const saves = parseBoolean(text, refuse);
    if (saves && !allowHooks) refuse('would write over this file; remove it or use --allow-hooks', EX_CONFIG);
    return saves;
  };
}

function missing(path: string, { line }: Section, reason: string): never {
  throw new FileProblem(EX_DATAERR, path, line, reason);
}
