"""Starts applications as a desktop does: forks, moves the child into a cgroup, makes it a user's, perhaps by exec. Applications
live on and ask servers when they are told; a volley is one that sends once and ends. Takes one JSON array a line
(an operation and its arguments), answers each with one line. ../launcher.ts is the other side.
launcher.py | launcher.py application UID FD | launcher.py volley UID NUMBER TARGET..."""

import contextlib
import errno
import json
import os
import selectors
import socket
import sys
import time

ECHO_PORT = 7
FIRST_PORT = 20000
ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
PING = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
MOST_AT_ONCE = 8
PATIENCE_OF_DATAGRAMS = 0.5


def family_of(target):
    return socket.AF_INET6 if ":" in target else socket.AF_INET


def echo_request(family, number, payload):
    # The kernel fills in checksum and identifier.
    return bytes([ECHO_REQUEST[family], 0, 0, 0, 0, 0]) + number.to_bytes(2, "big") + payload


def reason(error):
    return errno.errorcode.get(error.errno, str(error))


class Flow:
    """One socket: `tcp`, `udp` (connected), `datagram` (not connected), `icmp`. Asked anew with every ask()."""

    def __init__(self, kind, target):
        self.kind, self.target, self.asked, self.is_connected = kind, target, 0, False
        family = family_of(target)
        kinds = {"tcp": (socket.SOCK_STREAM, 0), "icmp": (socket.SOCK_DGRAM, PING[family])}
        self.socket = socket.socket(family, *kinds.get(kind, (socket.SOCK_DGRAM, 0)))
        self.socket.setblocking(False)

    def ask(self):
        self.asked += 1
        place = (self.target, ECHO_PORT)
        if self.kind == "icmp":
            self.socket.sendto(echo_request(self.socket.family, self.asked, b"?"), (self.target, 0))
        elif self.kind == "datagram":
            self.socket.sendto(b"%d" % self.asked, place)
        elif self.asked == 1 and not self.is_connected:
            self.is_connected = True
            result = self.socket.connect_ex(place)
            if result not in (0, errno.EINPROGRESS):
                raise OSError(result, "")
            if self.kind == "udp":
                self.socket.send(b"1")
        else:
            self.socket.send(b"%d\n" % self.asked)

    def answer(self):
        """Who answered the last question and whom it saw; of a connection that was asked again only `again`."""
        data = self.socket.recv(2048)
        if self.kind == "icmp":
            return data[8:].decode() if data[6:8] == self.asked.to_bytes(2, "big") else None
        words = data.decode().split()
        if self.kind == "tcp":
            if not words:
                raise OSError(errno.EPIPE, "")
            return " ".join(words[:2]) if self.asked == 1 else "again"
        return " ".join(words[:2]) if words[-1] == str(self.asked) else None


def repeat(flows):
    """A queue on the way may have been full."""
    for flow in flows:
        if flow.kind != "tcp":
            flow.asked -= 1
            with contextlib.suppress(OSError):
                flow.ask()


def ask_all(flows, patience):
    answers = {}
    with selectors.DefaultSelector() as selector:
        for flow in flows:
            try:
                flow.ask()
                selector.register(flow.socket, selectors.EVENT_READ, flow)
            except OSError as error:
                answers[f"{flow.kind} {flow.target}"] = reason(error)
        start = time.monotonic()
        rounds = 0
        while selector.get_map() and time.monotonic() < start + patience:
            if time.monotonic() > start + (rounds + 1) * PATIENCE_OF_DATAGRAMS:
                rounds += 1
                repeat([key.data for key in selector.get_map().values()])
            for key, _ in selector.select(0.05):
                flow = key.data
                try:
                    text = flow.answer()
                except BlockingIOError:
                    continue
                except OSError as error:
                    text = reason(error)
                if text is not None:
                    selector.unregister(flow.socket)
                    answers[f"{flow.kind} {flow.target}"] = text
        for key in selector.get_map().values():
            answers[f"{key.data.kind} {key.data.target}"] = "silence"
    return answers


def application(orders):
    """Obeys until the launcher is gone. `kept` are sockets that are used again and again."""
    kept = []
    while data := orders.recv(65536):
        operation, kinds, targets, patience = json.loads(data)
        flows = [] if operation == "again" else [Flow(kind, target) for target in targets for kind in kinds]
        if operation == "open":
            kept += flows
        answers = ask_all(kept if operation == "again" else flows, patience)
        orders.send(json.dumps(answers).encode())
    os._exit(0)


def enter(cgroup):
    with open(f"{cgroup}/cgroup.procs", "w") as procs:
        procs.write("0")


