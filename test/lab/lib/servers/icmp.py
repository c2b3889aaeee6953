"""Answers pings (RFC 792, RFC 4443) with `NAME SOURCE`, so that it shows which host was reached and whom it saw. The kernel's
own answers are to be off (icmp_echo_ignore_all). Every address of the host; prints `ready`. icmp.py NAME"""

import selectors
import socket
import struct
import sys

REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
IP_PKTINFO = 8
IPV6_PKTINFO = 50


def checksum(data):
    words = struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2])
    total = sum(words) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def open_socket(family):
    if family == socket.AF_INET:
        made = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        made.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    else:
        made = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    return made


def answer(own, family, name):
    data, controls, _, client = own.recvmsg(2048, 256)
    if family == socket.AF_INET:
        data = data[(data[0] & 15) * 4 :]  # a raw IPv4 socket gives the header too
    if len(data) < 8 or data[0] != REQUEST[family]:
        return
    payload = f"{name} {client[0].split('%')[0]}".encode()
    head = struct.pack("!BBH", REPLY[family], 0, 0)
    if family == socket.AF_INET:
        head = struct.pack("!BBH", REPLY[family], 0, checksum(head + data[4:8] + payload))
        # in_pktinfo: the address that was asked is to answer
        control = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4x", 0, controls[0][2][8:12]))
    else:
        index = struct.unpack("=I", controls[0][2][16:20])[0] if client[0].startswith("fe80") else 0
        control = (socket.IPPROTO_IPV6, IPV6_PKTINFO, controls[0][2][:16] + struct.pack("=I", index))
    try:
        own.sendmsg([head + data[4:8] + payload], [control], 0, client)
    except OSError:
        pass  # no way back


selector = selectors.DefaultSelector()
for each in REQUEST:
    selector.register(open_socket(each), selectors.EVENT_READ, each)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        answer(key.fileobj, key.data, sys.argv[1])
