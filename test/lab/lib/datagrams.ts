/** UDP datagrams whose content follows from a number, from one host of the lab to another, and whether each arrived as sent. */
import type { LabHost } from './host.js';

/** $1: address, $2: port, $3: a path both hosts see; content of `bytes` bytes of datagram `number`. */
const COMMON = `
import hashlib, json, socket, sys, threading, time
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
def content(number, size): return hashlib.shake_128(b'%d' % number).digest(size)
s = socket.socket(family, socket.SOCK_DGRAM)
control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
`;

/** Beside the network the receiver says when what was sent so far is there: a busy machine shall lose nothing. */
const SENDING = `
s.connect((sys.argv[1], int(sys.argv[2])))
control.connect(sys.argv[3])
def sync(number):
    control.sendall(number.to_bytes(4, 'big'))
    control.recv(1)
`;

/** $4: sizes in JSON. The number of a datagram is its place in the list. */
const SEND = `${COMMON}${SENDING}
sizes = json.loads(sys.argv[4])
for number, size in enumerate(sizes):
    s.send(content(number, size))
    if number % 40 == 39 or number == len(sizes) - 1: sync(number + 1)
`;

/** $4: bytes of a segment, $5: segments of a send, $6: sends. The last segment of each send is shorter. */
const SEND_SEGMENTS = `${COMMON}${SENDING}
segment, count, sends = map(int, sys.argv[4:7])
SOL_UDP, UDP_SEGMENT = 17, 103
s.setsockopt(SOL_UDP, UDP_SEGMENT, segment)
for send in range(sends):
    s.send(b''.join(content(send * count + k, segment if k < count - 1 else (segment + 1) // 2) for k in range(count)))
    sync((send + 1) * count)
`;

/**
 * $4: sizes in JSON, $5: seconds in JSON. Says how many arrived in order, which are missing, and which are none of those that were sent.
 * What is not there when nothing has come for a while is taken for lost: the first when more is to be sent, the second at the end.
 */
const RECEIVE = `${COMMON}
SO_RCVBUFFORCE = 33
try: s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
except PermissionError: s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
s.bind((sys.argv[1], int(sys.argv[2])))
sizes = json.loads(sys.argv[4])
meanwhile, end = json.loads(sys.argv[5])
numbers = {content(number, size): number for number, size in enumerate(sizes) if size > 3}
short = [number for number, size in enumerate(sizes) if size <= 3]
control.bind(sys.argv[3])
control.listen(1)
print('ready', flush=True)
sender = control.accept()[0]
seen, wrong, last = [], 0, 0
news = threading.Condition()
# It waits in recv(2): poll(2) would look at checksums before, and count wrong ones elsewhere.
def receive():
    global wrong, last
    while True:
        data = s.recv(1 << 17)
        with news:
            number = numbers.get(data)
            if number is None: number = next((n for n in short if n not in seen and content(n, sizes[n]) == data), None)
            if number is None: wrong += 1
            else: seen.append(number)
            last = time.monotonic()
            news.notify()
threading.Thread(target=receive, daemon=True).start()
while question := sender.recv(4):
    asked = int.from_bytes(question, 'big')
    patience = end if asked == len(sizes) else meanwhile
    with news:
        last = time.monotonic()
        while len(seen) + wrong < asked and (left := last + patience - time.monotonic()) > 0: news.wait(left)
    sender.sendall(b'.')
    if asked == len(sizes): break
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

const PATIENT = { timeoutMs: 60_000 };
/** Who sends on while the tunnel stands still fills its queue; but what is to be lost shall not be waited for long. */
const PATIENCE_S = { whole: [20, 20], damaged: [0.1, 3] } as const;
type Kind = keyof typeof PATIENCE_S;

let port = 7400;

/** One datagram of each size, in this order. */
export function sendDatagrams(
  from: LabHost,
  to: LabHost,
  address: string,
  sizes: readonly number[],
  kind: Kind = 'whole',
): Promise<Arrived> {
  return carry(to, address, sizes, kind, (words) =>
    from.run('python3', ['-c', SEND, ...words, JSON.stringify(sizes)], PATIENT),
  );
}

/** With UDP_SEGMENT (udp(7)): each send is `count` datagrams of `segmentBytes`, the last of half the size. */
export function sendSegments(
  from: LabHost,
  to: LabHost,
  address: string,
  { segmentBytes, count, sends }: { segmentBytes: number; count: number; sends: number },
  kind: Kind = 'whole',
): Promise<Arrived> {
  const sizes = Array.from({ length: sends * count }, (_, index) =>
    index % count === count - 1 ? Math.ceil(segmentBytes / 2) : segmentBytes,
  );
  return carry(to, address, sizes, kind, (words) =>
    from.run('python3', ['-c', SEND_SEGMENTS, ...words, ...[segmentBytes, count, sends].map(String)], PATIENT),
  );
}

async function carry(
  to: LabHost,
  address: string,
  sizes: readonly number[],
  kind: Kind,
  send: (words: string[]) => Promise<unknown>,
): Promise<Arrived> {
  const words = [address, String(++port), `${to.directory}/datagrams-${port}`];
  const last = [sizes, PATIENCE_S[kind]].map((each) => JSON.stringify(each));
  const receiving = to.spawn('python3', ['-c', RECEIVE, ...words, ...last]);
  await receiving.waitFor(/^ready$/m);
  await send(words);
  const [line] = await receiving.waitFor(/^\{.*\}$/m, 60_000);
  return JSON.parse(line) as Arrived;
}