def become(uid):
    """After an exec: a user may not be able to run this interpreter."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def volley(number, targets):
    """The first packets of a new process, of every protocol; each is told by its port or its payload. Returns what failed."""
    failed = []
    steps = [(protocol, target) for protocol in ("tcp", "udp", "icmp") for target in targets]
    turn = number % len(steps)
    for protocol, target in steps[turn:] + steps[:turn]:
        family, text, place = family_of(target), b"volley %d" % number, (target, FIRST_PORT + number)
        try:
            if protocol == "tcp":
                made = socket.socket(family, socket.SOCK_STREAM)
                made.setblocking(False)
                result = made.connect_ex(place)
                if result not in (0, errno.EINPROGRESS):
                    raise OSError(result, "")
            elif protocol == "udp":
                socket.socket(family, socket.SOCK_DGRAM).sendto(text, place)
            else:
                made = socket.socket(family, socket.SOCK_DGRAM, PING[family])
                made.sendto(echo_request(family, number & 0xFFFF, text), (target, 0))
        except OSError as error:
            failed.append(f"{number} {protocol} {target} {reason(error)}")
    for line in failed:
        print(line, file=sys.stderr, flush=True)
    return failed


applications = {}
busy = []


def run_again(*words):
    os.execv(sys.executable, [sys.executable, "-SE", __file__, *words])


def start(name, cgroup, uid, how):
    """how: `fork`, `exec`, or `child`, whose parent stays in the cgroup and does nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        for orders, _ in applications.values():
            orders.close()
        ours.close()
        try:
            enter(cgroup)
            if how == "exec":
                theirs.set_inheritable(True)
                run_again("application", str(uid), str(theirs.fileno()))
            become(uid)
            if how == "child" and (child := os.fork()):
                theirs.close()
                os.waitpid(child, 0)
                os._exit(0)
            application(theirs)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
        os._exit(1)
    theirs.close()
    applications[name] = (ours, pid)
    return pid


def order(names, targets, message):
    """Some of them at a time. `targets`: of each name."""
    answers = {}
    for first in range(0, len(names), MOST_AT_ONCE):
        some = names[first : first + MOST_AT_ONCE]
        for name, own in zip(some, targets[first:]):
            applications[name][0].send(json.dumps([*message[:2], own, message[2]]).encode())
        answers |= {name: json.loads(applications[name][0].recv(65536)) for name in some}
    return answers


def end(names):
    for name in names:
        orders, pid = applications.pop(name)
        orders.close()
        os.waitpid(pid, 0)


def crowd(directory, pattern, uid, count, targets, patience):
    """Starts that many, each in a new cgroup, and has each open sockets at once. Returns their names."""
    names = []
    for number in range(count):
        name = pattern.replace("#", str(number))
        os.mkdir(f"{directory}/{name}")
        start(name, f"{directory}/{name}", uid, "fork")
        applications[name][0].send(json.dumps(["open", ["udp", "datagram", "icmp"], targets, patience]).encode())
        names.append(name)
    for name in names:
        applications[name][0].recv(65536)
    return names


def volleys(directory, pattern, uid, count, first, targets, exec_every):
    """Launches that many volleys, each in a new cgroup that goes with it. Returns how many failed to send something."""
    failures, living = 0, {}

    def reap():
        nonlocal failures
        pid, status = os.wait()
        failures += status != 0
        os.rmdir(living.pop(pid))

    for number in range(first, first + count):
        cgroup = f"{directory}/{pattern.replace('#', str(number))}"
        os.mkdir(cgroup)
        pid = os.fork()
        if pid == 0:
            try:
                enter(cgroup)
                if exec_every and number % exec_every == 0:
                    run_again("volley", str(uid), str(number), *targets)
                become(uid)
                os._exit(1 if volley(number, targets) else 0)
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
            os._exit(1)
        living[pid] = cgroup
        while len(living) >= MOST_AT_ONCE:
            reap()
    while living:
        reap()
    return failures


def load(count):
    """That many processes that do nothing but use the CPU; 0: none any more."""
    while busy:
        os.kill(pid := busy.pop(), 9)
        os.waitpid(pid, 0)
    parent = os.getpid()
    for _ in range(count):
        if (pid := os.fork()) == 0:
            while os.getppid() == parent:
                sum(range(10000))
            os._exit(0)
        busy.append(pid)


def obey():
    print("ready", flush=True)
    operations = {each.__name__: each for each in (start, order, end, crowd, volleys, load)}
    for line in sys.stdin:
        operation, *arguments = json.loads(line)
        try:
            print(json.dumps({"result": operations[operation](*arguments)}), flush=True)
        except Exception as error:
            print(json.dumps({"error": f"{operation}: {error!r}"}), flush=True)


if sys.argv[1:2] == ["application"]:
    become(int(sys.argv[2]))
    application(socket.socket(fileno=int(sys.argv[3])))
elif sys.argv[1:2] == ["volley"]:
    become(int(sys.argv[2]))
    sys.exit(1 if volley(int(sys.argv[3]), sys.argv[4:]) else 0)
else:
    obey()
