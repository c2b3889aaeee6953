"""Sends packets past the routing by every way a socket has, one JSON object a line on stdin, and prints for each `ok` or the
errno's name. Nothing waits for an answer: the link is where one looks. Started by root, because not every user can run every
python3; becomes the user by itself. escape.py UID [raw], with `raw` keeping CAP_NET_RAW.

{"way": "udp", "target", "port"} and more of these, each an option of the socket or of the datagram:
  device (SO_BINDTODEVICE), index (SO_BINDTOIFINDEX), unicast (IP_UNICAST_IF), source (bind), pktinfo: [address, device],
  free (IP_FREEBIND), transparent (IP_TRANSPARENT), dontroute (SO_DONTROUTE), broadcast (SO_BROADCAST),
  mapped (an IPv4 address on an IPv6 socket)
{"way": "lite"} likewise, a datagram of UDP-Lite; {"way": "tcp"} a SYN; {"way": "fast"} a SYN with data (MSG_FASTOPEN)
{"way": "raw", "header": whole IP packet in hexadecimal} and {"way": "raw", "protocol", "data"}, by raw(7)
{"way": "packet", "device", "frame", "protocol" (sll_protocol), "cooked" (SOCK_DGRAM), "station", "bypass" (PACKET_QDISC_BYPASS)}
"""

import ctypes
import errno
import json
import os
import socket
import struct
import sys

IP_FREEBIND, IP_TRANSPARENT, IP_PKTINFO, IP_UNICAST_IF = 15, 19, 8, 50
IPV6_FREEBIND, IPV6_TRANSPARENT, IPV6_PKTINFO, IPV6_UNICAST_IF = 78, 75, 50, 76
SO_BINDTOIFINDEX, SOL_PACKET, PACKET_QDISC_BYPASS, MSG_FASTOPEN = 62, 263, 20, 0x20000000


def is6(address):
    return ":" in address


def opened(given, kind):
    target = given["target"]
    six = is6(target) or given.get("mapped", False)
    protocol = given.get("protocol", 255 if kind == socket.SOCK_RAW else 0)
    made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind, protocol)
    made.setblocking(False)
    level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
    if given.get("free"):
        made.setsockopt(level, IPV6_FREEBIND if six else IP_FREEBIND, 1)
    if given.get("transparent"):
        made.setsockopt(level, IPV6_TRANSPARENT if six else IP_TRANSPARENT, 1)
    if given.get("dontroute"):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    if given.get("broadcast"):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if "device" in given:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, given["device"].encode())
    if "index" in given:
        made.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, socket.if_nametoindex(given["index"]))
    if "unicast" in given:
        index = struct.pack("!I", socket.if_nametoindex(given["unicast"]))
        made.setsockopt(level, IPV6_UNICAST_IF if six else IP_UNICAST_IF, index)
    if "source" in given:
        made.bind((("::ffff:" if given.get("mapped") else "") + given["source"], given.get("from", 0)))
    return made, (("::ffff:" if given.get("mapped") else "") + target, given.get("port", 0))


def control(given):
    if "pktinfo" not in given:
        return []
    address, device = given["pktinfo"]
    index = socket.if_nametoindex(device) if device else 0
    if is6(given["target"]):
        packed = socket.inet_pton(socket.AF_INET6, address or "::") + struct.pack("=I", index)
        return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, packed)]
    packed = struct.pack("=I", index) + socket.inet_aton(address or "0.0.0.0") + bytes(4)
    return [(socket.IPPROTO_IP, IP_PKTINFO, packed)]


def udp(given):
    made, target = opened(given, socket.SOCK_DGRAM)
    with made:
        made.sendmsg([b"escape"], control(given), 0, target)


def lite(given):
    udp({**given, "protocol": socket.IPPROTO_UDPLITE})


def tcp(given):
    made, target = opened(given, socket.SOCK_STREAM)
    try:
        made.connect(target)
    except BlockingIOError:
        pass
    kept.append(made)


def fast(given):
    made, target = opened(given, socket.SOCK_STREAM)
    try:
        made.sendto(b"escape", MSG_FASTOPEN, target)
    except BlockingIOError:
        pass
    kept.append(made)


def raw(given):
    if "header" in given:
        given["protocol"] = 255  # IPPROTO_RAW: the header is the sender's
    made, target = opened(given, socket.SOCK_RAW)
    with made:
        data = bytes.fromhex(given.get("header") or given["data"])
        made.sendmsg([data], control(given), 0, (target[0], 0))


def packet(given):
    kind = socket.SOCK_DGRAM if given.get("cooked") else socket.SOCK_RAW
    with socket.socket(socket.AF_PACKET, kind, 0) as made:
        if given.get("bypass"):
            made.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        station = bytes.fromhex(given.get("station", "").replace(":", ""))
        data = bytes.fromhex(given["frame"])
        made.sendto(data, (given["device"], given.get("protocol", 0), 0, 0, station))


def become(uid, keeps_raw):
    if uid == 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kept = 1 << 13 if keeps_raw else 0  # CAP_NET_RAW
    version_3 = struct.pack("=Ii", 0x20080522, 0)
    if libc.capset(version_3, struct.pack("=6I", kept, kept, 0, 0, 0, 0)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


WAYS = {"udp": udp, "lite": lite, "tcp": tcp, "fast": fast, "raw": raw, "packet": packet}
kept = []  # so that a SYN is sent again, as it would be
become(int(sys.argv[1]), "raw" in sys.argv[2:])
print("ready", flush=True)
for line in sys.stdin:
    attempt = json.loads(line)
    try:
        WAYS[attempt["way"]](attempt)
        print("ok", flush=True)
    except OSError as error:
        print(errno.errorcode.get(error.errno or 0, str(error)), flush=True)
