"""
A client of MPTCP that does what it reads. Arguments: uid, address, port, the directory of a cgroup or "".

say     sends a few bytes and waits for them to come back: "heard"
fill    sends until no more is taken: "filled BYTES"
close   closes, whatever has not been sent: "closed"
hear    reads until an error ends it: "ended ERRNO"
open    opens another socket: "opened", or "refused ERRNO"
"""
import errno
import os
import socket
import sys

MPTCP = 262
uid, address, port, cgroup = sys.argv[1:]
if cgroup:
    with open(cgroup + "/cgroup.procs", "w") as processes:
        processes.write("0")
os.setresuid(*[int(uid)] * 3)
family = socket.AF_INET6 if ":" in address else socket.AF_INET


def name(error):
    return errno.errorcode.get(error.errno, str(error))


def say():
    connection.settimeout(30)
    connection.sendall(b"hello")
    return "heard" if connection.recv(65536) else "ended"


def fill():
    connection.setblocking(False)
    sent = 0
    try:
        while sent < 1 << 24:
            sent += connection.send(b"payload " * 512)
    except BlockingIOError:
        pass
    return "filled %d" % sent


def hear():
    connection.settimeout(None)
    try:
        while connection.recv(65536):
            pass
        connection.getpeername()
    except OSError as error:
        return "ended " + name(error)
    return "ended 0"


def again():
    try:
        socket.socket(family, socket.SOCK_STREAM, MPTCP).close()
    except OSError as error:
        return "refused " + name(error)
    return "opened"


def close():
    connection.close()
    return "closed"


print("ready", flush=True)
commands = {"say": say, "fill": fill, "close": close, "hear": hear, "open": again}
connection = None
for line in sys.stdin:
    command = line.strip()
    if command == "connect":
        try:
            connection = socket.socket(family, socket.SOCK_STREAM, MPTCP)
            connection.settimeout(30)
            connection.connect((address, int(port)))
            print("connected", flush=True)
        except OSError as error:
            print("failed " + name(error), flush=True)
    else:
        try:
            print(commands[command](), flush=True)
        except OSError as error:
            print("failed " + name(error), flush=True)
