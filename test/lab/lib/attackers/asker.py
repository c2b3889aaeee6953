"""Asks resolvers by every kind of socket, one JSON object a line on stdin, and prints for each `answered`, `silence`, or the errno's
name. Started by root, because not every user can run every python3; becomes the user by itself. asker.py UID

{"name", "protocol": "udp", "udplite", "tcp" or "mptcp", "target", "port" (53)} and more of these:
  device (SO_BINDTODEVICE), source and from (bind), unconnected (sendto), keep (under this key, when it was answered)
{"again": key, "name"} asks by a socket that was kept
"""

import encodings.idna  # noqa: F401, for getaddrinfo, while the folder may be read
import errno
import json
import os
import socket
import sys

PATIENCE = 15
PATIENCE_AGAIN = 3  # silence is one of the ways in which a kept socket ends
KINDS = {
    "udp": (socket.SOCK_DGRAM, 0),
    "udplite": (socket.SOCK_DGRAM, 136),
    "tcp": (socket.SOCK_STREAM, 0),
    "mptcp": (socket.SOCK_STREAM, 262),
}


def question(name, kind):
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    query = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\x10\0\1"  # TXT
    return query if kind == socket.SOCK_DGRAM else len(query).to_bytes(2, "big") + query


def opened(given):
    kind, number = KINDS[given["protocol"]]
    target = socket.getaddrinfo(given["target"], given.get("port", 53), flags=socket.AI_NUMERICHOST)[0]
    made = socket.socket(target[0], kind, number)
    made.settimeout(PATIENCE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "device" in given:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, given["device"].encode())
    if "source" in given or "from" in given:
        made.bind((given.get("source", ""), given.get("from", 0)))
    return made, target[4]


def ask(given):
    made, target = kept[given["again"]] if "again" in given else opened(given)
    if "again" in given:
        made.settimeout(PATIENCE_AGAIN)
    data = question(given["name"], made.type)
    if given.get("unconnected"):
        made.sendto(data, target)
    else:
        if "again" not in given:
            made.connect(target)
        made.sendall(data)
    if not made.recv(4096):
        raise OSError(errno.EPIPE, "closed")
    if "keep" in given:
        kept[given["keep"]] = (made, target)
    return "answered"


kept = {}
uid = int(sys.argv[1])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(ask(json.loads(line)), flush=True)
    except TimeoutError:
        print("silence", flush=True)
    except OSError as error:
        print(errno.errorcode.get(error.errno or 0, str(error)), flush=True)
