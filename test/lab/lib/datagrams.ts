/** UDP datagrams whose content follows from a number, from one host of the lab to another, and whether each arrived as sent. */
import type { LabHost } from './host.js';

/** $1: address, $2: port; content of `bytes` bytes of datagram `number`. */
const COMMON = `
import hashlib, json, socket, sys, time
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
def content(number, size): return hashlib.shake_128(b'%d' % number).digest(size)
s = socket.socket(family, socket.SOCK_DGRAM)
`;

/** $3: sizes in JSON. The number of a datagram is its place in the list. */
const SEND = `${COMMON}
s.connect((sys.argv[1], int(sys.argv[2])))
for number, size in enumerate(json.loads(sys.argv[3])):
    s.send(content(number, size))
    if number % 40 == 39: time.sleep(0.002)
`;

/** $3: bytes of a segment, $4: segments of a send, $5: sends. The last segment of each send is shorter. */
const SEND_SEGMENTS = `${COMMON}
segment, count, sends = map(int, sys.argv[3:6])
SOL_UDP, UDP_SEGMENT = 17, 103
s.setsockopt(SOL_UDP, UDP_SEGMENT, segment)
s.connect((sys.argv[1], int(sys.argv[2])))
for send in range(sends):
    s.send(b''.join(content(send * count + k, segment if k < count - 1 else (segment + 1) // 2) for k in range(count)))
    time.sleep(0.003)
`;

/** $3: sizes in JSON. Says how many arrived in order, which are missing, and which are none of those that were sent. */
const RECEIVE = `${COMMON}
SO_RCVBUFFORCE = 33
try: s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
except PermissionError: s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
s.bind((sys.argv[1], int(sys.argv[2])))
sizes = json.loads(sys.argv[3])
numbers = {content(number, size): number for number, size in enumerate(sizes) if size > 3}
short = [number for number, size in enumerate(sizes) if size <= 3]
print('ready', flush=True)
s.settimeout(5)
seen, wrong = [], 0
while len(seen) + wrong < len(sizes):
    try: data = s.recv(1 << 17)
    except TimeoutError: break
    s.settimeout(1)
    number = numbers.get(data)
    if number is None: number = next((n for n in short if n not in seen and content(n, sizes[n]) == data), None)
    if number is None: wrong += 1
    else: seen.append(number)
missing = sorted(set(range(len(sizes))) - set(seen))
print(json.dumps({'missing': [sizes[n] for n in missing], 'wrong': wrong, 'inOrder': seen == sorted(seen), 'twice': len(seen) - len(set(seen))}), flush=True)
`;

export interface Arrived {
  /** Sizes of those that did not arrive. */
  missing: number[];
  /** How many arrived that were never sent. */
  wrong: number;
  inOrder: boolean;
  twice: number;
}

export const ALL_ARRIVED: Arrived = { missing: [], wrong: 0, inOrder: true, twice: 0 };

let port = 7400;

/** One datagram of each size, in this order. */
export function sendDatagrams(from: LabHost, to: LabHost, address: string, sizes: readonly number[]): Promise<Arrived> {
  return carry(to, address, sizes, (words) => from.run('python3', ['-c', SEND, ...words, JSON.stringify(sizes)]));
}

/** With UDP_SEGMENT (udp(7)): each send is `count` datagrams of `segmentBytes`, the last of half the size. */
export function sendSegments(
  from: LabHost,
  to: LabHost,
  address: string,
  { segmentBytes, count, sends }: { segmentBytes: number; count: number; sends: number },
): Promise<Arrived> {
  const sizes = Array.from({ length: sends * count }, (_, index) =>
    index % count === count - 1 ? Math.ceil(segmentBytes / 2) : segmentBytes,
  );
  return carry(to, address, sizes, (words) =>
    from.run('python3', ['-c', SEND_SEGMENTS, ...words, ...[segmentBytes, count, sends].map(String)]),
  );
}

async function carry(
  to: LabHost,
  address: string,
  sizes: readonly number[],
  send: (words: string[]) => Promise<unknown>,
): Promise<Arrived> {
  const words = [address, String(++port)];
  const receiving = to.spawn('python3', ['-c', RECEIVE, ...words, JSON.stringify(sizes)]);
  await receiving.waitFor(/^ready$/m);
  await send(words);
  const [line] = await receiving.waitFor(/^\{.*\}$/m, 30_000);
  return JSON.parse(line) as Arrived;
}
