/**
 * What a user sends to itself through a mirror in the tunnel: megabytes by TCP, and by UDP what one UDP_SEGMENT send has. Says in
 * JSON what arrived. $1: the TUN's address, $2: an address beyond it, both of one family.
 */
export const TRAFFIC = `
import hashlib, json, socket, sys, threading
own, far = sys.argv[1:]
family = socket.AF_INET6 if ':' in own else socket.AF_INET
SOL_UDP, UDP_SEGMENT = 17, 103
BYTES, SEGMENT, SEGMENTS = 8 * 1024 * 1024, 1200, 40
data = b''.join(hashlib.sha256(str(n).encode()).digest() for n in range(BYTES // 32))

server = socket.socket(family, socket.SOCK_STREAM)
server.bind((own, 0)); server.listen(); server.settimeout(30)
received = hashlib.sha256()
def serve():
    peer, _ = server.accept()
    peer.settimeout(30)
    while some := peer.recv(1 << 20): received.update(some)
thread = threading.Thread(target=serve, daemon=True); thread.start()
client = socket.socket(family, socket.SOCK_STREAM); client.settimeout(30)
client.connect((far, server.getsockname()[1]))
client.sendall(data); client.shutdown(socket.SHUT_WR)
thread.join(40)

sink = socket.socket(family, socket.SOCK_DGRAM); sink.bind((own, 0)); sink.settimeout(10)
source = socket.socket(family, socket.SOCK_DGRAM); source.connect((far, sink.getsockname()[1]))
source.setsockopt(SOL_UDP, UDP_SEGMENT, SEGMENT)
source.send(data[:SEGMENT * SEGMENTS])
datagrams = [sink.recv(65536) for _ in range(SEGMENTS)]
print(json.dumps({
    'tcp': received.digest() == hashlib.sha256(data).digest(),
    'udp': [len(each) for each in datagrams] == [SEGMENT] * SEGMENTS and b''.join(datagrams) == data[:SEGMENT * SEGMENTS],
}))
`;
