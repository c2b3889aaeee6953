/** This tunnel in a host of the lab, to be used like a wireguard-go (wireguard-go.ts); the process is tunnel-end.ts. */
import type { DeviceChange, PeerChange } from '../../../src/tunnel/wireguard/device-config.js';
import type { WireGuardStatus } from '../../../src/tunnel/wireguard-tunnel.js';
import type { LabHost } from './host.js';
import type { LabProcess } from './process.js';
import { decodeBytes, encodeBytes, type TunnelEndRequest } from './tunnel-end-protocol.js';
import { type WireGuardKeys, type WireGuardPeer, wireGuardKeys } from './wireguard-go.js';

export interface OurTunnelOptions {
  /** Default: new ones. */
  keys?: WireGuardKeys;
  /** Default: one that is free. */
  listenPort?: number;
  /** Default 1420. */
  mtu?: number;
  /** With prefix lengths. */
  addresses?: readonly string[];
  peers?: readonly WireGuardPeer[];
  /** Default true: what peers are allowed is routed into the interface. */
  routes?: boolean;
  /** Default true: a TUN with segmentation offload. */
  offload?: boolean;
  /** Before the script's name, such as --cpu-prof. */
  nodeOptions?: readonly string[];
}

export interface OurTunnel extends WireGuardKeys {
  readonly host: LabHost;
  readonly name: string;
  readonly process: LabProcess;
  /** Changes with move(). */
  readonly listenPort: number;
  addPeers(...peers: WireGuardPeer[]): Promise<void>;
  configure(change: DeviceChange): Promise<void>;
  status(): Promise<WireGuardStatus>;
  /** To another UDP port; 0: one that is free. */
  move(port?: number): Promise<void>;
  stop(): Promise<void>;
}

const SCRIPT = 'dist/test/lab/lib/tunnel-end.js';

/** Returns when the interface is up with its addresses and routes. */
export async function startOurTunnel(host: LabHost, name: string, options: OurTunnelOptions = {}): Promise<OurTunnel> {
  const { keys = wireGuardKeys(), mtu = 1420, addresses = [], peers = [], routes = true, nodeOptions = [] } = options;
  const [first = SCRIPT, ...rest] = [...nodeOptions, SCRIPT];
  const process = host.spawnNode(
    first,
    rest.map((word) => (word === SCRIPT ? host.path(word) : word)),
  );
  const ask = requester(process);
  const open = { command: 'open', name, port: options.listenPort ?? 0, offload: options.offload ?? true } as const;
  let { port: listenPort } = (await ask(open)) as { port: number };
  await host.ip(`link set ${name} mtu ${mtu}`);
  await host.configure(name, addresses);
  const privateKey = bytes(keys.privateKey);
  await ask({ command: 'start', mtu, change: { privateKey, peers: peers.map(peerChange) } });
  const route = async (added: readonly WireGuardPeer[]) => {
    const allowed = added.flatMap(({ allowedIps }) => allowedIps);
    if (routes && allowed.length > 0) await host.ip(...allowed.map((each) => `route replace ${each} dev ${name}`));
  };
  await route(peers);
  return {
    ...keys,
    host,
    name,
    process,
    get listenPort() {
      return listenPort;
    },
    addPeers: async (...added) => {
      await ask({ command: 'configure', change: { peers: added.map(peerChange) } });
      await route(added);
    },
    configure: async (change) => {
      await ask({ command: 'configure', change });
    },
    status: async () => (await ask({ command: 'status' })) as WireGuardStatus,
    move: async (port = 0) => {
      ({ port: listenPort } = (await ask({ command: 'move', port })) as { port: number });
    },
    stop: async () => {
      await ask({ command: 'close' });
      await process.exited;
    },
  };
}

function requester(process: LabProcess): (request: TunnelEndRequest) => Promise<unknown> {
  let last = 0;
  return async (request) => {
    const number = ++last;
    process.write(`${encodeBytes({ number, ...request })}\n`);
    const [line] = await process.waitFor(new RegExp(`^\\{"number":${number},.*$`, 'm'));
    const { value, error } = decodeBytes(line) as { value?: unknown; error?: string };
    if (error !== undefined) throw new Error(`${request.command}: ${error}`);
    return value;
  };
}

/** As DeviceChange has it. */
export function peerChange(peer: WireGuardPeer): PeerChange {
  const { publicKey, presharedKey, endpoint, allowedIps, persistentKeepalive } = peer;
  const [, address = '', port = ''] = /^\[?(.*?)\]?:(\d+)$/.exec(endpoint ?? '') ?? [];
  return {
    publicKey: bytes(publicKey),
    ...(presharedKey === undefined ? {} : { presharedKey: bytes(presharedKey) }),
    ...(endpoint === undefined ? {} : { endpoint: { address, port: Number(port) } }),
    ...(persistentKeepalive === undefined ? {} : { persistentKeepaliveSeconds: persistentKeepalive }),
    allowedIps: [...allowedIps],
  };
}

function bytes(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, 'base64'));
}
