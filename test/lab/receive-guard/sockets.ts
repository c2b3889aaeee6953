/** The two programs of the receive guard's test: one with sockets that wait, one that sends to all of them. */

/**
 * Makes every kind of socket for each receiver, sends pings from the ping sockets, and says which sockets got something.
 * setfsuid(2) gives a socket another owner but leaves the right to mark it and to make raw ones.
 */
export const RECEIVER = `
import ctypes, json, select, socket, struct, sys, time
libc = ctypes.CDLL(None)
SO_MARK, SO_BINDTODEVICE, SO_NETNS_COOKIE = 36, 25, 71
V4, V6, DEVICE = '10.9.0.2', 'fd09::2', b'vnic0'

def sockets(number, uid, mark):
    made = {}
    def make(name, family, kind, protocol=0, address=None, device=False):
        libc.setfsuid(uid)
        s = socket.socket(family, kind, protocol)
        libc.setfsuid(0)
        s.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack('I', mark))
        if device: s.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, DEVICE)
        if family == socket.AF_INET6 and kind != socket.SOCK_RAW: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address is not None: s.bind((address, 20000 + 20 * number + len(made)))
        if kind == socket.SOCK_STREAM: s.listen()
        s.setblocking(False)
        made[name] = s
    for family, own, any_, v in ((socket.AF_INET, V4, '0.0.0.0', '4'), (socket.AF_INET6, V6, '::', '6')):
        make('tcp' + v, family, socket.SOCK_STREAM, 0, any_)
        make('tcp-address' + v, family, socket.SOCK_STREAM, 0, own)
        make('udp' + v, family, socket.SOCK_DGRAM, 0, any_)
        make('udp-address' + v, family, socket.SOCK_DGRAM, 0, own)
        make('udp-device' + v, family, socket.SOCK_DGRAM, 0, any_, True)
    make('ping4', socket.AF_INET, socket.SOCK_DGRAM, 1)
    make('ping6', socket.AF_INET6, socket.SOCK_DGRAM, 58)
    make('raw4', socket.AF_INET, socket.SOCK_RAW, 1)
    make('raw6', socket.AF_INET6, socket.SOCK_RAW, 58)
    made['raw6'].setsockopt(socket.IPPROTO_ICMPV6, 1, struct.pack('8I', *([0xffffffff] * 4 + [0xfffffffe] + [0xffffffff] * 3)))
    return made

def got(s):
    try:
        if s.type == socket.SOCK_STREAM: s.accept()[0].close()
        else: s.recv(2048)
        return True
    except BlockingIOError: return False

with socket.socket() as s: print(s.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8).hex(), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if 'receivers' in request:
        receivers = [sockets(number, *each) for number, each in enumerate(request['receivers'])]
        print('made', flush=True)
        continue
    for each in receivers:
        each['ping4'].sendto(b'\\x08\\0\\0\\0\\0\\0\\0\\1ping', ('10.9.0.1', 0))
        each['ping6'].sendto(b'\\x80\\0\\0\\0\\0\\0\\0\\1ping', ('fd09::1', 0))
    # What shall arrive gets all the time it needs, within reason; the rest a moment more.
    end = time.monotonic() + 10
    for each, expected in zip(receivers, request['expected']):
        for name in expected: select.select([each[name]], [], [], max(0, end - time.monotonic()))
    select.select([], [], [], 0.2)
    print(json.dumps([[name for name, s in each.items() if got(s)] for each in receivers]), flush=True)
    for each in receivers:
        for s in each.values(): s.close()
`;

/** The receiver's sockets, in its order. */
const BOUND = ['tcp', 'tcp-address', 'udp', 'udp-address', 'udp-device'];
export const ALL = [
  ...BOUND.map((name) => `${name}4`),
  ...BOUND.map((name) => `${name}6`),
  'ping4',
  'ping6',
  'raw4',
  'raw6',
];

/** Knocks at every port of every receiver, then pings; the answers prove that all before has been dealt with. */
export const SENDER = `
import socket, sys
v4, v6, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
pending = []
for number in range(count):
    for index in range(10):
        family, address = ((socket.AF_INET, v4), (socket.AF_INET6, v6))[index // 5]
        s = socket.socket(family, (socket.SOCK_STREAM, socket.SOCK_DGRAM)[index % 5 > 1])
        s.setblocking(False)
        pending.append(s)
        if s.connect_ex((address, 20000 + 20 * number + index)) == 0: s.send(b'hello')
for family, protocol, request, reply, address in (
    (socket.AF_INET, 1, b'\\x08\\0\\xf7\\xfd\\0\\1\\0\\1', 0, v4), (socket.AF_INET6, 58, b'\\x80\\0\\0\\0\\0\\1\\0\\1', 129, v6)):
    s = socket.socket(family, socket.SOCK_RAW, protocol)
    s.settimeout(5)
    s.sendto(request, (address, 0))
    while True:
        data = s.recv(2048)
        if data[20 if protocol == 1 else 0] == reply: break
    print('answered', flush=True)
# A port nobody listens on: the kernel's reset comes through.
for family, address in ((socket.AF_INET, v4), (socket.AF_INET6, v6)):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(5)
    try: s.connect((address, 9))
    except ConnectionRefusedError: print('refused', flush=True)
`;
