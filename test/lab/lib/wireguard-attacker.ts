/** A host that sends what no peer would: floods of messages for a WireGuard port, from many addresses of 198.18.0.0/24. */
import type { LabHost } from './host.js';
import type { Lab } from './lab.js';

/**
 * - `initiation`: random, with a right mac1 (WireGuard paper 5.4.4), which takes no more than the target's public key;
 * - `garbage`: random bytes of random length, every second one with the first bytes of some message;
 * - `replay`: what it is given.
 */
export type Flood =
  | { kind: 'initiation'; publicKey: string }
  | { kind: 'garbage' }
  | { kind: 'replay'; messages: readonly Uint8Array[] };

export interface FloodOptions {
  address: string;
  port: number;
  count: number;
  perSecond: number;
  /** So many at a time. Default 50. */
  burst?: number;
}

/** $1: kind, address, port, count, rate, burst; standard input: the public key, or messages, in hex, one a line. */
const FLOOD = `
import hashlib, os, random, socket, sys, time
kind, address, port, count, rate, burst = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
given = [bytes.fromhex(line) for line in sys.stdin.read().split()]
def initiation():
    message = b'\\1\\0\\0\\0' + os.urandom(112)
    return message + hashlib.blake2s(message, key=key, digest_size=16).digest() + bytes(16)
def garbage():
    length = random.choice([0, 1, 3, 4, 15, 16, 31, 32, 64, 92, 147, 148, 149, 1452, random.randrange(1453)])
    return (bytes([random.randrange(1, 5), 0, 0, 0]) if random.random() < .5 else b'')[:length] + os.urandom(max(0, length - 4))
if kind == 'initiation':
    key = hashlib.blake2s(b'mac1----' + given[0]).digest()
    messages = [initiation() for _ in range(2000)]
else:
    messages = given if kind == 'replay' else [garbage() for _ in range(2000)]
sockets = []
for last in range(256):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('198.18.0.%d' % last, 0))
    s.connect((address, port))
    sockets.append(s)
print('ready', flush=True)
start = time.monotonic()
for i in range(count):
    if i % burst == 0:
        wait = start + i / rate - time.monotonic()
        if wait > 0: time.sleep(wait)
    try: sockets[i % 256].send(messages[i % len(messages)])
    except OSError: pass
print('sent in %.1f s' % (time.monotonic() - start), flush=True)
`;

export interface Attacker {
  /** Returns when it begins; `sent` resolves when all is sent. */
  flood(flood: Flood, options: FloodOptions): Promise<{ sent: Promise<void> }>;
}

/** Cables to both: the attacker is 203.0.113.2 for `here` (203.0.113.1) and 203.0.113.6 for `there` (203.0.113.5). */
export async function startAttacker(lab: Lab, here: LabHost, there: LabHost): Promise<Attacker> {
  const host = await lab.host('attacker');
  await lab.link(here, 'eth1', ['203.0.113.1/30'], host, 'eth0', ['203.0.113.2/30']);
  await lab.link(there, 'eth1', ['203.0.113.5/30'], host, 'eth1', ['203.0.113.6/30']);
  await host.ip('route add local 198.18.0.0/24 dev lo');
  await here.ip('route add 198.18.0.0/24 via 203.0.113.2');
  await there.ip('route add 198.18.0.0/24 via 203.0.113.6');
  return {
    flood: async (flood, { address, port, count, perSecond, burst = 50 }) => {
      const words = [flood.kind, address, ...[port, count, perSecond, burst].map(String)];
      const given =
        flood.kind === 'initiation'
          ? [Buffer.from(flood.publicKey, 'base64')]
          : flood.kind === 'replay'
            ? flood.messages.map((message) => Buffer.from(message))
            : [];
      const input = given.map((bytes) => bytes.toString('hex')).join('\n');
      const process = host.spawn('python3', ['-c', FLOOD, ...words], { input });
      await process.waitFor(/^ready$/m);
      const sent = process.waitFor(/^sent in/m, (count / perSecond + 240) * 1000).then(() => {});
      // Who does not wait for it is not to end by it.
      sent.catch(() => {});
      return { sent };
    },
  };
}
