"""A resolver for one host that says what it was asked, and by which protocol: one line `PROTOCOL NAME` on stdout for each question,
and `PROTOCOL -` for each connection. Answers every question with itself as the answer, which is enough to see that it came.
stub.py ADDRESS PORT ADDRESS PORT…
"""

import selectors
import socket
import sys

IPPROTO_UDPLITE, IPPROTO_MPTCP = 136, 262


def name_in(query):
    labels, at = [], 12
    while at < len(query) and query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    return ".".join(labels)


def say(protocol, name):
    print(protocol, name, flush=True)


def datagram(made, protocol):
    query, client = made.recvfrom(4096)
    say(protocol, name_in(query))
    made.sendto(query, client)


def accept(listener, protocol):
    made, _ = listener.accept()
    say(protocol, "-")
    loop.register(made, selectors.EVENT_READ, (stream, protocol))


def stream(made, protocol):
    try:
        query = made.recv(4096)
        if query:
            say(protocol, name_in(query[2:]))
            made.sendall(query)
            return
    except OSError:
        pass
    loop.unregister(made)
    made.close()


def opened(address, port, kind, number):
    family, _, _, _, name = socket.getaddrinfo(address, port, flags=socket.AI_NUMERICHOST)[0]
    made = socket.socket(family, kind, number)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(name)
    return made


loop = selectors.DefaultSelector()
for address, port in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    for protocol, number in (("udp", 0), ("udplite", IPPROTO_UDPLITE)):
        try:
            made = opened(address, port, socket.SOCK_DGRAM, number)
        except OSError:
            if not number:
                raise
            continue  # a kernel without it
        loop.register(made, selectors.EVENT_READ, (datagram, protocol))
    try:
        made = opened(address, port, socket.SOCK_STREAM, IPPROTO_MPTCP)  # and plain TCP as well
    except OSError:
        made = opened(address, port, socket.SOCK_STREAM, 0)
    made.listen(64)
    loop.register(made, selectors.EVENT_READ, (accept, "tcp"))
print("ready", flush=True)
while True:
    for key, _ in loop.select():
        work, protocol = key.data
        work(key.fileobj, protocol)
