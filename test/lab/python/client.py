#!/usr/bin/env python3
"""A client of vpnd's socket in Python's standard library alone, written from docs/protocol.md.

    client.py SOCKET PROBE_ADDRESS PROBE_PORT [offload]

Says hello, protects a UDP socket and sends PROBE_ADDRESS a datagram through it, sets a VPN up, prints what it got, reads
packets from the TUN until one is an IPv4 ICMP echo request, destroys the VPN. With `offload` the TUN is one with a
virtio_net_hdr before every packet. One JSON object a line on standard output.
"""
import array
import fcntl
import json
import os
import select
import socket
import struct
import sys

SO_MARK = 36
TUNGETIFF = 0x800454D2
TUNSETOFFLOAD = 0x400454D0
IFF_VNET_HDR = 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
VNET_HEADER = struct.Struct("=BBHHHH")
CONFIG = {
    "addresses": [{"address": {"address": "10.7.0.2", "family": 1}, "prefixLength": 24}],
    "mtu": 1400,
    "isBlocking": True,
}


class Refused(Exception):
    """An error object of the service's."""


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")
        self.last_id = 0
        self.events = []

    def call(self, method, params, fds=()):
        self.last_id += 1
        request = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}
        if fds:
            request["fds"] = len(fds)
        line = json.dumps(request).encode() + b"\n"
        # The descriptors go with the first byte of the line.
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([line], rights)
        self.socket.sendall(line[sent:])
        while True:
            answer = json.loads(self.lines.readline())
            if answer.get("method") == "event":
                self.events.append(answer["params"]["type"])
                continue
            assert answer["id"] == self.last_id
            if "error" in answer:
                raise Refused(answer["error"]["code"])
            return answer["result"]

    def set_up(self, config, **options):
        """The vNIC's name and its descriptor, which has come through the mailbox before the answer does."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with mine, theirs:
            result = self.call("setUp", {"config": config, **options}, [theirs.fileno()])
            _, ancillary, _, _ = mine.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        (level, kind, data), = ancillary
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        return result["link"], array.array("i", data)[0]


def say(**fields):
    print(json.dumps(fields), flush=True)


def has_vnet_header(tun):
    (flags,) = struct.unpack_from("=H", fcntl.ioctl(tun, TUNGETIFF, bytes(40)), 16)
    return flags & IFF_VNET_HDR != 0


def read_echo_request(tun, offload):
    while True:
        if not select.select([tun], [], [], 30)[0]:
            raise TimeoutError("no echo request within 30 s")
        packet = os.read(tun, 65536 + VNET_HEADER.size)
        if offload:
            flags, gso_type, *_ = VNET_HEADER.unpack_from(packet)
            packet = packet[VNET_HEADER.size:]
            # An echo request is whole, whatever the kernel may send.
            assert (flags & 1, gso_type) == (0, 0)
        if packet[0] >> 4 == 4 and packet[9] == 1 and packet[20] == 8:
            return packet


def main():
    path, probe_address, probe_port, *rest = sys.argv[1:]
    offload = rest == ["offload"]
    client = Client(path)
    say(hello=client.call("hello", {"protocol": 1}))
    client.call("subscribe", {})

    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    before = udp.getsockopt(socket.SOL_SOCKET, SO_MARK)
    client.call("protect", {}, [udp.fileno()])
    say(mark=[before, udp.getsockopt(socket.SOL_SOCKET, SO_MARK) & 0xFFFFFFFF])

    link, tun = client.set_up(CONFIG, offload=True) if offload else client.set_up(CONFIG)
    say(link=link, inheritable=os.get_inheritable(tun), blocking=os.get_blocking(tun), offload=has_vnet_header(tun))
    if offload:
        # No right is needed.
        fcntl.ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    udp.sendto(b"from python", (probe_address, int(probe_port)))
    udp.settimeout(30)
    say(seen_as=udp.recv(2048).decode())
    try:
        client.set_up(CONFIG)
    except Refused as refused:
        say(second=refused.args[0])
    say(status=client.call("status", {})["vpns"])

    packet = read_echo_request(tun, offload)
    say(packet={
        "source": socket.inet_ntoa(packet[12:16]),
        "destination": socket.inet_ntoa(packet[16:20]),
        "length": len(packet),
    })
    # Until the test has looked at the kernel.
    sys.stdin.readline()
    client.call("destroy", {})
    say(vpns=client.call("status", {})["vpns"], events=client.events)
    os.close(tun)


main()
